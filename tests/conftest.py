"""Real engines for the whole suite, and for each test a tenant that nobody else uses."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from hypothesis import HealthCheck, settings

from aforo import worker
from aforo.api.app import create_app
from aforo.plugins import load_registry
from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage import buckets, tallies
from aforo.storage.clock import MovableClock
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.migrate import migrate
from aforo.storage.scope import Runtime, open_runtime
from aforo.tenants.commands import NewTenant, create_tenant

# No example fails for being slow: that is the machine's affair, and no property of the code.
settings.register_profile(
    "patient",
    settings(),  # As it is where this runs: a build repeats the same examples.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

# What answers at once on a quiet machine may take its time on one that does five things: a test
# about a short patience sets its own.
buckets.ANSWER_TIMEOUT_SECONDS = 3.0
tallies.ANSWER_TIMEOUT_SECONDS = 20.0

# Its default shows the locals of every frame, which takes half a minute for a resolver's.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""When a test begins, unless it moves its clock."""
PEPPER = "a pepper for tests, long enough to be one"

GraphQL = Callable[..., Awaitable[dict[str, Any]]]
Send = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the whole suite: the pools belong to it."""
    return "asyncio"


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngines]:
    """PostgreSQL, Redis and ClickHouse, for all tests."""
    # Without fsync: no test here takes the power away, and a kill loses nothing of the cache.
    with EmbeddedEngines.start(tmp_path_factory.mktemp("engines"), fsync=False) as started:
        yield started


@pytest.fixture(scope="session")
async def shared_runtime(
    engines: EmbeddedEngines, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runtime]:
    """The pools of the suite, on migrated databases."""
    await migrate(
        owner_database_url=engines.owner_database_url,
        database_url=engines.database_url,
        clickhouse_url=engines.clickhouse_url,
    )
    settings = Settings(
        database_url=engines.database_url,
        redis_url=engines.redis_url,
        clickhouse_url=engines.clickhouse_url,
        key_pepper=PEPPER,
        # Tests whose clock stands still get no tokens back.
        points_per_second=1_000_000,
        events_per_second=1_000_000,
        disk_percent_max=100,  # Of whatever machine they run on.
        data_dir=tmp_path_factory.mktemp("data"),
        allow_loopback_calls=True,
    )
    opened = open_runtime(settings, load_registry())
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> MovableClock:
    """The test's own clock."""
    return MovableClock(NOW)


@pytest.fixture
def runtime(shared_runtime: Runtime, clock: MovableClock) -> Runtime:
    """The suite's pools under the test's clock."""
    return dataclasses.replace(shared_runtime, clock=clock)


@pytest.fixture
async def tenant(runtime: Runtime) -> NewTenant:
    """A tenant that nobody else uses, with a key that may do everything."""
    return await create_tenant(runtime, name="Test tenant")


@pytest.fixture
def tenant_id(tenant: NewTenant) -> TenantId:
    """The id of the test's tenant."""
    return TenantId(tenant.tenant.tenant_id)


@pytest.fixture
async def client(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """The application over HTTP, in this process, called with the tenant's key."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as opened:
        yield opened


@pytest.fixture
def graphql(client: httpx2.AsyncClient) -> GraphQL:
    """Post a document with variables; no error may come back, only data."""

    async def post(document: str, **variables: Any) -> dict[str, Any]:
        response = await client.post("/graphql", json={"query": document, "variables": variables})
        answer = response.json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    return post


@pytest.fixture
def send(client: httpx2.AsyncClient) -> Send:
    """Post events; the answer to the batch."""

    async def post(*events: object, **query: str) -> dict[str, Any]:
        response = await client.post("/v1/events", json=list(events), params=query)
        assert response.status_code in {202, 422}, response.text
        answer: dict[str, Any] = response.json()
        return answer

    return post


@pytest.fixture
def run_jobs(runtime: Runtime, tenant_id: TenantId) -> Callable[[], Awaitable[None]]:
    """Seal, project, and run every job of the tenant that is due by the test's clock."""

    async def run() -> None:
        await worker.drain(runtime, tenant_id)

    return run


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the checkout."""
    return Path(__file__).parents[1]
