"""What tests of the API share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_tenant
from tests.api import small
from tests.api.forms import GraphQL, change, http, poster
from tests.api.server import serving
from tests.api.shop import Shop, call

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]


@pytest.fixture
async def other(runtime: Runtime) -> AsyncIterator[GraphQL]:
    """GraphQL as another tenant."""
    stranger = await create_tenant(runtime, name="Another tenant")
    async with http(runtime, stranger) as client:
        yield poster(client)


@pytest.fixture
async def small_client(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """The small schema over HTTP."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime, schema=small.schema)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as opened:
        yield opened


@pytest.fixture
async def shop(graphql: GraphQL) -> Shop:
    return await Shop(graphql).open()


@pytest.fixture
async def billed(graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs) -> Shop:
    """October is billed: five calls of 100.5 tokens in all."""
    sizes = ["0.1", 0.4, 50, "25", 25.0]
    answer = await send(*(call(number, tokens) for number, tokens in enumerate(sizes)))
    assert answer["accepted"] == 5, answer
    await run_jobs()
    run = await change(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    assert run["__typename"] == "BillRun"
    await run_jobs()
    query = "query($id: ID!) { node(id: $id) { ... on BillRun { state invoices parked failure } } }"
    done = await graphql(query, id=run["id"])
    assert done["node"] == {"state": "DONE", "invoices": 1, "parked": 0, "failure": None}
    return shop


@pytest.fixture
async def live_port(runtime: Runtime) -> AsyncIterator[int]:
    """A server with the real schema; its port."""
    async with serving(create_app(runtime)) as opened:
        yield opened


@pytest.fixture
async def listener(live_port: int, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of it that wants event streams."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{live_port}",
        headers={"Authorization": f"Bearer {tenant.key.token}", "Accept": "text/event-stream"},
        timeout=60,
        limits=httpx2.Limits(max_connections=100),
    ) as opened:
        yield opened
