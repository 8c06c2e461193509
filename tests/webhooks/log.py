"""What a test reads of deliveries: the log, the endpoints, and what a receiver heard."""

import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.ids import TenantId
from aforo.storage.event_types import EventType
from aforo.storage.outbox import OutboxEvent
from aforo.storage.scope import Runtime
from aforo.webhooks import queries
from aforo.webhooks.commands import NewSecret
from aforo.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.receivers import Heard


async def deliveries_of(runtime: Runtime, tenant_id: TenantId) -> list[WebhookDelivery]:
    """All deliveries, the oldest first."""
    async with runtime.scope(tenant_id) as scope:
        return (await queries.deliveries().page(scope, first=100))[::-1]


async def attempts_of(runtime: Runtime, tenant_id: TenantId) -> list[WebhookAttempt]:
    """All attempts, in the order in which they were recorded."""
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.db.scalars(sa.select(WebhookAttempt).order_by(col(WebhookAttempt.id)))
        return list(rows)


async def endpoint_of(runtime: Runtime, tenant_id: TenantId, made: NewSecret) -> WebhookEndpoint:
    async with runtime.scope(tenant_id) as scope:
        return (await queries.endpoints_by_id(scope, [made.endpoint.id]))[made.endpoint.id]


async def told_of(runtime: Runtime, tenant_id: TenantId, kind: EventType) -> list[OutboxEvent]:
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.db.scalars(sa.select(OutboxEvent).where(col(OutboxEvent.type) == kind))
        return list(rows)


def names(heard: Sequence[Heard]) -> list[str]:
    return [json.loads(one.body)["data"]["name"] for one in heard]
