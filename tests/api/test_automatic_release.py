"""Quarantined events that are released as soon as what they waited for is made."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aforo.metering import commands as ingestion
from aforo.metering import quarantine
from aforo.metering.prepare import Known
from aforo.stages.commands import LATE
from aforo.stages.registry import StageName
from aforo.storage.clock import MovableClock
from aforo.subscriptions.hierarchy import Hierarchy
from tests.api.forms import GraphQL, made, meter
from tests.api.shop import Shop, call
from tests.api.test_stages import changed

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]
KEY = "sk_live_of_an_agent_of_acme"


async def automatic(graphql: GraphQL) -> None:
    answer = await changed(graphql, StageName.VALIDATION, 0, releaseAutomatically=True)
    assert answer["version"] == 1


async def states(graphql: GraphQL) -> dict[str, str]:
    """The code of each event that waits, else its state, by key."""
    found = await graphql(
        "{ quarantinedEvents(state: null) { edges { node { idempotencyKey state code } } } }"
    )
    nodes = [edge["node"] for edge in found["quarantinedEvents"]["edges"]]
    return {
        each["idempotencyKey"]: each["code"] if each["state"] == "QUARANTINED" else each["state"]
        for each in nodes
    }


async def buys(graphql: GraphQL, customer_id: str) -> None:
    offerings = await graphql("{ offerings { edges { node { id } } } }")
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offerings["offerings"]["edges"][0]["node"]["id"],
        startsAt="2026-10-01T00:00:00Z",
    )


async def test_unless_it_is_set_events_wait_for_somebody(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await send({**call(1, 1), "type": "later"})
    await made(graphql, "createMeter", **meter(code="later", eventType="later"))
    clock.advance(LATE)
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "UNKNOWN_METER"}


async def test_a_meter_a_key_and_an_alias_release_what_waits_for_them_alone(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await automatic(graphql)
    await send(
        {**call(1, 1), "type": "later"},
        {**call(2, 2), "apiKey": KEY, "customer": None},
        {**call(3, 3), "customer": "acme-before"},
        {**call(4, 4), "type": "never"},
        {**call(5, 5), "apiKey": f"{KEY}-other", "customer": None},
        {**call(6, 6), "customer": "acme-after"},
    )
    await made(graphql, "createMeter", **meter(code="later", eventType="later"))
    await made(
        graphql,
        "registerCustomerKey",
        customerId=shop.customer_id,
        name="k",
        key=KEY,
        validFrom="2026-10-01T00:00:00Z",
    )
    await made(
        graphql,
        "registerCustomerAlias",
        customerId=shop.customer_id,
        externalId="acme-before",
        validFrom="2026-10-01T00:00:00Z",
    )
    await run_jobs()
    assert await states(graphql) == {
        "2026-10-1": "RELEASED",
        "2026-10-2": "RELEASED",
        "2026-10-3": "RELEASED",
        "2026-10-4": "UNKNOWN_METER",
        "2026-10-5": "KEY_UNKNOWN",
        "2026-10-6": "UNKNOWN_CUSTOMER",
    }
    events = await graphql("{ events { edges { node { idempotencyKey } } } }")
    keys = {edge["node"]["idempotencyKey"] for edge in events["events"]["edges"]}
    assert keys == {"2026-10-1", "2026-10-2", "2026-10-3"}


async def test_a_customer_and_then_a_subscription_let_an_event_in(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await automatic(graphql)
    await send({**call(1, 1), "customer": "later"})
    customer_id = await made(
        graphql, "createCustomer", externalId="later", name="Later", currency="USD"
    )
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "NO_ACTIVE_SUBSCRIPTION"}
    await made(
        graphql,
        "registerCustomerKey",
        customerId=customer_id,
        name="k",
        key=KEY,
        validFrom="2026-10-01T00:00:00Z",
    )
    await send({**call(2, 1), "customer": None, "apiKey": KEY})
    await buys(graphql, customer_id)
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "RELEASED", "2026-10-2": "RELEASED"}
    log = await graphql(
        '{ auditLog(action: "quarantinedEventsReleased") { edges { node { actor { label } '
        "changes { after } } } } }"
    )
    [entry] = [edge["node"] for edge in log["auditLog"]["edges"]]
    assert entry["changes"][0]["after"] == {"code": "NO_ACTIVE_SUBSCRIPTION", "events": 2}
    assert entry["actor"]["label"] == "release_quarantined"


async def test_an_event_that_was_looked_up_before_and_kept_after_is_released_too(
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    run_jobs: RunJobs,
    clock: MovableClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def as_before(*_: object) -> Known:
        return Known({}, {}, Hierarchy({}, {}), {})

    await automatic(graphql)
    await made(graphql, "createMeter", **meter(code="later", eventType="later"))
    await run_jobs()
    with monkeypatch.context() as before:
        before.setattr(ingestion, "known_of", as_before)
        before.setattr(ingestion, "known_now", as_before)
        await send({**call(1, 1), "type": "later"})
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "UNKNOWN_METER"}
    clock.advance(LATE)
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "RELEASED"}


async def test_more_than_fit_into_one_job_are_all_released(
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine, "SETTLED_AT_ONCE", 2)
    await automatic(graphql)
    await send(*({**call(number, 1), "type": "later"} for number in range(5)))
    await made(graphql, "createMeter", **meter(code="later", eventType="later"))
    await run_jobs()
    assert set((await states(graphql)).values()) == {"RELEASED"}


async def test_what_waits_already_is_released_once_it_is_set(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send({**call(1, 1), "type": "later"}, {**call(2, 1), "type": "never"})
    await made(graphql, "createMeter", **meter(code="later", eventType="later"))
    await run_jobs()
    await automatic(graphql)
    await run_jobs()
    assert await states(graphql) == {"2026-10-1": "RELEASED", "2026-10-2": "UNKNOWN_METER"}
