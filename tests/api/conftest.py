"""What tests of the API share."""

from collections.abc import AsyncIterator

import pytest

from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.forms import GraphQL, http, poster


@pytest.fixture
async def other(runtime: Runtime) -> AsyncIterator[GraphQL]:
    """GraphQL as another tenant."""
    stranger = await create_tenant(runtime, name="Another tenant")
    async with http(runtime, stranger) as client:
        yield poster(client)
