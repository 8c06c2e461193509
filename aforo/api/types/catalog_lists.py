"""GraphQL of the catalogue: what is sold, in lists."""

from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.pages import ByAge, publish_order, rows_in_pages
from aforo.api.parts.relay import After, Connection, First
from aforo.api.types.catalog import (
    CostRate,
    Discount,
    Entitlement,
    Meter,
    Offering,
    Product,
    RatePlan,
)
from aforo.catalog import queries
from aforo.catalog.models import CodeOrder
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_order(
    CodeOrder,
    "Orders of things with a code.",
    CODE_ASC="By code, from the first on.",
    CODE_DESC="By code, from the last on.",
)

Code = Annotated[
    str | None, strawberry.argument(description="Only those with this code; all their versions.")
]
OrderBy = Annotated[CodeOrder, strawberry.argument(description="In what order they are listed.")]


@strawberry.type
class CatalogQuery:
    @field("The products.", needs=Permission.CATALOG_READ)
    async def products(
        self,
        info: Info,
        *,
        code: Code = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Product]:
        listing = queries.products(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Product.from_row
        )

    @field("The meters.", needs=Permission.CATALOG_READ)
    async def meters(
        self,
        info: Info,
        *,
        code: Code = None,
        event_type: Annotated[
            str | None, strawberry.argument(description="Only those that select this type.")
        ] = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Meter]:
        listing = queries.meters(code=code, event_type=event_type, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Meter.from_row
        )

    @field("All versions of all cost rates.", needs=Permission.CATALOG_READ)
    async def cost_rates(
        self,
        info: Info,
        *,
        meter_code: Annotated[
            str | None, strawberry.argument(description="Only those of the meter with this code.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[CostRate]:
        listing = queries.cost_rates(meter_code=meter_code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=CostRate.from_row
        )

    @field("The rate plans.", needs=Permission.CATALOG_READ)
    async def rate_plans(
        self,
        info: Info,
        *,
        code: Code = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[RatePlan]:
        listing = queries.rate_plans(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=RatePlan.from_row
        )

    @field("The entitlements.", needs=Permission.CATALOG_READ)
    async def entitlements(
        self,
        info: Info,
        *,
        code: Code = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Entitlement]:
        listing = queries.entitlements(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Entitlement.from_row
        )

    @field("The offerings.", needs=Permission.CATALOG_READ)
    async def offerings(
        self,
        info: Info,
        *,
        code: Code = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Offering]:
        listing = queries.offerings(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Offering.from_row
        )

    @field("The discounts.", needs=Permission.BILLING_READ)
    async def discounts(
        self,
        info: Info,
        *,
        code: Code = None,
        order_by: OrderBy = CodeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Discount]:
        listing = queries.discounts(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Discount.from_row
        )
