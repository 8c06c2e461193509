"""Reads endpoints, deliveries and their attempts."""

from collections.abc import Collection
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.storage.event_types import EventType
from aforo.storage.outbox import OutboxEvent
from aforo.storage.rows import PAGE_MAX, page_of_rows, pages_of_children, rows_by_id
from aforo.storage.scope import Scope
from aforo.webhooks.models import DeliveryState, WebhookAttempt, WebhookDelivery, WebhookEndpoint


async def endpoints(
    scope: Scope, *, after: UUID | None = None, first: int
) -> list[WebhookEndpoint]:
    """The tenant's endpoints, oldest first; none that are deleted."""
    kept = col(WebhookEndpoint.deleted_at).is_(None)
    return await page_of_rows(scope, WebhookEndpoint, kept, after=after, first=first)


async def endpoints_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, WebhookEndpoint]:
    """The endpoints with these ids, also deleted ones: their deliveries are still shown."""
    return await rows_by_id(scope, WebhookEndpoint, ids)


async def deliveries(
    scope: Scope,
    *,
    after: UUID | None = None,
    first: int,
    endpoint_id: UUID | None = None,
    state: DeliveryState | None = None,
    kind: EventType | None = None,
) -> list[WebhookDelivery]:
    """At most `first` deliveries past the id `after`, the newest first.

    `first` is at most one more than `PAGE_MAX`: the one more tells that another page follows.
    """
    assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
    delivery = WebhookDelivery
    query = sa.select(delivery).order_by(col(delivery.id).desc()).limit(first)
    if after is not None:
        query = query.where(col(delivery.id) < after)
    for column, wanted in (
        (delivery.endpoint_id, endpoint_id),
        (delivery.state, state),
        (delivery.type, kind),
    ):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    return list(await scope.db.scalars(query))


async def deliveries_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, WebhookDelivery]:
    """The deliveries with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, WebhookDelivery, ids)


async def attempts_by_delivery(
    scope: Scope, delivery_ids: Collection[UUID], *, after: UUID | None = None, first: int
) -> dict[UUID, list[WebhookAttempt]]:
    """A page of each delivery's attempts, the oldest first."""
    parent = col(WebhookAttempt.delivery_id)
    return await pages_of_children(
        scope, WebhookAttempt, parent, delivery_ids, after=after, first=first
    )


async def events_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, OutboxEvent]:
    """The domain events with these ids."""
    return await rows_by_id(scope, OutboxEvent, ids)
