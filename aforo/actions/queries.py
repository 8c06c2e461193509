"""Reads actions, and what a decision of the ladder goes by."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased
from sqlmodel import col

from aforo.actions.models import NotifierSettings, OrchestrationAction
from aforo.metering.models import Segment
from aforo.sdk import Level, SubscriptionId
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Subscription


def actions(
    *,
    customer_id: UUID | None = None,
    signal_id: UUID | None = None,
    tier: Level | None = None,
    order: AgeOrder = AgeOrder.NEWEST_FIRST,
) -> Listing[OrchestrationAction]:
    """The actions that meet all conditions."""
    where = (
        *equal(OrchestrationAction.customer_id, customer_id),
        *equal(OrchestrationAction.signal_id, signal_id),
        *equal(OrchestrationAction.tier, tier),
    )
    return Listing(OrchestrationAction, where, order)


async def actions_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, OrchestrationAction]:
    """The actions with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, OrchestrationAction, ids)


def notifier_settings(*, order: AgeOrder = AgeOrder.OLDEST_FIRST) -> Listing[NotifierSettings]:
    """The latest settings of each notifier that was ever set."""
    later = aliased(NotifierSettings)
    is_replaced = sa.exists().where(
        col(later.tenant_id) == col(NotifierSettings.tenant_id),
        col(later.notifier) == col(NotifierSettings.notifier),
        col(later.id) > col(NotifierSettings.id),
    )
    return Listing(NotifierSettings, (~is_replaced,), order)


async def notifiers_in_force(scope: Scope) -> list[NotifierSettings]:
    """The latest settings of each notifier that was ever set, by its key; also those off."""
    rows = await scope.db.scalars(
        sa.select(NotifierSettings)
        .ext(distinct_on(col(NotifierSettings.notifier)))
        .order_by(col(NotifierSettings.notifier), col(NotifierSettings.id).desc())
    )
    return list(rows)


async def notifier_settings_by_id(
    scope: Scope, ids: Collection[UUID]
) -> dict[UUID, NotifierSettings]:
    """The settings with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, NotifierSettings, ids)


async def data_age(scope: Scope, watermark: int) -> timedelta | None:
    """How long ago the last segment that a signal looked at was sealed; None without one."""
    sealed_at = await scope.db.scalar(
        sa.select(sa.func.max(col(Segment.sealed_at))).where(
            # Segments are keyed by more than an id, so the scope does not add the tenant here.
            col(Segment.tenant_id) == scope.tenant_id,
            col(Segment.segment_id) <= watermark,
        )
    )
    return None if sealed_at is None else max(scope.now - sealed_at, timedelta(0))


async def blocks_since(scope: Scope, since: datetime) -> int:
    """How many blocks this tenant's ladder has carried out, or in shadow decided, since then."""
    action = OrchestrationAction
    return (
        await scope.db.scalar(
            sa.select(sa.func.count())
            .select_from(action)
            .where(
                col(action.tier) == Level.BLOCK,
                col(action.created_at) > since,
                col(action.after) != col(action.before),  # A decision not to act changes nothing.
            )
        )
        or 0
    )


async def active_subscriptions(scope: Scope, customer_id: UUID) -> list[SubscriptionId]:
    """The customer's subscriptions that run now, the oldest first."""
    rows = await scope.db.scalars(
        sa.select(col(Subscription.id))
        .where(
            col(Subscription.customer_id) == customer_id,
            col(Subscription.starts_at) <= scope.now,
            sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > scope.now),
        )
        .order_by(col(Subscription.id))
    )
    return [SubscriptionId(row) for row in rows]
