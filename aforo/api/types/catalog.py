"""GraphQL of the catalogue: its types, and how they are read."""

from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, publish_enum
from aforo.api.parts.relay import Node
from aforo.api.parts.scalars import JSON
from aforo.catalog import models, queries
from aforo.catalog.models import (
    Aggregation,
    CalendarUnit,
    DiscountKind,
    EntitlementKind,
    Interval,
    QuotaPolicy,
    QuotaReset,
    WhenUnavailable,
)

publish_enum(
    Aggregation,
    "How a period's events become one quantity of billable units.",
    SUM="The sum of a property.",
    COUNT="The number of events.",
    MAX="The largest value of a property.",
    UNIQUE="How many different values a property has.",
    LATEST="The value of a property in the event that happened last.",
)
publish_enum(
    EntitlementKind,
    "What an entitlement grants.",
    BOOLEAN="A feature, or not.",
    QUOTA="So many units of a meter, until it begins anew.",
)
publish_enum(
    QuotaPolicy,
    "What becomes of usage beyond a quota.",
    OVERAGE="It is allowed, and billed as the rate plan says.",
    BLOCK="The entitlement check says no, and an event that does not fit is blocked: kept and "
    "shown, never billed.",
)
publish_enum(
    WhenUnavailable,
    "What an entitlement check answers where nobody can say how much was used.",
    OPEN="Yes.",
    CLOSED="No.",
)
publish_enum(
    QuotaReset,
    "When a quota begins anew.",
    BILLING_PERIOD="With each billing period of the subscription.",
    CALENDAR="With each hour, day, week or month in the customer's time zone.",
    FIXED="Every so many seconds from the start of the subscription.",
    SLIDING="Never all at once: what was used so many seconds ago counts no longer.",
    NEVER="Never: it is for the life of the subscription.",
)
publish_enum(
    CalendarUnit,
    "Stretches of the calendar, in the customer's time zone.",
    HOUR="From one full hour to the next.",
    DAY="From midnight to midnight.",
    WEEK="From the midnight before Monday to the next.",
    MONTH="From the midnight before the first to the next.",
)
publish_enum(
    DiscountKind,
    "How a discount is stated.",
    PERCENTAGE="As a share of what is left of the invoice's subtotal.",
    FIXED="As an amount, capped at what is left.",
)
publish_enum(Interval, "How long a billing period is.", MONTH="A month in the customer's zone.")


@relay.fetched_by(queries.products_by_id)
@strawberry.type(description="What margins and reports are shown by; an offering belongs to one.")
class Product(Node):
    code: str = strawberry.field(description="Its name for machines.")
    name: str = strawberry.field(description="Its name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Product) -> Self:
        return cls(
            id=relay.global_id("Product", row.id),
            code=row.code,
            name=row.name,
            created_at=row.created_at,
        )


@strawberry.type(description="A condition on events: a property has one of these values.")
class MeterFilter:
    property: str = strawberry.field(description="Name of the event's property.")
    values: list[str] = strawberry.field(description="The values that pass, as text.")


@relay.fetched_by(queries.meters_by_id)
@strawberry.type(description="How events become billable units.")
class Meter(Node):
    code: str = strawberry.field(description="Its name for machines.")
    version: int = strawberry.field(description="Which version of the code this is.")
    name: str = strawberry.field(description="Its name for people.")
    unit: str = strawberry.field(description="What one unit is called, such as `token`.")
    event_type: str = strawberry.field(description="The type of the events that it selects.")
    aggregation: Aggregation = strawberry.field(description="How it counts them.")
    property: str | None = strawberry.field(
        description="The event property that is counted; null for COUNT."
    )
    filters: list[MeterFilter] = strawberry.field(
        description="Conditions on the events; all must hold."
    )
    allows_negative: bool = strawberry.field(
        description="Whether events may correct the sum downwards."
    )
    dimensions: list[str] = strawberry.field(
        description="Event properties by whose values usage can be told apart."
    )
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Meter) -> Self:
        return cls(
            id=relay.global_id("Meter", row.id),
            code=row.code,
            version=row.version,
            name=row.name,
            unit=row.unit,
            event_type=row.event_type,
            aggregation=row.aggregation,
            property=row.property,
            filters=[MeterFilter(**each) for each in row.filters],
            allows_negative=row.allows_negative,
            dimensions=row.dimensions,
            created_at=row.created_at,
        )


@relay.fetched_by(queries.cost_rates_by_id)
@strawberry.type(description="A version of what one unit of a meter costs us to serve.")
class CostRate(Node):
    meter_code: str = strawberry.field(description="Code of the meter; of all its versions.")
    version: int = strawberry.field(description="Which version of the meter's cost rate this is.")
    unit_cost: Decimal = strawberry.field(description="Cost of one unit, in `currency`.")
    currency: str = strawberry.field(description="ISO 4217 code.")
    effective_from: datetime = strawberry.field(
        description="In force for events from this moment on, until a later version is."
    )
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.CostRate) -> Self:
        return cls(
            id=relay.global_id("CostRate", row.id),
            meter_code=row.meter_code,
            version=row.version,
            unit_cost=row.unit_cost,
            currency=row.currency,
            effective_from=row.effective_from,
            created_at=row.created_at,
        )


@relay.fetched_by(queries.rate_plan_lines_by_id)
@strawberry.type(description="One price of a rate plan.")
class RatePlanLine(Node):
    meter_id: strawberry.Private[UUID | None]
    code: str = strawberry.field(description="Its name for machines, unique within the plan.")
    name: str = strawberry.field(description="Its name for people, as invoices show it.")
    model: str = strawberry.field(description="Key of the pricing model.")
    settings: JSON = strawberry.field(description="The model's settings, complete.")
    tax_category: str | None = strawberry.field(description="What a tax engine knows it as.")

    @classmethod
    def from_row(cls, row: models.RatePlanLine) -> Self:
        return cls(
            id=relay.global_id("RatePlanLine", row.id),
            meter_id=row.meter_id,
            code=row.code,
            name=row.name,
            model=row.model,
            settings=JSON(row.settings),
            tax_category=row.tax_category,
        )

    @field("The meter whose units are priced; null where no usage is.")
    async def meter(self, info: Info) -> Meter | None:
        return await meter_of(info, self.meter_id)


@relay.fetched_by(queries.rate_plans_by_id)
@strawberry.type(description="Priced lines over meters, in one currency.")
class RatePlan(Node):
    row_id: strawberry.Private[UUID]
    code: str = strawberry.field(description="Its name for machines.")
    version: int = strawberry.field(description="Which version of the code this is.")
    name: str = strawberry.field(description="Its name for people.")
    currency: str = strawberry.field(description="ISO 4217 code of all its prices.")
    interval: Interval = strawberry.field(description="How long a billing period is.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.RatePlan) -> Self:
        return cls(
            id=relay.global_id("RatePlan", row.id),
            row_id=row.id,
            code=row.code,
            version=row.version,
            name=row.name,
            currency=row.currency,
            interval=row.interval,
            created_at=row.created_at,
        )

    @field("Its lines, in the order in which invoices show them; at most 50.")
    async def lines(self, info: Info) -> list[RatePlanLine]:
        rows = await info.context.load(queries.lines_by_rate_plan, self.row_id)
        return [RatePlanLine.from_row(row) for row in rows or ()]


@relay.fetched_by(queries.entitlements_by_id)
@strawberry.type(description="A feature gate, or a quota over a meter, that an offering grants.")
class Entitlement(Node):
    meter_id: strawberry.Private[UUID | None]
    code: str = strawberry.field(description="Its name for machines.")
    version: int = strawberry.field(description="Which version of the code this is.")
    name: str = strawberry.field(description="Its name for people.")
    kind: EntitlementKind = strawberry.field(description="What it grants.")
    quota: Decimal | None = strawberry.field(
        description="Units until it begins anew. Null, as what follows, for BOOLEAN."
    )
    policy: QuotaPolicy | None = strawberry.field(description="What becomes of usage beyond it.")
    rate_per_second: Decimal | None = strawberry.field(
        description="The usual rate in units, which a throttle lowers; null where none was set."
    )
    reset: QuotaReset | None = strawberry.field(description="When it begins anew.")
    reset_unit: CalendarUnit | None = strawberry.field(
        description="For CALENDAR: which stretch of it."
    )
    reset_seconds: int | None = strawberry.field(
        description="For FIXED and SLIDING: how long a window is."
    )
    rollover_periods: int | None = strawberry.field(
        description="For how many months units that were left over are good; null: not at all."
    )
    rollover_cap: Decimal | None = strawberry.field(
        description="The most units that are carried on; null: as many as there are."
    )
    when_unavailable: WhenUnavailable = strawberry.field(
        description="What a check answers where nobody can say how much was used."
    )
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Entitlement) -> Self:
        return cls(
            id=relay.global_id("Entitlement", row.id),
            meter_id=row.meter_id,
            code=row.code,
            version=row.version,
            name=row.name,
            kind=row.kind,
            quota=row.quota,
            policy=row.policy,
            rate_per_second=row.rate_per_second,
            reset=row.reset,
            reset_unit=row.reset_unit,
            reset_seconds=row.reset_seconds,
            rollover_periods=row.rollover_periods,
            rollover_cap=row.rollover_cap,
            when_unavailable=row.when_unavailable,
            created_at=row.created_at,
        )

    @field("The meter that the quota limits; null for BOOLEAN.")
    async def meter(self, info: Info) -> Meter | None:
        return await meter_of(info, self.meter_id)


@relay.fetched_by(queries.offerings_by_id)
@strawberry.type(
    description="What a subscription subscribes to: one version each of a plan and entitlements."
)
class Offering(Node):
    row_id: strawberry.Private[UUID]
    product_id: strawberry.Private[UUID]
    rate_plan_id: strawberry.Private[UUID]
    code: str = strawberry.field(description="Its name for machines.")
    version: int = strawberry.field(description="Which version of the code this is.")
    name: str = strawberry.field(description="Its name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Offering) -> Self:
        return cls(
            id=relay.global_id("Offering", row.id),
            row_id=row.id,
            product_id=row.product_id,
            rate_plan_id=row.rate_plan_id,
            code=row.code,
            version=row.version,
            name=row.name,
            created_at=row.created_at,
        )

    @field("The product that it sells.")
    async def product(self, info: Info) -> Product:
        row = await info.context.load(queries.products_by_id, self.product_id)
        assert row is not None, "a foreign key holds it"
        return Product.from_row(row)

    @field("The rate plan that it pins.")
    async def rate_plan(self, info: Info) -> RatePlan:
        row = await info.context.load(queries.rate_plans_by_id, self.rate_plan_id)
        assert row is not None, "a foreign key holds it"
        return RatePlan.from_row(row)

    @field("The entitlements that it pins; at most 50.")
    async def entitlements(self, info: Info) -> list[Entitlement]:
        rows = await info.context.load(queries.entitlements_by_offering, self.row_id)
        return [Entitlement.from_row(row) for row in rows or ()]


@relay.fetched_by(queries.discounts_by_id)
@strawberry.type(description="A reduction of an invoice's subtotal, by a share or by an amount.")
class Discount(Node):
    code: str = strawberry.field(description="Its name for machines.")
    name: str = strawberry.field(description="Its name for people, as invoices show it.")
    kind: DiscountKind = strawberry.field(description="How it is stated.")
    rate: Decimal | None = strawberry.field(
        description="The share of a PERCENTAGE discount: `0.1` is ten percent."
    )
    amount: Decimal | None = strawberry.field(description="The amount of a FIXED discount.")
    currency: str | None = strawberry.field(description="ISO 4217 code of the amount.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Discount) -> Self:
        return cls(
            id=relay.global_id("Discount", row.id),
            code=row.code,
            name=row.name,
            kind=row.kind,
            rate=row.rate,
            amount=row.amount,
            currency=row.currency,
            created_at=row.created_at,
        )


async def meter_of(info: Info, meter_id: UUID | None) -> Meter | None:
    """The meter that a row names, if it names one."""
    if meter_id is None:
        return None
    row = await info.context.load(queries.meters_by_id, meter_id)
    return None if row is None else Meter.from_row(row)
