"""Events that are amended and voided through the API, and what is shown of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.metering.corrections import void_key
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from tests.api.forms import GraphQL
from tests.api.ingest.forms import CLOUD_BATCH, CLOUD_EVENT, binary, cloud_event
from tests.conftest import Send
from tests.metering.market import Market, open_market

pytestmark = pytest.mark.anyio

ANSWER = """
  __typename
  ... on IngestedEvents { accepted duplicates verdicts { index code idempotencyKey } }
  ... on EventsRefusedProblem { field verdicts { index code } }
  ... on Problem { code field }
"""
AMEND = """
mutation($input: AmendEventInput!) {
  amendEvent(input: $input) {
    ... on IngestedEvents { accepted }
    ... on Problem { message }
  }
}
"""
VOID = f"mutation($input: VoidEventsInput!) {{ voidEvents(input: $input) {{ {ANSWER} }} }}"
EVENTS = """
{
  events {
    edges {
      node {
        eventId
        idempotencyKey
        supersedes
        supersededBy { eventId idempotencyKey isVoid reason receivedAt }
      }
    }
  }
}
"""
LOG = """
query($action: String) {
  auditLog(action: $action) { edges { node { actor { label } changes { type after } } } }
}
"""


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    return await open_market(runtime, tenant_id)


async def test_what_is_amended_and_voided_is_shown_with_what_did_it(
    graphql: GraphQL, send: Send, market: Market, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    await send(*(market.event(key) for key in "abc"))
    event = {**market.event("b2"), "properties": {"tokens": 3}}
    amended = await graphql(AMEND, input={"supersedes": "b", "event": event, "reason": "too many"})
    assert amended["amendEvent"]["accepted"] == 1
    asked = {"idempotencyKeys": ["a", "b", "?"], "reason": "tests"}
    voided = (await graphql(VOID, input=asked))["voidEvents"]
    assert voided["accepted"] == 1
    assert voided["verdicts"] == [
        {"index": 1, "code": "ALREADY_SUPERSEDED", "idempotencyKey": "void b"},
        {"index": 2, "code": "UNKNOWN_EVENT", "idempotencyKey": "void ?"},
    ]
    again = (await graphql(VOID, input=asked))["voidEvents"]
    assert (again["accepted"], again["duplicates"]) == (0, 1)
    await run_jobs()
    found = {
        edge["node"]["idempotencyKey"]: edge["node"]
        for edge in (await graphql(EVENTS))["events"]["edges"]
    }
    assert found.keys() == {"a", "b", "b2", "c"}
    assert {key: node["supersedes"] for key, node in found.items() if node["supersedes"]} == {
        "b2": "b"
    }
    by = {key: node["supersededBy"] for key, node in found.items()}
    assert (by["b2"], by["c"]) == (None, None)
    assert by["b"] == {
        "eventId": found["b2"]["eventId"],
        "idempotencyKey": "b2",
        "isVoid": False,
        "reason": "too many",
        "receivedAt": "2026-11-20T12:00:00Z",
    }
    assert (by["a"]["isVoid"], by["a"]["idempotencyKey"]) == (True, "void a")
    assert await market.used("tokens") == 3 + 10
    await told_in_the_audit_log(graphql, found)


async def told_in_the_audit_log(graphql: GraphQL, found: dict[str, Any]) -> None:
    for action, key, by in (("amendEvent", "b", found["b2"]["eventId"]), ("voidEvents", "a", None)):
        [edge] = (await graphql(LOG, action=action))["auditLog"]["edges"]
        [change] = edge["node"]["changes"]
        assert change["type"] == "Event"
        assert change["after"]["idempotencyKey"] == key
        assert change["after"]["supersededBy"] == (by or found["a"]["supersededBy"]["eventId"])


async def test_nothing_is_voided_where_not_all_can_be_and_that_is_asked_for(
    graphql: GraphQL, send: Send, market: Market
) -> None:
    await send(market.event("a"))
    asked = {"idempotencyKeys": ["a", "?"], "reason": "tests", "atomic": True}
    refused = (await graphql(VOID, input=asked))["voidEvents"]
    assert refused["__typename"] == "EventsRefusedProblem"
    assert refused["verdicts"] == [{"index": 1, "code": "UNKNOWN_EVENT"}]
    assert (await graphql(LOG, action="voidEvents"))["auditLog"]["edges"] == []
    [key] = await market.rows("event_key")
    assert key["superseded_by"] is None
    many = {"idempotencyKeys": ["a"] * 1_001, "reason": "tests"}
    assert (await graphql(VOID, input=many))["voidEvents"]["code"] == "TOO_MANY_EVENTS"


def test_the_key_of_a_void_is_never_too_long() -> None:
    assert void_key("a") == "void a"
    longest = "x" * 255
    assert len(void_key(longest)) <= 255
    assert void_key(longest) != void_key(longest[:-1] + "y")


async def test_a_cloud_event_names_what_it_corrects_by_the_id_at_its_source(
    client: httpx2.AsyncClient, market: Market, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    sent = [cloud_event(id="1"), cloud_event(id="2")]
    await client.post("/v1/events", json=sent, headers=CLOUD_BATCH)
    amend = cloud_event(id="1b", supersedes="1", reason="why", data={"tokens": 5})
    void = cloud_event(id="2b", voids="2", subject=None, data=None)
    for each in (amend, void):
        [(body, headers)] = binary([each])
        taken = await client.post("/v1/events", content=body, headers=headers)
        assert taken.json()["accepted"] == 1, taken.text
        again = await client.post("/v1/events", json=each, headers=CLOUD_EVENT)
        assert again.json()["duplicates"] == 1, again.text
    await run_jobs()
    assert await market.used("tokens") == 5
    for change, message in (
        ({"supersedes": "1", "voids": "2"}, "supersedes another or voids it"),
        ({"voids": ""}, "voids must have 1 to"),
        ({"reason": "why"}, "reason says why"),
        ({"id": "1", "supersedes": "1"}, "the key of another event"),
    ):
        answer = await client.post(
            "/v1/events", json=cloud_event(**{"id": "x", **change}), headers=CLOUD_EVENT
        )
        [verdict] = answer.json()["verdicts"]
        assert verdict["code"] == "BAD_VALUE", change
        assert message in verdict["message"], verdict


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        ({"voids": "a"}, "MISSING_FIELD", "idempotencyKey is missing"),
        ({"idempotencyKey": "v", "voids": None}, "MISSING_FIELD", "voids is missing"),
        ({"idempotencyKey": "v", "voids": "v"}, "BAD_VALUE", "voids is the key of another event"),
        ({"idempotencyKey": "v", "voids": 1}, "BAD_VALUE", "voids must be a string"),
        (
            {"idempotencyKey": "v", "voids": "a", "type": "llm.request"},
            "BAD_VALUE",
            "unknown field type; an event that voids another has idempotencyKey, voids, reason",
        ),
        (
            {"idempotencyKey": "v", "voids": "a", "reason": "x" * 501},
            "BAD_VALUE",
            "reason must have 1 to 500 characters",
        ),
    ],
)
async def test_a_void_says_what_it_voids_and_why_and_nothing_else(
    send: Send, market: Market, event: dict[str, Any], code: str, message: str
) -> None:
    await send(market.event("a"))
    [verdict] = (await send(event))["verdicts"]
    assert (verdict["code"], message in verdict["message"]) == (code, True), verdict


TRACE = "query($key: String) { event(idempotencyKey: $key) { trace { stage passed decision } } }"


async def test_the_trace_of_an_event_ends_with_what_took_its_place(
    graphql: GraphQL, send: Send, market: Market, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    await send(market.event("a"), market.event("b"))
    await send({"idempotencyKey": "v", "voids": "a"}, market.event("b2", supersedes="b"))
    await run_jobs()
    for key, decision in (("a", "VOIDED"), ("b", "AMENDED"), ("b2", None)):
        steps = (await graphql(TRACE, key=key))["event"]["trace"]
        told = [each for each in steps if each["decision"] in {"VOIDED", "AMENDED"}]
        expected = {"stage": "AGGREGATION", "passed": False, "decision": decision}
        assert told == ([expected] if decision else []), key
    assert (await graphql(TRACE, key="v"))["event"] is None
