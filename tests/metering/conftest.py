"""For the tests of metering: a market."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime, open_runtime
from tests.metering.market import Market, open_market


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """The test's tenant, with something to sell."""
    return await open_market(runtime, tenant_id)


@pytest.fixture
async def rival(market: Market) -> AsyncIterator[Market]:
    """The same tenant, seen by another process: with pools of its own."""
    runtime = market.runtime
    other = open_runtime(runtime.settings, runtime.plugins, runtime.clock)
    yield dataclasses.replace(market, runtime=other)
    await other.close()
