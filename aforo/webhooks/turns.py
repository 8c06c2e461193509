"""Whose turn it is: at an endpoint, of each object's deliveries the earliest goes first, alone.

Whatever changes an endpoint's deliveries holds the endpoint's lock first, so that no two of them
each believe that the other has taken care of the next one.
"""

from collections.abc import Collection, Iterable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.storage.rows import one_of
from aforo.storage.scope import Scope
from aforo.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint

CHANNEL = "aforo_webhooks"
"""Where couriers are told that something is due."""

_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('aforo.webhook.' || :endpoint_id, 0))"
)
_TELL = sa.text(f"SELECT pg_notify('{CHANNEL}', '')")


async def lock_endpoints(db: AsyncSession, endpoint_ids: Iterable[UUID]) -> None:
    """Hold the locks of these endpoints until the transaction ends; always in order of id."""
    for endpoint_id in sorted(endpoint_ids):
        await db.execute(_LOCK, {"endpoint_id": str(endpoint_id)})


async def let_go_on(scope: Scope, endpoint: WebhookEndpoint, object_ids: Collection[UUID]) -> None:
    """Make the earliest waiting delivery of each of these objects due, where none of it is already.

    The caller holds the endpoint's lock, and where it is no courier tells the couriers.
    """
    waiting, pending = sa.orm.aliased(WebhookDelivery), sa.orm.aliased(WebhookDelivery)
    busy = (
        sa.select(sa.literal(1))
        .where(
            col(pending.endpoint_id) == endpoint.id,
            col(pending.object_id) == col(waiting.object_id),
            col(pending.state) == DeliveryState.PENDING,
        )
        .exists()
    )
    first = (
        sa.select(col(waiting.id))
        .ext(distinct_on(col(waiting.object_id)))
        .where(
            col(waiting.endpoint_id) == endpoint.id,
            col(waiting.state) == DeliveryState.WAITING,
            ~busy,
            one_of(waiting.object_id, object_ids),
        )
        .order_by(col(waiting.object_id), col(waiting.position))
    )
    due_at = max(scope.now, endpoint.quiet_until or scope.now)
    await scope.db.execute(
        sa.update(WebhookDelivery)
        .where(col(WebhookDelivery.id).in_(first))
        .values(state=DeliveryState.PENDING, next_at=due_at, lease_until=None, lease_id=None),
        execution_options={"synchronize_session": False},
    )


async def tell_couriers(scope: Scope) -> None:
    """Let the couriers look now, once this commits; they look every second anyway."""
    await scope.db.execute(_TELL)
