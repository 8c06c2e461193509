"""A tenant with a receiver at the other end: what tests let happen, and what they read of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.event_types import EventType
from aforo.storage.outbox import OutboxEvent
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.webhooks import queries
from aforo.webhooks.commands import NewSecret, create_endpoint
from aforo.webhooks.fan_out import fan_out
from aforo.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.receivers import Heard, Receiver


@dataclass(frozen=True, slots=True)
class Wire:
    """From happenings of a tenant to the receiver."""

    runtime: Runtime
    tenant_id: TenantId
    clock: MovableClock
    receiver: Receiver

    async def make_endpoint(
        self, url: str | None = None, *kinds: EventType, owner: TenantId | None = None
    ) -> NewSecret:
        """Tell the receiver, or another URL, of events of customers alone."""
        async with self.runtime.scope(owner or self.tenant_id) as scope:
            return await create_endpoint(
                scope,
                walls=self.runtime.egress.walls,
                url=url or self.receiver.url("/hook"),
                event_types=kinds or (EventType.CUSTOMER_CREATED,),
            )

    async def happen(
        self, name: str = "Ada", *, object_id: UUID | None = None, owner: TenantId | None = None
    ) -> None:
        """Publish an event about an object, in a transaction of its own."""
        async with self.runtime.scope(owner or self.tenant_id) as scope:
            await scope.publish(
                EventType.CUSTOMER_CREATED, object_id=object_id or new_id(), data=customer(name)
            )

    async def fan_out(self, owner: TenantId | None = None) -> int:
        """Make deliveries of a batch of events, and send none; how many events there were."""
        async with self.runtime.scope(owner or self.tenant_id) as scope:
            return await fan_out(scope)

    async def run_jobs(self, *, after: timedelta = timedelta(0)) -> None:
        """Let time pass, and do what is due by then; deliveries, too."""
        self.clock.advance(after)
        await worker.drain(self.runtime, self.tenant_id)

    async def deliveries(self) -> list[WebhookDelivery]:
        """All deliveries, the oldest first."""
        async with self.runtime.scope(self.tenant_id) as scope:
            return (await queries.deliveries().page(scope, first=100))[::-1]

    async def attempts(self) -> list[WebhookAttempt]:
        """All attempts, in the order in which they were recorded."""
        async with self.runtime.scope(self.tenant_id) as scope:
            rows = await scope.db.scalars(
                sa.select(WebhookAttempt).order_by(col(WebhookAttempt.id))
            )
            return list(rows)

    async def endpoint(self, made: NewSecret) -> WebhookEndpoint:
        """An endpoint as it stands now."""
        async with self.runtime.scope(self.tenant_id) as scope:
            return (await queries.endpoints_by_id(scope, [made.endpoint.id]))[made.endpoint.id]

    async def told(self, kind: EventType) -> list[OutboxEvent]:
        """The events of a type that were published."""
        async with self.runtime.scope(self.tenant_id) as scope:
            rows = await scope.db.scalars(
                sa.select(OutboxEvent).where(col(OutboxEvent.type) == kind)
            )
            return list(rows)


def customer(name: str) -> dict[str, Any]:
    """The data of an event about a customer."""
    return {
        "customer": new_id(),
        "externalId": name.lower(),
        "name": name,
        "currency": "USD",
        "timeZone": "UTC",
    }


def names(heard: Sequence[Heard]) -> list[str]:
    """Of whom the receiver heard."""
    return [json.loads(one.body)["data"]["name"] for one in heard]
