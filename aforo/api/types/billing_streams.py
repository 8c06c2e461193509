"""GraphQL of the invoices as they change."""

from collections.abc import AsyncIterator
from typing import Annotated

import strawberry

from aforo.api.parts import live
from aforo.api.parts.context import Info
from aforo.api.parts.fields import subscription
from aforo.api.parts.relay import optional_id
from aforo.api.types.billing import Invoice
from aforo.billing import queries
from aforo.billing.models import InvoiceState
from aforo.tenants.permissions import Permission


@strawberry.type
class BillingSubscription:
    @subscription(
        "Invoices as they are drafted, wait for their tax, or become final, and drafts whose "
        "amount has changed.",
        needs=Permission.BILLING_READ,
    )
    async def invoices(
        self,
        info: Info,
        *,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
        state: Annotated[
            InvoiceState | None, strawberry.argument(description="Only those that come into it.")
        ] = None,
        after: live.After = None,
    ) -> AsyncIterator[Invoice]:
        customer = optional_id("Customer", customer_id, field="customerId")
        wants = live.matching(
            customerId=customer and str(customer), state=None if state is None else state.name
        )
        async for message in live.follow(info.context, "invoices", after=after, wants=wants):
            row = await live.row(info.context, message, queries.invoices_by_id)
            # One that has moved on meanwhile is told of by its later message.
            if row is not None and row.state.name == message.data["state"]:
                yield Invoice.from_row(row)
