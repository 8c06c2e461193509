"""Reads endpoints, deliveries and their attempts."""

from collections.abc import Collection
from uuid import UUID

from sqlmodel import col

from aforo.storage.event_types import EventType
from aforo.storage.listing import AgeOrder, Children, Listing, equal
from aforo.storage.outbox import OutboxEvent
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.webhooks.models import DeliveryState, WebhookAttempt, WebhookDelivery, WebhookEndpoint


def endpoints(*, order: AgeOrder = AgeOrder.OLDEST_FIRST) -> Listing[WebhookEndpoint]:
    """The tenant's endpoints; none that are deleted."""
    kept = col(WebhookEndpoint.deleted_at).is_(None)
    return Listing(WebhookEndpoint, (kept,), order)


async def endpoints_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, WebhookEndpoint]:
    """The endpoints with these ids, also deleted ones: their deliveries are still shown."""
    return await rows_by_id(scope, WebhookEndpoint, ids)


def deliveries(
    *,
    endpoint_id: UUID | None = None,
    state: DeliveryState | None = None,
    kind: EventType | None = None,
    order: AgeOrder = AgeOrder.NEWEST_FIRST,
) -> Listing[WebhookDelivery]:
    """The deliveries that meet all conditions."""
    where = (
        *equal(WebhookDelivery.endpoint_id, endpoint_id),
        *equal(WebhookDelivery.state, state),
        *equal(WebhookDelivery.type, kind),
    )
    return Listing(WebhookDelivery, where, order)


async def deliveries_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, WebhookDelivery]:
    """The deliveries with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, WebhookDelivery, ids)


ATTEMPTS_BY_DELIVERY = Children(WebhookAttempt, "delivery_id")


async def events_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, OutboxEvent]:
    """The domain events with these ids."""
    return await rows_by_id(scope, OutboxEvent, ids)
