"""GraphQL of the catalogue: what can be created."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import local_id, optional_id
from aforo.api.parts.scalars import JSON
from aforo.api.types.catalog import (
    CostRate,
    Discount,
    Entitlement,
    Meter,
    Offering,
    Product,
    RatePlan,
)
from aforo.catalog import commands
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
from aforo.catalog.quota_terms import QuotaTerms
from aforo.catalog.validate import Filter
from aforo.sdk import Invalid
from aforo.tenants.permissions import Permission

CODE = "Its name for machines: 1 to 64 of `a-z 0-9 _ . -`, unique and never changed."
NAME = "Its name for people, 1 to 200 characters."


@strawberry.input(description="A new product.")
class CreateProductInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)


@strawberry.input(description="A condition on events: a property has one of these values.")
class MeterFilterInput:
    property: str = strawberry.field(description="Name of the event's property.")
    values: list[str] = strawberry.field(description="The values that pass, at most 100.")


@strawberry.input(description="A new meter.")
class CreateMeterInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)
    event_type: str = strawberry.field(description="The type of the events that it selects.")
    aggregation: Aggregation = strawberry.field(description="How it counts them.")
    property: str | None = strawberry.field(
        default=None, description="The event property that is counted; none for COUNT."
    )
    unit: str = strawberry.field(default="", description="What one unit is called.")
    filters: list[MeterFilterInput] = strawberry.field(
        default_factory=list, description="Conditions that all must hold, at most 20."
    )
    allows_negative: bool = strawberry.field(
        default=False, description="Whether events may correct a SUM downwards."
    )
    dimensions: list[str] = strawberry.field(
        default_factory=list,
        description="Event properties by whose values usage can be told apart, at most 4.",
    )


@strawberry.input(description="A new version of what one unit of a meter costs us to serve.")
class CreateCostRateInput:
    meter_id: strawberry.ID = strawberry.field(description="The meter, a SUM or COUNT.")
    unit_cost: Decimal = strawberry.field(description="Cost of one unit, in `currency`.")
    currency: str = strawberry.field(description="ISO 4217 code.")
    effective_from: datetime | None = strawberry.field(
        default=None, description="In force for events from this moment on; now if not given."
    )


@strawberry.input(description="A price of a new rate plan.")
class RatePlanLineInput:
    code: str = strawberry.field(description="Its name for machines, unique within the plan.")
    name: str = strawberry.field(description="Its name for people, as invoices show it.")
    model: str = strawberry.field(description="Key of a pricing model; see `pricingModels`.")
    settings: JSON = strawberry.field(
        description="The model's settings as an object; decimals as text, such as `0.029`."
    )
    meter_id: strawberry.ID | None = strawberry.field(
        default=None, description="The meter whose units are priced; none for a flat fee."
    )
    tax_category: str | None = strawberry.field(
        default=None, description="What a tax engine knows it as."
    )


@strawberry.input(description="A new rate plan.")
class CreateRatePlanInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)
    currency: str = strawberry.field(description="ISO 4217 code of all its prices.")
    lines: list[RatePlanLineInput] = strawberry.field(
        description="Its prices in the order in which invoices show them, 1 to 50."
    )
    interval: Interval = strawberry.field(
        default=Interval.MONTH, description="How long a billing period is."
    )


@strawberry.input(description="A new entitlement.")
class CreateEntitlementInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)
    kind: EntitlementKind = strawberry.field(description="What it grants.")
    meter_id: strawberry.ID | None = strawberry.field(
        default=None, description="The meter that a QUOTA limits."
    )
    quota: Decimal | None = strawberry.field(
        default=None, description="Units of a QUOTA, until it begins anew."
    )
    when_unavailable: WhenUnavailable = strawberry.field(
        default=WhenUnavailable.OPEN,
        description="What a check answers where nobody can say how much was used.",
    )
    policy: QuotaPolicy | None = strawberry.field(
        default=None,
        description="What becomes of usage beyond a QUOTA; unless given, what the stage "
        "QUOTA_CHECK is set to: OVERAGE, as it is delivered.",
    )
    rate_per_second: Decimal | None = strawberry.field(
        default=None, description="The usual rate of a QUOTA in units, which a throttle lowers."
    )
    reset: QuotaReset | None = strawberry.field(
        default=None, description="When a QUOTA begins anew; BILLING_PERIOD unless given."
    )
    reset_unit: CalendarUnit | None = strawberry.field(
        default=None, description="For CALENDAR: which stretch of it."
    )
    reset_seconds: int | None = strawberry.field(
        default=None, description="For FIXED and SLIDING: how long a window is, at most 366 days."
    )
    rollover_periods: int | None = strawberry.field(
        default=None,
        description="For how many months, 1 to 12, units that were left over are good; for "
        "BILLING_PERIOD and MONTH. They are consumed before the quota itself, the oldest first.",
    )
    rollover_cap: Decimal | None = strawberry.field(
        default=None, description="The most units that are carried on, of all months together."
    )


@strawberry.input(description="A new offering.")
class CreateOfferingInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)
    product_id: strawberry.ID = strawberry.field(description="The product that it sells.")
    rate_plan_id: strawberry.ID = strawberry.field(description="The rate plan that it pins.")
    entitlement_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="The entitlements that it pins, at most 50."
    )


@strawberry.input(description="A new discount.")
class CreateDiscountInput:
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)
    kind: DiscountKind = strawberry.field(description="How it is stated.")
    rate: Decimal | None = strawberry.field(
        default=None, description="The share of a PERCENTAGE: above 0, at most 1."
    )
    amount: Decimal | None = strawberry.field(
        default=None, description="The amount of a FIXED discount, above 0."
    )
    currency: str | None = strawberry.field(
        default=None, description="ISO 4217 code of the amount of a FIXED discount."
    )


CreateProductResult = Annotated[
    Product | InvalidProblem | ConflictProblem,
    strawberry.union("CreateProductResult", description="The product, or why there is none."),
]
CreateMeterResult = Annotated[
    Meter | InvalidProblem | ConflictProblem,
    strawberry.union("CreateMeterResult", description="The meter, or why there is none."),
]
CreateCostRateResult = Annotated[
    CostRate | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateCostRateResult", description="The version, or why there is none."),
]
CreateRatePlanResult = Annotated[
    RatePlan | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateRatePlanResult", description="The plan, or why there is none."),
]
CreateEntitlementResult = Annotated[
    Entitlement | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateEntitlementResult", description="It, or why there is none."),
]
CreateOfferingResult = Annotated[
    Offering | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateOfferingResult", description="The offering, or why there is none."),
]
CreateDiscountResult = Annotated[
    Discount | InvalidProblem | ConflictProblem,
    strawberry.union("CreateDiscountResult", description="The discount, or why there is none."),
]


@strawberry.type
class CatalogMutation:
    @mutation("Create a product.", needs=Permission.CATALOG_WRITE)
    async def create_product(self, info: Info, input: CreateProductInput) -> CreateProductResult:
        async with info.context.scope() as scope:
            row = await commands.create_product(scope, code=input.code, name=input.name)
        return Product.from_row(row)

    @mutation(
        "Create a meter; it counts events that arrive from now on.", needs=Permission.CATALOG_WRITE
    )
    async def create_meter(self, info: Info, input: CreateMeterInput) -> CreateMeterResult:
        async with info.context.scope() as scope:
            row = await commands.create_meter(
                scope,
                code=input.code,
                name=input.name,
                event_type=input.event_type,
                aggregation=input.aggregation,
                property_name=input.property,
                unit=input.unit,
                filters=[Filter(each.property, each.values) for each in input.filters],
                allows_negative=input.allows_negative,
                dimensions=input.dimensions,
            )
        return Meter.from_row(row)

    @mutation("Create the next version of a meter's cost rate.", needs=Permission.CATALOG_WRITE)
    async def create_cost_rate(
        self, info: Info, input: CreateCostRateInput
    ) -> CreateCostRateResult:
        async with info.context.scope() as scope:
            row = await commands.create_cost_rate(
                scope,
                meter_id=local_id("Meter", input.meter_id, field="meterId"),
                unit_cost=input.unit_cost,
                currency=input.currency,
                effective_from=input.effective_from,
            )
        return CostRate.from_row(row)

    @mutation(
        "Create a rate plan; each line's pricing model checks the line's settings.",
        needs=Permission.CATALOG_WRITE,
    )
    async def create_rate_plan(
        self, info: Info, input: CreateRatePlanInput
    ) -> CreateRatePlanResult:
        async with info.context.scope() as scope:
            row = await commands.create_rate_plan(
                scope,
                code=input.code,
                name=input.name,
                currency=input.currency,
                lines=[_new_line(line, f"lines.{at}") for at, line in enumerate(input.lines)],
                interval=input.interval,
            )
        return RatePlan.from_row(row)

    @mutation("Create an entitlement.", needs=Permission.CATALOG_WRITE)
    async def create_entitlement(
        self, info: Info, input: CreateEntitlementInput
    ) -> CreateEntitlementResult:
        async with info.context.scope() as scope:
            row = await commands.create_entitlement(
                scope,
                code=input.code,
                name=input.name,
                kind=input.kind,
                meter_id=optional_id("Meter", input.meter_id, field="meterId"),
                quota=input.quota,
                when_unavailable=input.when_unavailable,
                terms=QuotaTerms(
                    policy=input.policy,
                    rate_per_second=input.rate_per_second,
                    reset=input.reset,
                    reset_unit=input.reset_unit,
                    reset_seconds=input.reset_seconds,
                    rollover_periods=input.rollover_periods,
                    rollover_cap=input.rollover_cap,
                ),
            )
        return Entitlement.from_row(row)

    @mutation(
        "Create an offering from a product, a rate plan and entitlements.",
        needs=Permission.CATALOG_WRITE,
    )
    async def create_offering(self, info: Info, input: CreateOfferingInput) -> CreateOfferingResult:
        async with info.context.scope() as scope:
            row = await commands.create_offering(
                scope,
                code=input.code,
                name=input.name,
                product_id=local_id("Product", input.product_id, field="productId"),
                rate_plan_id=local_id("RatePlan", input.rate_plan_id, field="ratePlanId"),
                entitlement_ids=[
                    local_id("Entitlement", each, field=f"entitlementIds.{at}")
                    for at, each in enumerate(input.entitlement_ids)
                ],
            )
        return Offering.from_row(row)

    @mutation("Create a discount.", needs=Permission.BILLING_WRITE)
    async def create_discount(self, info: Info, input: CreateDiscountInput) -> CreateDiscountResult:
        async with info.context.scope() as scope:
            row = await commands.create_discount(
                scope,
                code=input.code,
                name=input.name,
                kind=input.kind,
                rate=input.rate,
                amount=input.amount,
                currency=input.currency,
            )
        return Discount.from_row(row)


def _new_line(line: RatePlanLineInput, path: str) -> commands.NewLine:
    if not isinstance(line.settings, dict):
        raise Invalid("settings are a JSON object", field=f"{path}.settings")
    return commands.NewLine(
        code=line.code,
        name=line.name,
        model=line.model,
        settings=line.settings,
        meter_id=optional_id("Meter", line.meter_id, field=f"{path}.meterId"),
        tax_category=line.tax_category,
    )
