"""Reads the catalogue: by id, in lists, and whole offerings for billing."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import (
    CodeOrder,
    CostRate,
    Discount,
    Entitlement,
    Meter,
    Offering,
    OfferingEntitlement,
    Product,
    RatePlan,
    RatePlanLine,
)
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingContents:
    """An offering with everything that it pins."""

    offering: Offering
    rate_plan: RatePlan
    lines: tuple[RatePlanLine, ...]
    """In the order in which they stand on an invoice."""
    entitlements: tuple[Entitlement, ...]
    meters: dict[UUID, Meter]
    """Every meter that a line or an entitlement names, by id."""


async def products_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Product]:
    return await rows_by_id(scope, Product, ids)


def products(
    *, code: str | None = None, order: CodeOrder = CodeOrder.OLDEST_FIRST
) -> Listing[Product]:
    """The products, or the one with a code."""
    return Listing(Product, equal(Product.code, code), order)


async def meters_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Meter]:
    return await rows_by_id(scope, Meter, ids)


def meters(
    *,
    code: str | None = None,
    event_type: str | None = None,
    order: CodeOrder = CodeOrder.OLDEST_FIRST,
) -> Listing[Meter]:
    """The meters, or the versions of one, or those that select a type of event."""
    where = equal(Meter.code, code) + equal(Meter.event_type, event_type)
    return Listing(Meter, where, order)


async def latest_meter(scope: Scope, code: str) -> Meter | None:
    """The latest version of the meter with this code."""
    meter: Meter | None = await scope.db.scalar(
        sa.select(Meter).where(col(Meter.code) == code).order_by(col(Meter.version).desc()).limit(1)
    )
    return meter


async def cost_rates_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, CostRate]:
    return await rows_by_id(scope, CostRate, ids)


def cost_rates(
    *, meter_code: str | None = None, order: AgeOrder = AgeOrder.OLDEST_FIRST
) -> Listing[CostRate]:
    """All versions of all cost rates, or of one meter's."""
    return Listing(CostRate, equal(CostRate.meter_code, meter_code), order)


async def rate_plans_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, RatePlan]:
    return await rows_by_id(scope, RatePlan, ids)


def rate_plans(
    *, code: str | None = None, order: CodeOrder = CodeOrder.OLDEST_FIRST
) -> Listing[RatePlan]:
    """The rate plans, or the versions of one."""
    return Listing(RatePlan, equal(RatePlan.code, code), order)


async def rate_plan_lines_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, RatePlanLine]:
    return await rows_by_id(scope, RatePlanLine, ids)


async def entitlements_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Entitlement]:
    return await rows_by_id(scope, Entitlement, ids)


def entitlements(
    *, code: str | None = None, order: CodeOrder = CodeOrder.OLDEST_FIRST
) -> Listing[Entitlement]:
    """The entitlements, or the versions of one."""
    return Listing(Entitlement, equal(Entitlement.code, code), order)


async def offerings_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Offering]:
    return await rows_by_id(scope, Offering, ids)


def offerings(
    *, code: str | None = None, order: CodeOrder = CodeOrder.OLDEST_FIRST
) -> Listing[Offering]:
    """The offerings, or the versions of one."""
    return Listing(Offering, equal(Offering.code, code), order)


async def discounts_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Discount]:
    return await rows_by_id(scope, Discount, ids)


def discounts(
    *, code: str | None = None, order: CodeOrder = CodeOrder.OLDEST_FIRST
) -> Listing[Discount]:
    """The discounts, or the one with a code."""
    return Listing(Discount, equal(Discount.code, code), order)


async def lines_by_rate_plan(
    scope: Scope, rate_plan_ids: Collection[UUID]
) -> dict[UUID, list[RatePlanLine]]:
    """Each plan's lines in order; a plan that is not there has none."""
    rows = await scope.db.scalars(
        sa.select(RatePlanLine)
        .where(col(RatePlanLine.rate_plan_id).in_(rate_plan_ids))
        .order_by(col(RatePlanLine.rate_plan_id), col(RatePlanLine.position))
    )
    lines: dict[UUID, list[RatePlanLine]] = {plan_id: [] for plan_id in rate_plan_ids}
    for row in rows:
        lines[row.rate_plan_id].append(row)
    return lines


async def entitlements_by_offering(
    scope: Scope, offering_ids: Collection[UUID]
) -> dict[UUID, list[Entitlement]]:
    """The entitlements that each offering pins, in the order in which they were made."""
    rows = await scope.db.execute(
        sa.select(OfferingEntitlement, Entitlement)
        .join(Entitlement, col(Entitlement.id) == col(OfferingEntitlement.entitlement_id))
        .where(col(OfferingEntitlement.offering_id).in_(offering_ids))
        .order_by(col(Entitlement.id))
    )
    pinned: dict[UUID, list[Entitlement]] = {offering_id: [] for offering_id in offering_ids}
    for link, entitlement in rows:
        pinned[link.offering_id].append(entitlement)
    return pinned


async def offering_contents(
    scope: Scope, offering_ids: Collection[UUID]
) -> dict[UUID, OfferingContents]:
    """What each offering pins, in four statements; an id that is not the tenant's is absent."""
    rows = await scope.db.execute(
        sa.select(Offering, RatePlan)
        .join(RatePlan, col(RatePlan.id) == col(Offering.rate_plan_id))
        .where(col(Offering.id).in_(offering_ids))
    )
    pairs = [(offering, plan) for offering, plan in rows]
    lines = await lines_by_rate_plan(scope, {plan.id for _, plan in pairs})
    pinned = await entitlements_by_offering(scope, {offering.id for offering, _ in pairs})
    parts: dict[UUID, tuple[RatePlanLine | Entitlement, ...]] = {
        offering.id: (*lines[plan.id], *pinned[offering.id]) for offering, plan in pairs
    }
    named = {part.meter_id for each in parts.values() for part in each if part.meter_id}
    found = await meters_by_id(scope, named)
    contents = {}
    for offering, plan in pairs:
        contents[offering.id] = OfferingContents(
            offering=offering,
            rate_plan=plan,
            lines=tuple(lines[plan.id]),
            entitlements=tuple(pinned[offering.id]),
            meters={
                part.meter_id: found[part.meter_id] for part in parts[offering.id] if part.meter_id
            },
        )
    return contents
