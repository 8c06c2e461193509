"""For the tests of the ways in: a tenant with something to sell."""

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from tests.metering.market import Market, open_market


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """The test's tenant sells three meters over `llm.request` to acme and globex."""
    return await open_market(runtime, tenant_id)
