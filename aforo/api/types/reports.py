"""GraphQL of the reports: revenue, what it cost, and what of it recurs."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.scalars import BigInt
from aforo.api.types.periods import PeriodInput
from aforo.reports import queries
from aforo.tenants.permissions import Permission


@strawberry.type(description="The figures of one currency; amounts are in it.")
class RevenueSummary:
    currency: str = strawberry.field(description="ISO 4217 code.")
    as_of: datetime = strawberry.field(description="The moment the figures are true for.")
    invoiced_revenue: Decimal = strawberry.field(
        description="Finalised invoices whose period ended in the window: net of discounts and tax."
    )
    expected_revenue: Decimal = strawberry.field(
        description="The same of invoices that are not final yet."
    )
    cogs: Decimal = strawberry.field(
        description="What serving the periods of the finalised invoices cost."
    )
    margin: Decimal | None = strawberry.field(
        description="(revenue - COGS) / revenue, a share; null without revenue, "
        "and where the cost of an event behind it is unknown or in another currency."
    )
    unattributed_cogs: Decimal = strawberry.field(
        description="Cost in this currency of customers who are billed in another one."
    )
    uncosted_events: BigInt = strawberry.field(
        description="Events of the window whose cost is unknown; they are not free."
    )
    outstanding: Decimal = strawberry.field(
        description="Due on all finalised invoices, whenever their period ended."
    )
    mrr: Decimal = strawberry.field(
        description="A month's recurring fees at the end of the window, net of discounts."
    )
    arr: Decimal = strawberry.field(description="12 times MRR.")
    active_subscriptions: int = strawberry.field(
        description="Subscriptions active at the end of the window."
    )
    active_customers: int = strawberry.field(
        description="Customers with an active subscription at the end of the window."
    )
    arpu: Decimal | None = strawberry.field(
        description="MRR per active customer; null without one."
    )

    @classmethod
    def from_figures(cls, figures: queries.RevenueSummary) -> Self:
        return cls(
            currency=figures.currency,
            as_of=figures.as_of,
            invoiced_revenue=figures.invoiced_revenue,
            expected_revenue=figures.expected_revenue,
            cogs=figures.cogs,
            margin=figures.margin,
            unattributed_cogs=figures.unattributed_cogs,
            uncosted_events=BigInt(figures.uncosted_events),
            outstanding=figures.outstanding,
            mrr=figures.mrr,
            arr=figures.arr,
            active_subscriptions=figures.active_subscriptions,
            active_customers=figures.active_customers,
            arpu=figures.arpu,
        )


@strawberry.type
class ReportQuery:
    @field(
        "Revenue, cost and recurring fees of a period, one row per currency.",
        needs=Permission.REPORTS_READ,
        cost=100,
    )
    async def revenue_summary(
        self,
        info: Info,
        period: Annotated[PeriodInput, strawberry.argument(description="Of which time.")],
    ) -> list[RevenueSummary]:
        window = period.to_period()
        async with info.context.scope() as scope:
            rows = await queries.revenue_summary(scope, start=window.start, end=window.end)
        return [RevenueSummary.from_figures(row) for row in rows]
