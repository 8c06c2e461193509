"""Rates of a caller: counted by cost over every transport, told in headers, refused with 429."""

import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.protocol.cost import COST_MAX
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api import small
from tests.api.forms import new_key
from tests.api.server import serving, socket_to
from tests.conftest import GraphQL

pytestmark = pytest.mark.anyio

BURST = 1_000
"""Of a rate of 1 point per second: nobody's is below what one operation may cost."""


@pytest.fixture
def slow(runtime: Runtime) -> Runtime:
    """An installation that gives each key very little."""
    settings = dataclasses.replace(runtime.settings, points_per_second=1, events_per_second=1)
    return dataclasses.replace(runtime, settings=settings)


@pytest.fixture
async def slow_client(slow: Runtime, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(slow, schema=small.schema)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as opened:
        yield opened


async def _post(client: httpx2.AsyncClient, query: str, **variables: Any) -> httpx2.Response:
    return await client.post("/graphql", json={"query": query, "variables": variables})


PAGE = "query($n: Int) { items(first: $n) { edges { node { name item { name item { name } } } } } }"


async def test_an_answer_says_what_is_left_and_what_it_cost(
    slow_client: httpx2.AsyncClient,
) -> None:
    answer = await _post(slow_client, PAGE, n=100)
    cost = 1 + 100 * 3
    assert answer.json()["extensions"]["cost"] == {"requested": cost, "maximum": COST_MAX}
    left = BURST - cost
    assert answer.headers["ratelimit-policy"] == f'"graphql";q={BURST};w=10'
    assert answer.headers["ratelimit"] == f'"graphql";r={left};t={cost}'
    assert answer.headers["x-ratelimit-limit"] == str(BURST)
    assert answer.headers["x-ratelimit-remaining"] == str(left)
    assert answer.headers["x-ratelimit-reset"] == str(cost)


async def test_who_asks_for_too_much_waits_as_long_as_the_answer_says(
    slow_client: httpx2.AsyncClient, clock: MovableClock
) -> None:
    for _ in range(3):
        assert "errors" not in (await _post(slow_client, PAGE, n=100)).json()
    refused = await _post(slow_client, PAGE, n=100)
    assert refused.status_code == 429
    [error] = refused.json()["errors"]
    wait = int(refused.headers["retry-after"])
    assert error["extensions"] == {"code": "RATE_LIMITED", "retryAfter": wait}
    assert "1 points of cost per second" in error["message"]
    assert refused.headers["ratelimit"].startswith('"graphql";r=')
    clock.advance(timedelta(seconds=wait - 2))
    assert (await _post(slow_client, PAGE, n=100)).status_code == 429
    clock.advance(timedelta(seconds=4))
    assert "errors" not in (await _post(slow_client, PAGE, n=100)).json()


async def test_nonsense_is_counted_too(slow_client: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await _post(slow_client, PAGE, n=100)
    left = int((await _post(slow_client, "{ hello }")).headers["x-ratelimit-remaining"])
    for number in range(left):
        refused = await _post(slow_client, "{ nothing }")
        assert int(refused.headers["x-ratelimit-remaining"]) == left - 1 - number
    assert (await _post(slow_client, "{ nothing }")).status_code == 429


async def test_each_key_has_its_own_bucket(
    slow_client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    _, token = await new_key(graphql, "CATALOG_READ")
    for _ in range(3):
        await _post(slow_client, PAGE, n=100)
    assert (await _post(slow_client, PAGE, n=100)).status_code == 429
    other = {"Authorization": f"Bearer {token}"}
    asked = {"query": PAGE, "variables": {"n": 100}}
    assert (await slow_client.post("/graphql", json=asked, headers=other)).status_code == 200


async def test_operations_of_a_socket_and_of_event_streams_count_as_well(
    slow: Runtime, slow_client: httpx2.AsyncClient, tenant: NewTenant
) -> None:
    app = create_app(slow, schema=small.schema)
    async with serving(app) as port, socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise()
        for number in range(3):
            await socket.subscribe(PAGE, id_=str(number), n=100)
            assert (await socket.receive())["type"] == "next"
            assert (await socket.receive())["type"] == "complete"
        await socket.subscribe(PAGE, n=100)
        refused = await socket.receive()
    assert refused["type"] == "error"
    [error] = refused["payload"]
    assert error["extensions"]["code"] == "RATE_LIMITED"
    assert error["extensions"]["retryAfter"] > 100
    streamed = await slow_client.post(
        "/graphql",
        json={"query": PAGE, "variables": {"n": 100}},
        headers={"Accept": "text/event-stream"},
    )
    assert streamed.status_code == 429
    assert streamed.headers["retry-after"]


async def test_events_have_a_bucket_of_their_own(slow_client: httpx2.AsyncClient) -> None:
    batch = [{"idempotencyKey": f"e{number}"} for number in range(600)]
    taken = await slow_client.post("/v1/events", json=batch)
    assert taken.status_code == 202
    assert taken.headers["ratelimit"] == '"events";r=400;t=600'
    refused = await slow_client.post("/v1/events", json=batch)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "RATE_LIMITED"
    assert int(refused.headers["retry-after"]) > 100
    assert (await _post(slow_client, "{ hello }")).headers["x-ratelimit-remaining"] == "999"


SET = """mutation($input: SetApiPolicyInput!) { setApiPolicy(input: $input) { __typename
  ... on ApiPolicy { pointsPerSecond eventsPerSecond onlyPersisted }
  ... on Problem { code message field } } }"""
READ = "query($id: ID) { apiPolicy(apiKeyId: $id) { pointsPerSecond onlyPersisted } }"


async def test_a_key_and_a_tenant_can_be_given_less(
    client: httpx2.AsyncClient, graphql: GraphQL, tenant: NewTenant
) -> None:
    key_id, token = await new_key(graphql, "CATALOG_READ")
    of_tenant = (await graphql(SET, input={"pointsPerSecond": 500}))["setApiPolicy"]
    assert (of_tenant["pointsPerSecond"], of_tenant["eventsPerSecond"]) == (500, 1_000_000)
    assert (await graphql(READ, id=key_id))["apiPolicy"]["pointsPerSecond"] == 500
    of_key = (await graphql(SET, input={"apiKeyId": key_id, "pointsPerSecond": 7}))["setApiPolicy"]
    assert of_key["pointsPerSecond"] == 7
    asked = await client.post(
        "/graphql",
        json={"query": "{ __typename }"},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert asked.headers["x-ratelimit-limit"] == "1000"
    mine = await client.post("/graphql", json={"query": "{ __typename }"})
    assert mine.headers["x-ratelimit-limit"] == "5000"
    await graphql(SET, input={"apiKeyId": key_id})
    assert (await graphql(READ, id=key_id))["apiPolicy"]["pointsPerSecond"] == 500
    await graphql(SET, input={})
    assert (await graphql(READ))["apiPolicy"]["pointsPerSecond"] == 1_000_000


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"pointsPerSecond": 0}, "pointsPerSecond"),
        ({"pointsPerSecond": 1_000_001}, "pointsPerSecond"),
        ({"eventsPerSecond": -1}, "eventsPerSecond"),
    ],
)
async def test_nobody_gives_himself_more_than_the_installation(
    graphql: GraphQL, given: dict[str, int], field: str
) -> None:
    refused = (await graphql(SET, input=given))["setApiPolicy"]
    assert (refused["code"], refused["field"]) == ("INVALID", field)
    assert "1 to 1,000,000" in json.dumps(refused)


async def test_a_key_of_another_tenant_is_no_key(graphql: GraphQL, other: GraphQL) -> None:
    theirs = await other("{ apiKeys(first: 1) { edges { node { id } } } }")
    key_id = theirs["apiKeys"]["edges"][0]["node"]["id"]
    refused = (await graphql(SET, input={"apiKeyId": key_id}))["setApiPolicy"]
    assert refused["__typename"] == "NotFoundProblem"
    assert (await graphql(READ, id=key_id))["apiPolicy"] is None
