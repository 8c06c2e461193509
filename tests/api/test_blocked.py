"""What a quota blocks, through the API: kept and shown with the reason, never billed."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aforo.storage.clock import MovableClock
from tests.api.forms import GraphQL
from tests.api.gate import sell
from tests.api.shop import call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

EVENTS = """
{ events(first: 10) { edges { node {
  idempotencyKey state
  blocks { limit usedBefore meter { code } entitlement { code version } }
} } } }
"""
USAGE = """
{ usage(meterCode: "tokens", period: {start: "2026-11-01T00:00:00Z", end: "2026-12-01T00:00:00Z"}) {
  total { quantity events } blocked { quantity events }
} }
"""
QUOTAS = '{ customer(externalId: "acme") { quotas { limit used remaining overage } } }'
INVOICES = """
{ invoices(first: 1) { edges { node { total lines { code quantity amount eventCount
  sourceEvents(first: 10) { edges { node { idempotencyKey state } } } } } } } }
"""


@pytest.fixture
async def full(graphql: GraphQL, send: Send, run_jobs: RunJobs) -> None:
    """Acme may use 100: 80, then 50, 15, 10 and 5."""
    await sell(graphql)
    for number, tokens in enumerate((80, 50, 15, 10, 5)):
        await send(call(number, tokens, month="2026-11"))
        await run_jobs()


@pytest.mark.usefixtures("full")
async def test_an_event_that_does_not_fit_is_shown_with_the_reason(graphql: GraphQL) -> None:
    shown = [edge["node"] for edge in (await graphql(EVENTS))["events"]["edges"]]
    states = {one["idempotencyKey"]: one["state"] for one in shown}
    assert states == {
        "2026-11-0": "COUNTED",
        "2026-11-1": "BLOCKED",
        "2026-11-2": "COUNTED",
        "2026-11-3": "BLOCKED",
        "2026-11-4": "COUNTED",
    }
    why = {one["idempotencyKey"]: one["blocks"] for one in shown}
    reason = {
        "limit": "100",
        "meter": {"code": "tokens"},
        "entitlement": {"code": "tokens", "version": 1},
    }
    assert why["2026-11-0"] == []
    assert why["2026-11-1"] == [{**reason, "usedBefore": "80"}]
    assert why["2026-11-3"] == [{**reason, "usedBefore": "95"}]


@pytest.mark.usefixtures("full")
async def test_usage_shows_what_is_blocked_apart(graphql: GraphQL) -> None:
    assert (await graphql(USAGE))["usage"] == {
        "total": {"quantity": "100", "events": 3},
        "blocked": {"quantity": "60", "events": 2},
    }
    assert (await graphql(QUOTAS))["customer"]["quotas"] == [
        {"limit": "100", "used": "100", "remaining": "0", "overage": "0"}
    ]


@pytest.mark.usefixtures("full")
async def test_what_is_blocked_is_never_billed_and_on_no_line(
    graphql: GraphQL, run_jobs: RunJobs, clock: MovableClock
) -> None:
    clock.move_to(clock.now().replace(month=12, day=2))
    await run_jobs()
    [invoice] = [edge["node"] for edge in (await graphql(INVOICES))["invoices"]["edges"]]
    [line] = invoice["lines"]
    assert (line["quantity"], line["eventCount"]) == ("100", 3)
    source = [edge["node"] for edge in line["sourceEvents"]["edges"]]
    assert [one["idempotencyKey"] for one in source] == ["2026-11-0", "2026-11-2", "2026-11-4"]
    assert {one["state"] for one in source} == {"COUNTED"}


async def test_the_live_counter_says_the_same_while_events_are_blocked(
    graphql: GraphQL, send: Send, run_jobs: RunJobs
) -> None:
    await sell(graphql)
    assert (await graphql(QUOTAS))["customer"]["quotas"][0]["used"] == "0"  # It is followed.
    for number, (tokens, used) in enumerate(((80, "80"), (50, "80"), (15, "95"), (5, "100"))):
        await send(call(number, tokens, month="2026-11"))
        await run_jobs()
        assert (await graphql(QUOTAS))["customer"]["quotas"][0]["used"] == used


@pytest.mark.usefixtures("full")
async def test_a_trace_says_which_quota_blocked_an_event(graphql: GraphQL) -> None:
    trace = """{ event(idempotencyKey: "2026-11-3") { trace { stage passed decision reason } } }"""
    steps = (await graphql(trace))["event"]["trace"]
    found = {step["stage"]: step for step in steps}
    assert (found["QUOTA_CHECK"]["decision"], found["QUOTA_CHECK"]["passed"]) == ("BLOCKED", False)
    assert "95 of 100 tokens were used before it" in found["QUOTA_CHECK"]["reason"]
    assert found["AGGREGATION"]["decision"] == "BLOCKED"


@pytest.mark.usefixtures("full")
async def test_what_is_voided_keeps_nothing_out(
    graphql: GraphQL, send: Send, run_jobs: RunJobs
) -> None:
    """Without the 80 there is room for all that came after it: 50, 15, 10 and 5."""
    await send({"idempotencyKey": "void-1", "voids": "2026-11-0"})
    await run_jobs()
    shown = [edge["node"] for edge in (await graphql(EVENTS))["events"]["edges"]]
    states = {one["idempotencyKey"]: one["state"] for one in shown}
    assert states.pop("2026-11-0") == "SUPERSEDED"
    assert set(states.values()) == {"COUNTED"}
    usage = (await graphql(USAGE))["usage"]
    assert usage["total"] == {"quantity": "80", "events": 4}
    assert usage["blocked"] == {"quantity": "0", "events": 0}
    assert (await graphql(QUOTAS))["customer"]["quotas"][0]["used"] == "80"
