"""Rates of a whole tenant: many keys together send no more than a few times what one may."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_api_key, create_tenant
from aforo.tenants.permissions import Permission
from tests.api import small

pytestmark = pytest.mark.anyio

BURST = 1_000
"""Of a key, at a rate of 1 point or event per second."""
COST = 301
PAGE = "{ items(first: 100) { edges { node { name item { name item { name } } } } } }"
FIRST_POINT = 1
"""Is taken of whoever asks, refused or not."""

Ask = Callable[[str], Awaitable[httpx2.Response]]


@pytest.fixture
def narrow(runtime: Runtime) -> Runtime:
    """An installation that gives each key very little, and a tenant no more than two of them."""
    settings = dataclasses.replace(
        runtime.settings, points_per_second=1, events_per_second=1, tenant_rate_factor=2
    )
    return dataclasses.replace(runtime, settings=settings)


@pytest.fixture
async def api(narrow: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(narrow, schema=small.schema)),
        base_url="http://aforo.test",
    ) as opened:
        yield opened


@pytest.fixture
def ask(api: httpx2.AsyncClient) -> Ask:
    """Ask for something that costs 301 points, with a key."""

    async def post(token: str) -> httpx2.Response:
        return await api.post("/graphql", json={"query": PAGE}, headers=_by(token))

    return post


async def test_all_keys_of_a_tenant_share_a_bucket_beside_their_own(
    narrow: Runtime, tenant_id: TenantId, ask: Ask, clock: MovableClock
) -> None:
    first, second, third = [await _key(narrow, tenant_id) for _ in range(3)]
    for token in (first, first, first, second):
        answer = await ask(token)
        # Each has less left of its own than the tenant has.
        assert answer.headers["ratelimit-policy"] == f'"graphql";q={BURST};w=10'
    left = 2 * BURST - 5 * COST
    answer = await ask(third)
    assert answer.status_code == 200
    assert answer.headers["ratelimit-policy"] == f'"graphql-tenant";q={2 * BURST};w=10'
    assert answer.headers["ratelimit"] == f'"graphql-tenant";r={left};t={-(-5 * COST // 2)}'
    assert answer.headers["x-ratelimit-remaining"] == str(left)
    await ask(third)
    left -= COST
    for _ in range(5):  # More than its own bucket holds, if a refusal were paid for.
        refused = await ask(third)
        left -= FIRST_POINT
        assert refused.status_code == 429
        [error] = refused.json()["errors"]
        assert error["extensions"]["code"] == "RATE_LIMITED"
        assert "of this tenant may together send 2 points of cost per second" in error["message"]
        assert refused.headers["ratelimit"].startswith(f'"graphql-tenant";r={left};')
        wait = int(refused.headers["retry-after"])
        assert wait == error["extensions"]["retryAfter"] == -(-(COST - FIRST_POINT - left) // 2)
    clock.advance(timedelta(seconds=wait + 1))
    assert (await ask(third)).status_code == 200


async def test_a_key_that_has_run_out_uses_up_nothing_of_the_others(
    narrow: Runtime, tenant_id: TenantId, ask: Ask
) -> None:
    first, second = [await _key(narrow, tenant_id) for _ in range(2)]
    for _ in range(3):
        assert (await ask(first)).status_code == 200
    for _ in range(10):
        refused = await ask(first)
        assert refused.status_code == 429
        assert refused.headers["ratelimit"].startswith('"graphql";')
        assert "this API key may send 1 points" in refused.json()["errors"][0]["message"]
    await ask(second)
    answer = await ask(second)
    assert answer.headers["x-ratelimit-remaining"] == str(BURST - 2 * COST)
    answer = await ask(second)
    assert answer.status_code == 200
    left = 2 * BURST - 6 * COST - 10 * FIRST_POINT
    assert min(left, BURST - 3 * COST) == int(answer.headers["x-ratelimit-remaining"])


async def test_another_tenant_has_a_bucket_of_its_own(
    narrow: Runtime, tenant_id: TenantId, ask: Ask
) -> None:
    for _ in range(7):
        last = await ask(await _key(narrow, tenant_id))
    assert last.status_code == 429
    other = await create_tenant(narrow, name="Other")
    assert (await ask(other.key.token)).status_code == 200


async def test_events_of_all_keys_share_a_bucket_too(
    narrow: Runtime, tenant_id: TenantId, api: httpx2.AsyncClient
) -> None:
    tokens = [await _key(narrow, tenant_id) for _ in range(3)]
    batch = [{"idempotencyKey": f"e{number}"} for number in range(800)]
    for token in tokens[:2]:
        assert (await api.post("/v1/events", json=batch, headers=_by(token))).status_code == 202
    refused = await api.post("/v1/events", json=batch, headers=_by(tokens[2]))
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["code"] == "RATE_LIMITED"
    assert "of this tenant may together send 2 events per second" in error["message"]
    assert refused.headers["ratelimit"].startswith('"events-tenant";r=399;')
    taken = await api.post("/v1/events", json=batch[:300], headers=_by(tokens[2]))
    assert taken.status_code == 202
    assert taken.headers["ratelimit"].startswith('"events-tenant";r=99;')


async def test_most_requests_ask_redis_for_neither_bucket(client: httpx2.AsyncClient) -> None:
    runtime: Runtime = client._transport.app.state.runtime  # type: ignore[attr-defined]
    before = runtime.buckets.asked
    for _ in range(20):
        assert (await client.post("/graphql", json={"query": "{ tenant { id } }"})).is_success
    assert runtime.buckets.asked - before == 2  # Once for each bucket.


async def _key(runtime: Runtime, tenant_id: TenantId) -> str:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="One of many",
            scopes=[Permission.CATALOG_READ, Permission.INGEST],
            pepper=runtime.settings.key_pepper,
        )
    return key.token


def _by(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
