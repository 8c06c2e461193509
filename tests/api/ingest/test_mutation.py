"""`ingestEvents`: a few events through GraphQL, with the verdicts that the route gives."""

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.types import catalog_changes
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, new_key
from tests.metering.market import KEPT, Market

pytestmark = pytest.mark.anyio

COUNTS = "accepted duplicates conflicts rejected quarantined"
VERDICTS = "verdicts { index idempotencyKey verdict stage code message eventId }"
INGEST = f"""
mutation ($input: IngestEventsInput!) {{
  ingestEvents(input: $input) {{
    __typename
    ... on IngestedEvents {{ {COUNTS} {VERDICTS} }}
    ... on EventsRefusedProblem {{ {VERDICTS} }}
    ... on Problem {{ code message field }}
  }}
}}
"""


async def posted(
    client: httpx2.AsyncClient,
    *events: dict[str, Any],
    key: str | None = None,
    atomic: bool = False,
) -> httpx2.Response:
    variables = {"input": {"events": events, "atomic": atomic}}
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"query": INGEST, "variables": variables}
    return await client.post("/graphql", json=body, headers=headers)


async def taken(client: httpx2.AsyncClient, *events: dict[str, Any], **how: Any) -> dict[str, Any]:
    response = await posted(client, *events, **how)
    answer = response.json()
    assert "errors" not in answer, answer
    result: dict[str, Any] = answer["data"]["ingestEvents"]
    return result


async def test_the_verdicts_are_those_of_the_route(
    client: httpx2.AsyncClient, market: Market
) -> None:
    def batch(way: str) -> list[dict[str, Any]]:
        return [
            market.event(f"{way}-good"),
            market.event(f"{way}-good"),
            market.event(f"{way}-good", properties={"tokens": 11}),
            market.event(idempotencyKey=""),
            market.event(f"{way}-whose", customer=None),
            market.event(f"{way}-stranger", customer="nobody"),
            market.event(f"{way}-old", occurredAt="2025-01-01T00:00:00Z"),
            market.event(f"{way}-number", properties={"tokens": "NaN"}),
            market.event(f"{way}-keyless", apiKey="sk_live_1"),
        ]

    by_mutation = await taken(client, *batch("one"))
    by_route = (await client.post("/v1/events", json=batch("two"))).json()
    assert by_mutation["__typename"] == "IngestedEvents"
    assert [by_mutation[name] for name in COUNTS.split()] == [1, 1, 1, 4, 2]
    assert [by_route[name] for name in COUNTS.split()] == [1, 1, 1, 4, 2]
    for ours, theirs in zip(by_mutation["verdicts"], by_route["verdicts"], strict=True):
        for name in ("index", "verdict", "stage", "code", "message"):
            assert ours[name] == theirs[name]
        assert (ours["idempotencyKey"] or "").removeprefix("one") == (
            theirs["idempotencyKey"] or ""
        ).removeprefix("two")
        assert (ours["eventId"] is None) == (theirs["eventId"] is None)


JSON = {"Content-Type": "application/json"}
EXACT = "123456789012345.123456789012"


async def test_numbers_are_exact_in_variables_and_in_documents(
    client: httpx2.AsyncClient, market: Market
) -> None:
    event = market.event("variable", properties={"tokens": 0, "deep": [{"x": 0}]})
    body = json.dumps({"query": INGEST, "variables": {"input": {"events": [event]}}})
    body = body.replace('"tokens": 0', f'"tokens": {EXACT}').replace('"x": 0', '"x": 1e-30')
    by_variable = await client.post("/graphql", content=body, headers=JSON)
    assert by_variable.json()["data"]["ingestEvents"]["accepted"] == 1
    document = f"""mutation {{ ingestEvents(input: {{ events: [{{
        idempotencyKey: "literal", type: "llm.request", customer: "acme",
        occurredAt: "{event["occurredAt"]}",
        properties: {{ tokens: {EXACT}, deep: [{{ x: 1e-30 }}] }} }}] }})
        {{ ... on IngestedEvents {{ accepted }} }} }}"""
    by_literal = await client.post("/graphql", json={"query": document})
    assert by_literal.json()["data"]["ingestEvents"]["accepted"] == 1
    kept = [event.properties for event in await market.waiting()]
    assert len(kept) == 2
    assert kept[0] == kept[1]
    assert f'"tokens":{EXACT}' in kept[0]


async def test_an_event_is_the_same_through_both_ways_in(
    client: httpx2.AsyncClient, market: Market
) -> None:
    sent = market.event("both", occurredAt="2026-11-20T10:00:00.123456Z")
    assert (await taken(client, sent))["accepted"] == 1
    [held] = await market.rows("event_key")
    again = (await client.post("/v1/events", json=[sent])).json()
    assert again["duplicates"] == 1
    [verdict] = (await taken(client, sent))["verdicts"]
    assert (verdict["verdict"], verdict["eventId"]) == ("DUPLICATE", str(held["event_id"]))
    assert again["verdicts"][0]["eventId"] == verdict["eventId"]


async def test_an_atomic_batch_is_kept_whole_or_refused_with_all_verdicts(
    client: httpx2.AsyncClient, market: Market
) -> None:
    good, bad = market.event("good"), market.event("bad", type="")
    refused = await taken(client, good, bad, atomic=True)
    assert refused["__typename"] == "EventsRefusedProblem"
    assert (refused["code"], refused["field"]) == ("BATCH_REFUSED", "events")
    assert [one["index"] for one in refused["verdicts"]] == [1]
    assert [await market.rows(table) for table in KEPT] == [[]] * len(KEPT)
    assert (await taken(client, good, good, atomic=True))["duplicates"] == 1


async def test_a_hundred_events_are_the_most_and_none_is_fine(
    client: httpx2.AsyncClient, market: Market
) -> None:
    events = [market.event(f"{number}") for number in range(101)]
    refused = await taken(client, *events)
    assert (refused["__typename"], refused["code"]) == ("InvalidProblem", "TOO_MANY_EVENTS")
    assert await market.rows("event_key") == []
    response = await posted(client, *events[:100])
    assert response.json()["data"]["ingestEvents"]["accepted"] == 100
    assert response.json()["extensions"]["cost"]["requested"] >= 100
    assert (await taken(client))["accepted"] == 0


async def test_it_needs_the_permission_to_send_events_and_no_other(
    client: httpx2.AsyncClient, graphql: GraphQL, market: Market
) -> None:
    tokens = {scope: (await new_key(graphql, scope))[1] for scope in ("INGEST", "USAGE_READ")}
    for scope, token in tokens.items():
        client.headers["Authorization"] = f"Bearer {token}"
        answer = (await posted(client, market.event(scope))).json()
        assert ("errors" not in answer) == (scope == "INGEST"), answer
    assert "INGEST" in answer["errors"][0]["message"]
    assert len(await market.rows("event_key")) == 1


async def test_under_an_idempotency_key_the_first_answer_comes_back(
    client: httpx2.AsyncClient, market: Market
) -> None:
    sent = market.event("once")
    first = await posted(client, sent, key="operation-1")
    again = await posted(client, sent, key="operation-1")
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    # The key of the event itself is what counts.
    assert (await taken(client, sent, key="operation-2"))["duplicates"] == 1
    assert len(await market.waiting()) == 1


async def test_events_stay_when_the_operation_around_them_is_undone(
    client: httpx2.AsyncClient, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a bug")

    second = ' b: createProduct(input: {code: "b", name: "B"}) { __typename } }'
    query = INGEST.rstrip().removesuffix("}") + second
    sent = market.event("stays")
    body = {"query": query, "variables": {"input": {"events": [sent]}}}
    headers = {"Idempotency-Key": "undone"}
    with monkeypatch.context() as patched:
        patched.setattr(catalog_changes.commands, "create_product", broken)
        undone = (await client.post("/graphql", json=body, headers=headers)).json()
    assert undone["data"] is None
    assert len(await market.waiting()) == 1
    done = (await client.post("/graphql", json=body, headers=headers)).json()["data"]
    assert (done["ingestEvents"]["duplicates"], done["b"]["__typename"]) == (1, "Product")
    assert len(await market.waiting()) == 1


@pytest.fixture
async def slow_client(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """Of an installation that takes a thousand events at once, and then one a second."""
    settings = dataclasses.replace(runtime.settings, events_per_second=1)
    slow = dataclasses.replace(runtime, settings=settings)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(slow)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as opened:
        yield opened


async def test_events_count_towards_the_rate_of_events(
    slow_client: httpx2.AsyncClient, market: Market
) -> None:
    many = [market.event(f"{number}") for number in range(950)]
    assert (await slow_client.post("/v1/events", json=many)).status_code == 202
    refused = await posted(slow_client, *many[:100])
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert (await taken(slow_client, *many[:50]))["duplicates"] == 50
