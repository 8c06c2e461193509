"""Quotas that subscriptions grant, and the window of each that a moment falls in."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import (
    Entitlement,
    EntitlementKind,
    Meter,
    Offering,
    OfferingEntitlement,
    QuotaPolicy,
    QuotaReset,
)
from aforo.metering.quota import QuotaUse
from aforo.metering.windows import Life, Reset, Window, window_at
from aforo.sdk.period import Period
from aforo.storage.rows import one_of
from aforo.storage.scope import Scope
from aforo.storage.tallies import Tally
from aforo.subscriptions.models import Customer, Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaGrant:
    """A quota that a subscription grants for as long as it lives."""

    customer_id: UUID
    subscription_id: UUID
    entitlement: Entitlement
    meter: Meter
    life: Life
    reset: Reset

    @property
    def generosity(self) -> tuple[bool, Decimal]:
        """Of several quotas of one thing the most generous counts: one that bills overage before
        one that blocks, then the largest."""
        terms = self.entitlement
        return terms.policy is not QuotaPolicy.BLOCK, terms.quota or Decimal(0)

    def at(self, moment: datetime) -> "QuotaInForce":
        """The quota in the window of a moment within its life."""
        return QuotaInForce(self, window_at(self.reset, self.life, moment))


@dataclass(frozen=True, slots=True)
class QuotaInForce:
    """A quota in one of its windows."""

    grant: QuotaGrant
    window: Window

    @property
    def customer_id(self) -> UUID:
        return self.grant.customer_id

    @property
    def entitlement(self) -> Entitlement:
        return self.grant.entitlement

    @property
    def meter(self) -> Meter:
        return self.grant.meter

    @property
    def period(self) -> Period:
        return self.window.period

    @property
    def blocks(self) -> bool:
        """Whether what is beyond it is blocked."""
        return self.entitlement.policy is QuotaPolicy.BLOCK

    @property
    def of(self) -> str:
        """Whose tallies."""
        return str(self.grant.customer_id)

    @property
    def name(self) -> str:
        """Of the window's tally, among the customer's."""
        return self._name(self.window.period)

    @property
    def counted(self) -> Mapping[str, Period]:
        """The tallies of usage, by name."""
        both = (self.window.period, self.window.before)
        return {self._name(period): period for period in both if period is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tallies that say how much is left."""
        rolls = self.entitlement.rollover_periods is not None
        return (*self.counted, *([f"{self.name}:carried"] if rolls else []))

    def use(self, tallies: Sequence[Tally], *, with_held: bool = False) -> QuotaUse:
        """What is used of how much, by the tallies of `names`."""
        of_usage = [each.total if with_held else each.used for each in tallies]
        limit = self.entitlement.quota or Decimal(0)
        used = of_usage[0]
        if self.window.before is not None:
            used += of_usage[1] * self.window.part_of_before
        if self.entitlement.rollover_periods is not None:
            limit += tallies[-1].used
        return QuotaUse(limit=limit, used=used)

    def _name(self, period: Period) -> str:
        start = int(period.start.timestamp() * 1_000)
        return f"{self.meter.id}:{self.grant.reset.name}:{start}"


async def quota_grants(
    scope: Scope, customer_ids: Collection[UUID], at: datetime | None = None
) -> list[QuotaGrant]:
    """The quotas that the customers' subscriptions grant at a moment, or that those grant which
    have not ended; one statement."""
    ended = scope.now if at is None else at
    begun = [] if at is None else [col(Subscription.starts_at) <= at]
    return await _granted(
        scope, col(Subscription.customer_id).in_(customer_ids), _ends_after(ended), *begun
    )


async def grants_over(
    scope: Scope, meter: Meter, period: Period, customer_ids: Collection[UUID]
) -> list[QuotaGrant]:
    """The quotas over one meter that customers had at some moment of a period; one statement."""
    return await _granted(
        scope,
        one_of(Subscription.customer_id, customer_ids),
        _ends_after(period.start),
        col(Subscription.starts_at) < period.end,
        col(Meter.id) == meter.id,
    )


def grant_of(
    subscription: Subscription, customer: Customer, entitlement: Entitlement, meter: Meter
) -> QuotaGrant:
    """What a subscription grants by an entitlement that its offering pins."""
    return QuotaGrant(
        customer_id=customer.id,
        subscription_id=subscription.id,
        entitlement=entitlement,
        meter=meter,
        life=Life(
            starts_at=subscription.starts_at,
            ends_at=subscription.ends_at,
            anchor_day=subscription.anchor_day,
            time_zone=customer.time_zone,
        ),
        reset=Reset(
            kind=entitlement.reset or QuotaReset.BILLING_PERIOD,
            unit=entitlement.reset_unit,
            seconds=entitlement.reset_seconds,
        ),
    )


async def blocking_entitlements(scope: Scope, meter: Meter) -> list[Entitlement]:
    """The entitlements that block what is beyond a quota over a meter."""
    rows = await scope.db.scalars(
        sa.select(Entitlement)
        .where(col(Entitlement.meter_id) == meter.id, col(Entitlement.policy) == QuotaPolicy.BLOCK)
        .order_by(col(Entitlement.id))
    )
    return list(rows)


def _ends_after(moment: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > moment)


async def _granted(scope: Scope, *where: Any) -> list[QuotaGrant]:
    rows = await scope.db.execute(
        sa.select(Subscription, Customer, Entitlement, Meter)
        .join(Customer, col(Customer.id) == col(Subscription.customer_id))
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .join(OfferingEntitlement, col(OfferingEntitlement.offering_id) == col(Offering.id))
        .join(Entitlement, col(Entitlement.id) == col(OfferingEntitlement.entitlement_id))
        .join(Meter, col(Meter.id) == col(Entitlement.meter_id))
        .where(*where, col(Entitlement.kind) == EntitlementKind.QUOTA)
        .order_by(col(Entitlement.code), col(Subscription.id))
    )
    return [grant_of(*row) for row in rows]
