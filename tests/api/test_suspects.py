"""Suspected duplicates: what says the same within seconds is shown, and nothing else."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from aforo.metering import suspects
from tests.api.forms import GraphQL, change, made, no_such, offering
from tests.api.shop import OCTOBER, Shop, call
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

AT = datetime.fromisoformat("2026-10-15T10:00:00Z")
SUSPECTS = """
query($customer: ID!, $period: PeriodInput!, $within: Int! = 5) {
  suspectedDuplicates(customerId: $customer, period: $period, withinSeconds: $within) {
    count
    pairs { event { idempotencyKey } before { idempotencyKey } }
  }
}
"""


def said(key: str, seconds: float, tokens: object = 5, **more: Any) -> dict[str, Any]:
    at = (AT + timedelta(seconds=seconds)).isoformat()
    return {**call(1, tokens), "idempotencyKey": key, "occurredAt": at, **more}


async def suspected(graphql: GraphQL, shop: Shop, **more: Any) -> tuple[int, list[tuple[str, str]]]:
    found = await graphql(SUSPECTS, customer=shop.customer_id, period=OCTOBER, **more)
    result = found["suspectedDuplicates"]
    return int(result["count"]), [
        (pair["before"]["idempotencyKey"], pair["event"]["idempotencyKey"])
        for pair in result["pairs"]
    ]


async def test_what_says_the_same_within_seconds_is_shown_with_what_was_before(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    answer = await send(
        said("a", 0),
        said("copy of a", 5),
        said("copy of the copy", 5.5, "5"),  # A text is no number: it says something else.
        said("other value", 1, 6),
        said("too late", 10.000_001),
        said("copy of the late one", 11),
        said("same moment", 11),
        said("other type", 11, type="unheard.of"),
    )
    assert answer["accepted"] == 7
    await run_jobs()
    assert await suspected(graphql, shop) == (
        3,
        [
            ("copy of the late one", "same moment"),
            ("too late", "copy of the late one"),
            ("a", "copy of a"),
        ],
    )
    assert (await suspected(graphql, shop, within=4))[0] == 2
    assert (await suspected(graphql, shop, within=6))[0] == 4


async def test_only_events_of_the_period_are_held_against_each_other(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    moment = "2026-11-01T00:00:00Z"
    await send(
        {**call(1, 5), "occurredAt": "2026-10-31T23:59:59Z"}, {**call(2, 5), "occurredAt": moment}
    )
    await run_jobs()
    assert await suspected(graphql, shop) == (0, [])
    both = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:01Z"}
    found = await graphql(SUSPECTS, customer=shop.customer_id, period=both)
    assert found["suspectedDuplicates"]["count"] == 1


async def test_of_a_very_long_period_the_latest_events_are_looked_at(
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await send(said("a", 0), said("b", 1), said("c", 2), said("d", 3))
    await run_jobs()
    monkeypatch.setattr(suspects, "EVENTS_MAX", 2)
    assert await suspected(graphql, shop) == (1, [("c", "d")])


async def test_a_draft_shows_them_and_a_final_invoice_does_not(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    patient = await made(graphql, "createCustomer", externalId="b", name="B", currency="USD")
    await made(
        graphql,
        "createSubscription",
        customerId=patient,
        offeringId=await offering(graphql, code="b"),
        startsAt=OCTOBER["start"],
        anchorDay=1,
        graceSeconds=30 * 86_400,
    )
    await send(*(said(f"{who}-{at}", at, customer=who) for who in ("acme", "b") for at in range(3)))
    await run_jobs()
    await change(graphql, "startBillRun", until=NOW.isoformat())
    await run_jobs()
    invoices = "{ invoices { edges { node { state suspectedDuplicates { count } } } } }"
    edges = (await graphql(invoices))["invoices"]["edges"]
    shown = {edge["node"]["state"]: edge["node"]["suspectedDuplicates"] for edge in edges}
    assert shown == {"FINALIZED": None, "DRAFT": {"count": 2}}


async def test_what_cannot_be_asked_is_refused(
    graphql: GraphQL, client: httpx2.AsyncClient, shop: Shop
) -> None:
    asked = {"customer": shop.customer_id, "period": OCTOBER}
    for within in (0, 3_601):
        response = await client.post(
            "/graphql", json={"query": SUSPECTS, "variables": {**asked, "within": within}}
        )
        [error] = response.json()["errors"]
        assert error["extensions"]["code"] == "INVALID"
    found = await graphql(SUSPECTS, customer=no_such("Customer"), period=OCTOBER)
    assert found == {"suspectedDuplicates": None}
