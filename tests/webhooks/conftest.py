"""What the tests of webhooks share: a receiver, an endpoint that leads to it, and happenings."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.event_types import EventType
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.webhooks.commands import NewSecret, create_endpoint
from tests.receivers import Receiver, receiving

Happen = Callable[..., Awaitable[None]]
MakeEndpoint = Callable[..., Awaitable[NewSecret]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A server that answers well, until a test lets it answer otherwise."""
    async with receiving() as opened:
        yield opened


@pytest.fixture
def make_endpoint(runtime: Runtime, tenant_id: TenantId, receiver: Receiver) -> MakeEndpoint:
    """Tell the receiver, or another URL, of events of customers alone."""

    async def make(
        url: str | None = None,
        *kinds: EventType,
        owner: TenantId | None = None,
    ) -> NewSecret:
        async with runtime.scope(owner or tenant_id) as scope:
            return await create_endpoint(
                scope,
                walls=runtime.egress.walls,
                url=url or receiver.url("/hook"),
                event_types=kinds or (EventType.CUSTOMER_CREATED,),
            )

    return make


@pytest.fixture
def happen(runtime: Runtime, tenant_id: TenantId) -> Happen:
    """Publish an event about an object, in a transaction of its own."""

    async def publish(
        name: str = "Ada", *, object_id: UUID | None = None, owner: TenantId | None = None
    ) -> None:
        async with runtime.scope(owner or tenant_id) as scope:
            await scope.publish(
                EventType.CUSTOMER_CREATED, object_id=object_id or new_id(), data=customer(name)
            )

    return publish


def customer(name: str) -> dict[str, Any]:
    """The data of an event about a customer."""
    return {
        "customer": new_id(),
        "externalId": name.lower(),
        "name": name,
        "currency": "USD",
        "timeZone": "UTC",
    }
