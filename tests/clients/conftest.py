"""What tests with real clients share: Node, and the application on a port of its own."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from aforo.serve import bind, serve
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, in_production
from tests.api.shop import Shop
from tests.clients.node import MODULES, Node, installed
from tests.conftest import NOW, Send
from tests.meanwhile import again_and_again

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs/frontend"
UP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Address:
    """Where the application is, and the key to it."""

    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """As the programs read it; the time is the one that the application goes by."""
        return {"AFORO_URL": self.url, "AFORO_API_KEY": self.key, "AFORO_NOW": NOW.isoformat()}


@pytest.fixture(scope="session")
def node() -> Node:
    """Node with the clients."""
    return installed()


@pytest.fixture(scope="session")
async def project(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frontend project as the manual describes it, with everything made that it makes."""
    folder = tmp_path_factory.mktemp("frontend") / "project"
    shutil.copytree(RECIPES, folder)
    shutil.copy(ROOT / "schema.graphql", folder)
    (folder / "node_modules").symlink_to(MODULES)
    await node.passes("graphql-codegen", folder=folder)
    await node.passes("relay-compiler", folder=folder)
    programs = [str(path.relative_to(folder)) for path in folder.glob("*/*.ts")]
    bundle = ["--bundle", "--packages=external", "--format=esm", "--platform=node"]
    out = ["--outdir=out", "--out-extension:.js=.mjs", "--outbase=."]
    await node.passes("esbuild", *programs, *bundle, *out, "--log-level=error", folder=folder)
    return folder


@pytest.fixture
async def address(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[Address]:
    """The application on a free port."""
    async with served(runtime) as url:
        yield Address(url, tenant.key.token)


@pytest.fixture
async def production(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[Address]:
    """The application as strangers meet it, on a free port."""
    async with served(in_production(runtime)) as url:
        yield Address(url, tenant.key.token)


@pytest.fixture
async def working(
    address: Address, run_jobs: Callable[[], Awaitable[None]]
) -> AsyncIterator[Address]:
    """The application while a worker seals its events and does its jobs."""

    async with again_and_again(run_jobs):
        yield address


@pytest.fixture
async def happening(working: Address, shop: Shop, send: Send) -> AsyncIterator[Address]:
    """The application while customers use what the tenant sells: live streams have something."""
    numbers = itertools.count()

    async def use() -> None:
        await send(
            {
                "idempotencyKey": f"live-{next(numbers)}",
                "type": "llm.request",
                "customer": "acme",
                "occurredAt": NOW.isoformat(),
                "properties": {"tokens": 1},
            }
        )

    async with again_and_again(use):
        yield working


@asynccontextmanager
async def served(runtime: Runtime) -> AsyncIterator[str]:
    """Serve the API as `aforo serve` does, on a free port; gives the address."""
    up = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(serve(runtime, listener, grace_seconds=2, on_ready=up.set))
        try:
            async with asyncio.timeout(UP_SECONDS):
                await up.wait()
            yield url
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


@pytest.fixture
async def shop(graphql: GraphQL) -> Shop:
    """What the tenant sells, and to whom."""
    return await Shop(graphql).open()
