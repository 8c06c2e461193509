"""Whatever a batch is: in every form it gets the same verdicts, and leaves the same behind."""

import dataclasses
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import count
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.forms import http
from tests.api.ingest.forms import FORMS, Sent
from tests.conftest import NOW
from tests.metering.market import Market, open_market

pytestmark = pytest.mark.anyio

_EXAMPLES = count()

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=9)
NUMBERS = st.integers(-(10**30), 10**30) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
PROPERTIES = st.dictionaries(NAMES | st.just("tokens"), VALUES, max_size=4)
TOKENS = st.sampled_from([1, Decimal("0.1"), "44", "1e3", -1, "NaN", Decimal("1E+400")])
EVENTS = st.fixed_dictionaries(
    {"specversion": st.just("1.0")},
    optional={
        "id": st.sampled_from("abc") | NAMES,
        "source": st.sampled_from(["/x", "/y", "urn:" + "z" * 260]),
        "type": st.sampled_from(["llm.request"] * 3 + ["unheard.of", "x" * 129]),
        "subject": st.sampled_from(["acme"] * 3 + ["globex", "nobody", "né", " a b"]),
        "apikey": st.just("sk_live_1"),
        "time": st.sampled_from(
            ["2026-11-20T10:00:00.123Z", "2026-11-20t11:00:00+01:00", "2020-01-01T00:00:00Z", "no"]
        ),
        "data": PROPERTIES | st.fixed_dictionaries({"tokens": TOKENS}) | VALUES,
    },
)

Stall = tuple[Market, httpx2.AsyncClient]


@pytest.fixture(scope="module")
async def stalls(shared_runtime: Runtime) -> AsyncIterator[dict[str, Stall]]:
    """A market for each form, under a clock that stands still."""
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    opened: dict[str, Stall] = {}
    for form in FORMS:
        tenant = await create_tenant(runtime, name=f"Sends {form}")
        market = await open_market(runtime, TenantId(tenant.tenant.tenant_id))
        opened[form] = market, http(runtime, tenant)
    yield opened
    for _, client in opened.values():
        await client.aclose()


@settings(max_examples=25)
@given(st.lists(EVENTS, max_size=5))
async def test_the_form_makes_no_difference(
    stalls: dict[str, Stall], batch: list[dict[str, Any]]
) -> None:
    example = next(_EXAMPLES)
    for event in batch:
        if "id" in event:
            event["id"] = f"{example}-{event['id']}"
    answers = {
        form: await answered(client, FORMS[form](batch)) for form, (_, client) in stalls.items()
    }
    assert all(answer == answers["array"] for answer in answers.values())
    left = {form: await left_behind(market) for form, (market, _) in stalls.items()}
    assert all(rows == left["array"] for rows in left.values())


async def answered(client: httpx2.AsyncClient, requests: list[Sent]) -> list[tuple[Any, ...]]:
    """Every verdict with the place of its event, over all the requests that a batch takes."""
    said: list[tuple[Any, ...]] = []
    for place, (body, headers) in enumerate(requests):
        response = await client.post("/v1/events", content=body, headers=headers)
        assert response.status_code == 202, response.text
        for one in response.json()["verdicts"]:
            index = one["index"] if len(requests) == 1 else place
            said.append((index, one["idempotencyKey"], one["verdict"], one["stage"], one["code"]))
    return said


async def left_behind(market: Market) -> list[Any]:
    """What is kept of all events so far, but for ids that are made up."""
    accepted = await market.waiting()
    return [
        sorted(
            (one.idempotency_key, one.type, str(one.occurred_at), one.properties, str(one.cost))
            for one in accepted
        ),
        sorted(json.dumps(row["body"]) for row in await market.rows("quarantined_event")),
        sorted(row["payload_hash"] for row in await market.rows("event_key")),
        len(await market.rows("event_conflict")),
    ]
