"""GraphQL of the customers and subscriptions: who bought what, in lists."""

from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.pages import publish_order, rows_in_pages
from aforo.api.parts.relay import After, Connection, First, local_id, optional_id
from aforo.api.types.subscriptions import Customer, CustomerSubscription
from aforo.sdk import Invalid
from aforo.storage.listing import PAGE_DEFAULT
from aforo.subscriptions import queries
from aforo.subscriptions.models import CustomerOrder, SubscriptionOrder, SubscriptionState
from aforo.tenants.permissions import Permission

publish_order(
    CustomerOrder,
    "Orders of customers.",
    NAME_ASC="By name in lower case, from the first on.",
    NAME_DESC="By name in lower case, from the last on.",
    EXTERNAL_ID_ASC="By the tenant's own id, from the first on.",
    EXTERNAL_ID_DESC="By the tenant's own id, from the last on.",
)
publish_order(
    SubscriptionOrder,
    "Orders of subscriptions.",
    STARTS_AT_ASC="By start, the earliest first.",
    STARTS_AT_DESC="By start, the latest first.",
)


@strawberry.type
class SubscriptionQuery:
    @field("The customers.", needs=Permission.CUSTOMERS_READ)
    async def customers(
        self,
        info: Info,
        *,
        name_prefix: Annotated[
            str | None,
            strawberry.argument(description="Only those whose name begins so, in either case."),
        ] = None,
        segment: Annotated[
            str | None, strawberry.argument(description="Only those of this segment.")
        ] = None,
        country: Annotated[
            str | None, strawberry.argument(description="Only those in this country.")
        ] = None,
        currency: Annotated[
            str | None, strawberry.argument(description="Only those that pay in this currency.")
        ] = None,
        order_by: Annotated[
            CustomerOrder, strawberry.argument(description="In what order they are listed.")
        ] = CustomerOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Customer]:
        listing = queries.customers(
            name_prefix=name_prefix,
            segment=segment,
            country=country,
            currency=currency,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Customer.from_row
        )

    @field(
        "One customer, by one of its two ids; null if there is none.",
        needs=Permission.CUSTOMERS_READ,
    )
    async def customer(
        self,
        info: Info,
        id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Its global id.")
        ] = None,
        external_id: Annotated[
            str | None, strawberry.argument(description="The tenant's own id of it.")
        ] = None,
    ) -> Customer | None:
        if (id is None) == (external_id is None):
            raise Invalid("give either id or externalId", code="BAD_ARGUMENTS", field="id")
        if id is not None:
            row = await info.context.load(
                queries.customers_by_id, local_id("Customer", id, field="id")
            )
        else:
            assert external_id is not None
            async with info.context.scope() as scope:
                row = await queries.customer_by_external_id(scope, external_id)
        return None if row is None else Customer.from_row(row)

    @field("The subscriptions.", needs=Permission.CUSTOMERS_READ)
    async def subscriptions(
        self,
        info: Info,
        *,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
        offering_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only those to this offering.")
        ] = None,
        state: Annotated[
            SubscriptionState | None, strawberry.argument(description="Only those in this state.")
        ] = None,
        order_by: Annotated[
            SubscriptionOrder, strawberry.argument(description="In what order they are listed.")
        ] = SubscriptionOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[CustomerSubscription]:
        listing = queries.subscriptions(
            now=info.context.runtime.clock.now(),
            customer_id=optional_id("Customer", customer_id, field="customerId"),
            offering_id=optional_id("Offering", offering_id, field="offeringId"),
            state=state,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=CustomerSubscription.from_row
        )
