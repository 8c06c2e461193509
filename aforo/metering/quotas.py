"""The live quota counters: moved on by each confirmed segment, read by whoever asks.

They are advisory. A counter that missed a segment, or was lost with Redis, is read from the
aggregate again; invoices never look here.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.catalog.models import (
    Entitlement,
    EntitlementKind,
    Meter,
    Offering,
    OfferingEntitlement,
)
from aforo.metering import queries
from aforo.metering.quota import QuotaCounter, QuotaUse, advanced
from aforo.metering.sealer import Confirmed
from aforo.metering.stored import StoredEvent
from aforo.metering.validate import contribution
from aforo.sdk.errors import AforoError, Invalid
from aforo.sdk.ids import CustomerId
from aforo.sdk.period import Period
from aforo.storage.redis import UNREACHABLE
from aforo.storage.scope import Runtime, Scope
from aforo.subscriptions.models import Customer, Subscription
from aforo.subscriptions.periods import part_at

COUNTER_TTL_SECONDS = 40 * 24 * 3600

log = structlog.get_logger()
_properties = msgspec.json.Decoder(float_hook=Decimal)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaInForce:
    """A quota that a customer's subscription grants in the billing period of a moment, cut where
    the subscription starts or ends."""

    customer_id: UUID
    entitlement: Entitlement
    meter: Meter
    period: Period

    @property
    def field(self) -> str:
        """Its name among the customer's counters."""
        return f"{self.meter.id}:{self.period.start.isoformat()}"


async def advance(runtime: Runtime, segment: Confirmed) -> None:
    """Move the counters of a tenant on by a confirmed segment.

    A failure costs nothing but time: the next segment finds the counter behind, and reads the
    aggregate.
    """
    try:
        async with runtime.scope(segment.tenant_id) as scope:
            await _advance(scope, segment)
    except (AforoError, *UNREACHABLE) as error:
        log.warning("quota counters left behind", segment=segment.segment_id, error=str(error))


async def quota_uses(
    scope: Scope, customer_ids: Collection[UUID]
) -> dict[UUID, list[tuple[QuotaInForce, QuotaUse]]]:
    """Each customer's quotas of the present billing period beside their use.

    From the live counter; from the aggregate where there is none, or Redis is away.
    """
    uses: dict[UUID, list[tuple[QuotaInForce, QuotaUse]]] = defaultdict(list)
    for quota in await quotas_in_force(scope, customer_ids, scope.now):
        counter = await _counter_or_none(scope, quota)
        if counter is None:
            counter = await _from_aggregate(scope, quota, await queries.watermark(scope))
        use = QuotaUse(quota.entitlement.quota or Decimal(0), counter.used)
        uses[quota.customer_id].append((quota, use))
    return dict(uses)


async def quotas_in_force(
    scope: Scope, customer_ids: Collection[UUID], at: datetime
) -> list[QuotaInForce]:
    """The quotas that the customers' active subscriptions grant at a moment; one statement."""
    rows = await scope.db.execute(
        sa.select(Subscription, Customer, Entitlement, Meter)
        .join(Customer, col(Customer.id) == col(Subscription.customer_id))
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .join(OfferingEntitlement, col(OfferingEntitlement.offering_id) == col(Offering.id))
        .join(Entitlement, col(Entitlement.id) == col(OfferingEntitlement.entitlement_id))
        .join(Meter, col(Meter.id) == col(Entitlement.meter_id))
        .where(
            col(Subscription.customer_id).in_(customer_ids),
            col(Subscription.starts_at) <= at,
            sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > at),
            col(Entitlement.kind) == EntitlementKind.QUOTA,
        )
        .order_by(col(Entitlement.code))
    )
    return [
        QuotaInForce(
            customer_id=customer.id,
            entitlement=entitlement,
            meter=meter,
            period=_lived(subscription, customer, at),
        )
        for subscription, customer, entitlement, meter in rows
    ]


def _lived(subscription: Subscription, customer: Customer, at: datetime) -> Period:
    """What the subscription lives of the billing period: usage under the one before it is not
    held against this one's quota, as it is not on this one's invoice."""
    return part_at(
        anchor_day=subscription.anchor_day,
        time_zone=customer.time_zone,
        starts_at=subscription.starts_at,
        ends_at=subscription.ends_at,
        at=at,
    ).part


async def _advance(scope: Scope, segment: Confirmed) -> None:
    by_customer: dict[UUID, list[StoredEvent]] = defaultdict(list)
    for event in segment.events:
        by_customer[event.customer_id].append(event)
    for quota in await quotas_in_force(scope, by_customer.keys(), scope.now):
        brought = list(_brought(by_customer[quota.customer_id], quota))
        if not brought:
            continue
        # What is shown is never below 0, so a sum that may fall below it cannot be added to.
        is_floored = quota.meter.allows_negative
        counter = advanced(
            None if is_floored else await _counter(scope, quota),
            aggregation=quota.meter.aggregation,
            contributions=sum(brought, Decimal(0)),
            largest=max(brought),
            previous_segment=segment.previous_id,
            segment_id=segment.segment_id,
        )
        if counter is None:
            counter = await _from_aggregate(scope, quota, segment.segment_id)
        await _store(scope, quota, counter)


def _brought(events: Iterable[StoredEvent], quota: QuotaInForce) -> Iterable[Decimal]:
    rule = queries.rule_of(quota.meter)
    for event in events:
        if event.type != rule.event_type or not quota.period.contains(event.occurred_at):
            continue
        try:
            units = contribution(rule, _properties.decode(event.properties))
        except Invalid:
            continue  # The meter is younger than the event; the aggregate leaves it out as well.
        if units is not None:
            yield units


async def _from_aggregate(scope: Scope, quota: QuotaInForce, watermark: int) -> QuotaCounter:
    usage = await queries.usage_by_customer(
        scope, quota.meter, quota.period, watermark=watermark, customer_ids=[quota.customer_id]
    )
    found = usage.get(CustomerId(quota.customer_id))
    return QuotaCounter(found.quantity if found else Decimal(0), watermark)


async def _counter(scope: Scope, quota: QuotaInForce) -> QuotaCounter | None:
    text = (await scope.live.counters(_name(quota))).get(quota.field)
    if text is None:
        return None
    stored: dict[str, Any] = msgspec.json.decode(text)
    return QuotaCounter(Decimal(stored["used"]), stored["segment"])


async def _counter_or_none(scope: Scope, quota: QuotaInForce) -> QuotaCounter | None:
    try:
        return await _counter(scope, quota)
    except UNREACHABLE:
        return None


async def _store(scope: Scope, quota: QuotaInForce, counter: QuotaCounter) -> None:
    value = {"used": format(counter.used, "f"), "segment": counter.segment_id}
    await scope.live.set_counters(
        _name(quota),
        {quota.field: msgspec.json.encode(value).decode()},
        ttl_seconds=COUNTER_TTL_SECONDS,
    )


def _name(quota: QuotaInForce) -> str:
    return f"quota:{quota.customer_id}"
