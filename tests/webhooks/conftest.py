"""What the tests of webhooks share: a tenant, and a receiver of what happens to it."""

from collections.abc import AsyncIterator

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.receivers import receiving
from tests.webhooks.wire import Wire


@pytest.fixture
async def wire(runtime: Runtime, tenant_id: TenantId, clock: MovableClock) -> AsyncIterator[Wire]:
    """A receiver that answers well, until a test lets it answer otherwise."""
    async with receiving() as receiver:
        yield Wire(runtime, tenant_id, clock, receiver)
