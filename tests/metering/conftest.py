"""For the tests of metering: a market."""

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from tests.metering.market import Market, open_market


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """The test's tenant, with something to sell."""
    return await open_market(runtime, tenant_id)
