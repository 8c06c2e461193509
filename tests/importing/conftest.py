"""For the tests of imports: a market, and the API that it sells through, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.importing.mapping import Wanted
from aforo.importing.reading import Source, format_of
from aforo.importing.run import Report, Target, import_file
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.metering.market import Market, open_market

Send = Callable[..., Any]


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """The test's tenant sells three meters over `llm.request` to acme and globex."""
    return await open_market(runtime, tenant_id)


@pytest.fixture
def target(runtime: Runtime, tenant: NewTenant) -> Target:
    """The API in this process."""
    transport = httpx2.ASGITransport(app=create_app(runtime))
    return Target("http://aforo.test", tenant.key.token, give_up_seconds=20, transport=transport)


def source(path: Path, wanted: Wanted | None = None, **options: Any) -> Source:
    """A file with what its name says."""
    return Source(path, format_of(path), wanted or Wanted({}, {}), **options)


def not_taken_of(path: Path) -> Path:
    return path.with_name("not-taken.ndjson")


async def sent(given: Source, target: Target) -> Report:
    """Import a file, with its progress and its list beside it."""
    path = given.path
    return await import_file(
        given, target, state=path.with_name("progress"), not_taken=not_taken_of(path)
    )
