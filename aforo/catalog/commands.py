"""Writes the catalogue. What is created is version 1 of it, and published at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog import queries
from aforo.catalog.models import (
    Aggregation,
    CostRate,
    Discount,
    DiscountKind,
    Entitlement,
    EntitlementKind,
    Interval,
    Meter,
    Offering,
    OfferingEntitlement,
    Product,
    QuotaPolicy,
    RatePlan,
    RatePlanLine,
    WhenUnavailable,
)
from aforo.catalog.pricing import check_settings, find_model, named_entitlement
from aforo.catalog.quota_terms import QuotaTerms, check_included, check_terms
from aforo.catalog.validate import (
    EVENT_TYPE_LENGTH_MAX,
    UNIT_LENGTH_MAX,
    Filter,
    check_code,
    check_counting,
    check_currency,
    check_dimensions,
    check_filters,
    check_grant,
    check_reduction,
    check_text,
    check_unique,
)
from aforo.sdk import Conflict, CurrencyMismatch, Invalid, NotFound, parse_rate
from aforo.stages.commands import ask_for_release
from aforo.stages.queries import in_force
from aforo.storage.rows import add_unique
from aforo.storage.scope import Scope

LINES_MAX = 50
ENTITLEMENTS_MAX = 50
COST_RATE_SHIFT_MAX = timedelta(days=400)
TAX_CATEGORY_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """A line of a rate plan that is to be created."""

    code: str
    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    meter_id: UUID | None = None
    tax_category: str | None = None


async def create_product(scope: Scope, *, code: str, name: str) -> Product:
    """Create a product; raises `Invalid`, or `Conflict` for a code that is taken."""
    product = Product(code=check_code(code), name=check_text(name, field="name"))
    await add_unique(scope, product, taken=_taken("product", code))
    return product


async def create_meter(
    scope: Scope,
    *,
    code: str,
    name: str,
    event_type: str,
    aggregation: Aggregation,
    property_name: str | None = None,
    unit: str = "",
    filters: Sequence[Filter] = (),
    allows_negative: bool = False,
    dimensions: Sequence[str] = (),
) -> Meter:
    """Create a meter; events that arrive from now on are held against it.

    Usage can be told apart by the values of the properties that are its `dimensions`.

    Raises `Invalid`, or `Conflict` for a code that is taken.
    """
    check_code(code)
    check_text(name, field="name")
    check_text(event_type, field="eventType", length_max=EVENT_TYPE_LENGTH_MAX)
    check_text(unit, field="unit", length_max=UNIT_LENGTH_MAX, may_be_blank=True)
    check_counting(
        aggregation=aggregation, property_name=property_name, allows_negative=allows_negative
    )
    check_filters(filters)
    check_dimensions(dimensions)
    meter = Meter(
        code=code,
        name=name,
        unit=unit,
        event_type=event_type,
        aggregation=aggregation,
        property=property_name,
        filters=[each.as_json() for each in filters],
        allows_negative=allows_negative,
        dimensions=list(dimensions),
    )
    await add_unique(scope, meter, taken=_taken("meter", code))
    await ask_for_release(scope, "UNKNOWN_METER", event_type=event_type)
    return meter


async def create_cost_rate(
    scope: Scope,
    *,
    meter_id: UUID,
    unit_cost: Decimal,
    currency: str,
    effective_from: datetime | None = None,
) -> CostRate:
    """Create the next version of a meter's cost rate, in force from a moment on (default: now).

    `unit_cost` is per unit of the meter. Events whose cost is fixed already keep it. Raises
    `Invalid`, or `NotFound` for the meter.
    """
    unit_cost = parse_rate(unit_cost, field="unitCost")
    check_currency(currency)
    effective_from = effective_from or scope.now
    if abs(effective_from - scope.now) > COST_RATE_SHIFT_MAX:
        raise Invalid(
            f"effectiveFrom is {effective_from.isoformat()}, give a moment within "
            f"{COST_RATE_SHIFT_MAX.days} days of now",
            field="effectiveFrom",
        )
    meter = (await queries.meters_by_id(scope, [meter_id])).get(meter_id)
    if meter is None:
        raise _not_found("meter", field="meterId")
    if meter.aggregation not in {Aggregation.SUM, Aggregation.COUNT}:
        raise Invalid(
            f"a cost per event needs a SUM or COUNT meter, {meter.code} is {meter.aggregation}",
            field="meterId",
        )
    await _check_cost_currency(scope, currency)
    version = await scope.db.scalar(
        sa.select(sa.func.max(col(CostRate.version))).where(col(CostRate.meter_code) == meter.code)
    )
    rate = CostRate(
        meter_code=meter.code,
        version=(version or 0) + 1,
        unit_cost=unit_cost,
        currency=currency,
        effective_from=effective_from,
    )
    changed = Conflict(
        f"the cost rate of {meter.code} was changed at the same moment, look at it and try again",
        code="COST_RATE_CHANGED",
        field="meterId",
    )
    await add_unique(scope, rate, taken=changed)
    return rate


async def _check_cost_currency(scope: Scope, currency: str) -> None:
    """An event's cost is one amount, so all costs of a tenant are in one currency."""
    other = await scope.db.scalar(
        sa.select(col(CostRate.currency)).where(col(CostRate.currency) != currency).limit(1)
    )
    if other is not None:
        raise CurrencyMismatch(
            f"your costs are in {other}; give this one in {other} as well", field="currency"
        )


async def create_rate_plan(
    scope: Scope,
    *,
    code: str,
    name: str,
    currency: str,
    lines: Sequence[NewLine],
    interval: Interval = Interval.MONTH,
) -> RatePlan:
    """Create a rate plan; each line's settings must satisfy the model that will rate it.

    Raises `Invalid` or `NotFound` with the path of what is wrong, such as
    `lines.0.settings.tiers.1.upTo`, or `Conflict` for a code that is taken.
    """
    check_code(code)
    check_text(name, field="name")
    check_currency(currency)
    if not 1 <= len(lines) <= LINES_MAX:
        raise Invalid(f"a rate plan has 1 to {LINES_MAX} lines, not {len(lines)}", field="lines")
    check_unique((line.code for line in lines), field="lines.{}.code")
    meters = await queries.meters_by_id(scope, {line.meter_id for line in lines if line.meter_id})
    plan = RatePlan(code=code, name=name, currency=currency, interval=interval)
    rows = [
        _checked_line(scope, line, meters=meters, plan=plan, position=position)
        for position, line in enumerate(lines)
    ]
    await add_unique(scope, plan, taken=_taken("rate_plan", code))
    scope.db.add_all(rows)
    await scope.db.flush()
    return plan


def _checked_line(
    scope: Scope, line: NewLine, *, meters: Mapping[UUID, Meter], plan: RatePlan, position: int
) -> RatePlanLine:
    path = f"lines.{position}"
    check_code(line.code, field=f"{path}.code")
    check_text(line.name, field=f"{path}.name")
    if line.tax_category is not None:
        check_text(
            line.tax_category, field=f"{path}.taxCategory", length_max=TAX_CATEGORY_LENGTH_MAX
        )
    model = find_model(scope.plugins, line.model, field=f"{path}.model")
    if model.needs_meter and line.meter_id is None:
        raise Invalid(
            f"{line.model} charges for usage and needs a meter, give its id",
            field=f"{path}.meterId",
        )
    if not model.needs_meter and line.meter_id is not None:
        raise Invalid(
            f"{line.model} charges whatever is used and takes no meter, leave it out",
            field=f"{path}.meterId",
        )
    if line.meter_id is not None and line.meter_id not in meters:
        raise _not_found("meter", field=f"{path}.meterId")
    settings = check_settings(
        scope.plugins, model, line.settings, currency=plan.currency, field=f"{path}.settings"
    )
    return RatePlanLine(
        rate_plan_id=plan.id,
        position=position,
        code=line.code,
        name=line.name,
        meter_id=line.meter_id,
        model=line.model,
        settings=settings,
        tax_category=line.tax_category,
    )


async def create_entitlement(
    scope: Scope,
    *,
    code: str,
    name: str,
    kind: EntitlementKind,
    meter_id: UUID | None = None,
    quota: Decimal | None = None,
    when_unavailable: WhenUnavailable = WhenUnavailable.OPEN,
    terms: QuotaTerms = QuotaTerms(),  # noqa: B008 (frozen)
) -> Entitlement:
    """Create a feature gate, or a quota of units over a meter, per billing period unless the
    terms say otherwise.

    Raises `Invalid`, `NotFound` for the meter, or `Conflict` for a code that is taken.
    """
    check_code(code)
    check_text(name, field="name")
    quota = check_grant(kind=kind, has_meter=meter_id is not None, quota=quota)
    meter = None
    if meter_id is not None:
        meter = (await queries.meters_by_id(scope, [meter_id])).get(meter_id)
        if meter is None:
            raise _not_found("meter", field="meterId")
    if kind is EntitlementKind.QUOTA and terms.policy is None:
        default = (await in_force(scope)).quota_check.default_policy
        terms = replace(terms, policy=QuotaPolicy(default))
    terms = check_terms(terms, kind=kind, aggregation=meter.aggregation if meter else None)
    entitlement = Entitlement(
        code=code,
        name=name,
        kind=kind,
        meter_id=meter_id,
        quota=quota,
        when_unavailable=when_unavailable,
        **asdict(terms),
    )
    await add_unique(scope, entitlement, taken=_taken("entitlement", code))
    return entitlement


async def create_offering(
    scope: Scope,
    *,
    code: str,
    name: str,
    product_id: UUID,
    rate_plan_id: UUID,
    entitlement_ids: Sequence[UUID] = (),
) -> Offering:
    """Create an offering, which pins the versions that are named here.

    Raises `Invalid`, `NotFound` for what it would pin, or `Conflict` for a code that is taken.
    """
    check_code(code)
    check_text(name, field="name")
    if len(entitlement_ids) > ENTITLEMENTS_MAX:
        raise Invalid(
            f"{len(entitlement_ids)} entitlements are too many, give at most {ENTITLEMENTS_MAX}",
            field="entitlementIds",
        )
    check_unique(entitlement_ids, field="entitlementIds.{}")
    if product_id not in await queries.products_by_id(scope, [product_id]):
        raise _not_found("product", field="productId")
    if rate_plan_id not in await queries.rate_plans_by_id(scope, [rate_plan_id]):
        raise _not_found("rate plan", field="ratePlanId")
    pinned = await _check_entitlements(scope, entitlement_ids)
    for line in (await queries.lines_by_rate_plan(scope, [rate_plan_id]))[rate_plan_id]:
        source = named_entitlement(scope.plugins, line.model, line.settings)
        if source is not None:
            check_included(pinned, source, line=line.code, meter_id=line.meter_id)

    offering = Offering(code=code, name=name, product_id=product_id, rate_plan_id=rate_plan_id)
    await add_unique(scope, offering, taken=_taken("offering", code))
    scope.db.add_all(
        OfferingEntitlement(offering_id=offering.id, entitlement_id=entitlement_id)
        for entitlement_id in entitlement_ids
    )
    await scope.db.flush()
    return offering


async def _check_entitlements(
    scope: Scope, entitlement_ids: Collection[UUID]
) -> Collection[Entitlement]:
    found = await queries.entitlements_by_id(scope, entitlement_ids)
    limited: set[UUID] = set()
    for index, entitlement_id in enumerate(entitlement_ids):
        path = f"entitlementIds.{index}"
        entitlement = found.get(entitlement_id)
        if entitlement is None:
            raise _not_found("entitlement", field=path)
        if entitlement.meter_id is None:
            continue
        if entitlement.meter_id in limited:
            raise Invalid(
                f"{entitlement.code} is a second quota over one meter, pin one of them", field=path
            )
        limited.add(entitlement.meter_id)
    return found.values()


async def create_discount(
    scope: Scope,
    *,
    code: str,
    name: str,
    kind: DiscountKind,
    rate: Decimal | None = None,
    amount: Decimal | None = None,
    currency: str | None = None,
) -> Discount:
    """Create a discount: a share (`rate`, 0.1 is ten percent) or an amount in a currency.

    Raises `Invalid`, or `Conflict` for a code that is taken.
    """
    check_code(code)
    check_text(name, field="name")
    reduction = check_reduction(kind=kind, rate=rate, amount=amount, currency=currency)
    discount = Discount(code=code, name=name, kind=kind, **reduction)
    await add_unique(scope, discount, taken=_taken("discount", code))
    return discount


def _taken(thing: str, code: str) -> Conflict:
    return Conflict(
        f"there is a {thing.replace('_', ' ')} with the code {code!r}, choose another",
        code=f"{thing.upper()}_CODE_TAKEN",
        field="code",
    )


def _not_found(thing: str, *, field: str) -> NotFound:
    return NotFound(f"there is no {thing} with this id", field=field)
