"""GraphQL of the bills: invoices with their lines and events, bill runs, taxes."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import strawberry
from graphql import GraphQLError

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.cursors import bad_cursor, cursor_at, cursor_parts
from aforo.api.parts.fields import field, publish_enum
from aforo.api.parts.pages import ByAge, children_in_pages, publish_order, rows_in_pages
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.parts.scalars import BigInt, parse_moment
from aforo.api.types.catalog import Meter, meter_of
from aforo.api.types.events import Event, events_of
from aforo.api.types.explanations import InvoiceExplanation, explanation_of
from aforo.api.types.payments import PaymentInstruction
from aforo.api.types.periods import PeriodInput
from aforo.api.types.subscriptions import Customer, CustomerSubscription, customer_of
from aforo.api.types.suspects import SuspectedDuplicates, suspects_of
from aforo.billing import models, queries
from aforo.billing.gateways import instructions_by_invoice
from aforo.billing.models import BillRunState, InvoiceOrder, InvoiceState, LineKind
from aforo.billing.queries import SourceEvent
from aforo.sdk import Period
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.subscriptions.queries import subscriptions_by_id
from aforo.tenants.permissions import Permission

publish_enum(
    BillRunState,
    "How far a bill run has come.",
    QUEUED="It is to be done, or being done.",
    DONE="Every account is billed or parked.",
    FAILED="It was given up; `failure` says why.",
)
publish_enum(
    InvoiceState,
    "The life of an invoice.",
    DRAFT="Late events still enter until its grace period ends.",
    PENDING_TAX="The tax engine has not answered; it is asked again.",
    FINALIZED="It is due, and does not change any more.",
)
publish_order(
    InvoiceOrder,
    "Orders of invoices.",
    PERIOD_START_ASC="By the start of the period, the earliest first.",
    PERIOD_START_DESC="By the start of the period, the latest first.",
)
publish_enum(
    LineKind,
    "What a line of an invoice stands for.",
    FEE="A fee that does not depend on usage.",
    USAGE="Billable units of a meter.",
    DISCOUNT="A reduction; its amount is negative.",
)


@strawberry.type(description="One step of the walk through a price.")
class PriceStep:
    label: str = strawberry.field(description="What it is, such as a tier.")
    quantity: Decimal | None = strawberry.field(description="Units; null for a fixed amount.")
    unit_price: Decimal | None = strawberry.field(description="Price of one unit.")
    amount: Decimal = strawberry.field(description="Quantity times unit price, unrounded.")


@relay.fetched_by(queries.lines_by_id)
@strawberry.type(description="A line of an invoice, with the events that it stands on.")
class InvoiceLine(Node):
    row_id: strawberry.Private[UUID]
    meter_id: strawberry.Private[UUID | None]
    kind: LineKind = strawberry.field(description="What it stands for.")
    code: str = strawberry.field(description="Code of the rate plan line or the discount.")
    name: str = strawberry.field(description="Its name for people.")
    quantity: Decimal = strawberry.field(description="Billable units, or 1 for a fee.")
    unrounded: Decimal = strawberry.field(description="The exact amount, before its rounding.")
    amount: Decimal = strawberry.field(description="Rounded once, halves away from zero.")
    discounted: Decimal = strawberry.field(description="This line's share of the discounts.")
    tax: Decimal = strawberry.field(description="This line's share of the taxes.")
    tax_category: str | None = strawberry.field(description="What the tax engine knew it as.")
    event_count: int = strawberry.field(description="Events behind the line.")
    steps: list[PriceStep] = strawberry.field(description="The walk through the price.")

    @classmethod
    def from_row(cls, row: models.InvoiceLine) -> Self:
        return cls(
            id=relay.global_id("InvoiceLine", row.id),
            row_id=row.id,
            meter_id=row.meter_id,
            kind=row.kind,
            code=row.code,
            name=row.name,
            quantity=row.quantity,
            unrounded=row.unrounded,
            amount=row.amount,
            discounted=row.discounted,
            tax=row.tax,
            tax_category=row.tax_category,
            event_count=row.event_count,
            steps=[_step(step) for step in row.steps],
        )

    @field("The meter whose units are billed; null where no usage is.")
    async def meter(self, info: Info) -> Meter | None:
        return await meter_of(info, self.meter_id)

    @field("The events behind the line, in the order in which they happened.", cost=20)
    async def source_events(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection[Event]:
        page = relay.page(first, after)
        position = None if after is None else _position(after)
        async with info.context.scope() as scope:
            rows = await queries.source_events(scope, self.row_id, after=position, first=page.rows)

        async def count() -> int:
            return self.event_count

        return relay.connection(rows, page, events_of(rows), cursor=_cursor, count=count)


@strawberry.type(description="One tax of an invoice.")
class InvoiceTax:
    name: str = strawberry.field(description="Its name for people.")
    jurisdiction: str = strawberry.field(description="Who levies it.")
    rate: Decimal = strawberry.field(description="A share: `0.19` is 19 %.")
    inclusive: bool = strawberry.field(description="Whether the lines contain it.")
    base: Decimal = strawberry.field(description="What it was computed on.")
    amount: Decimal = strawberry.field(description="What it comes to.")

    @classmethod
    def from_row(cls, row: models.InvoiceTax) -> Self:
        return cls(
            name=row.name,
            jurisdiction=row.jurisdiction,
            rate=row.rate,
            inclusive=row.inclusive,
            base=row.base,
            amount=row.amount,
        )


@strawberry.type(description="A subscription that a bill run refused to bill.")
class ParkedAccount:
    subscription_id: strawberry.Private[UUID]
    reason: str = strawberry.field(description="Why nothing was billed, and what to mend.")

    @classmethod
    def from_row(cls, row: models.ParkedAccount) -> Self:
        return cls(subscription_id=row.subscription_id, reason=row.reason)

    @field("What was not billed; the next run tries it again.")
    async def subscription(self, info: Info) -> CustomerSubscription:
        return await _subscription_of(info, self.subscription_id)


@relay.fetched_by(queries.bill_runs_by_id)
@strawberry.type(description="One execution of billing over every period that had ended.")
class BillRun(Node):
    row_id: strawberry.Private[UUID]
    until: datetime = strawberry.field(description="Periods that had ended by then are billed.")
    state: BillRunState = strawberry.field(description="How far it has come.")
    watermark: BigInt | None = strawberry.field(
        description="The last segment of the event log that counts; null until it is known."
    )
    invoices: int = strawberry.field(description="Invoices that it wrote.")
    parked: int = strawberry.field(description="Accounts that it refused to bill.")
    created_at: datetime = strawberry.field(description="When it was asked for.")
    finished_at: datetime | None = strawberry.field(description="When it was over.")
    failure: str | None = strawberry.field(description="Why it was given up.")

    @classmethod
    def from_row(cls, row: models.BillRun) -> Self:
        return cls(
            id=relay.global_id("BillRun", row.id),
            row_id=row.id,
            until=row.until,
            state=row.state,
            watermark=None if row.watermark is None else BigInt(row.watermark),
            invoices=row.invoices,
            parked=row.parked,
            created_at=row.created_at,
            finished_at=row.finished_at,
            failure=row.failure,
        )

    @field("The accounts that it refused to bill, with the reasons.")
    async def parked_accounts(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection[ParkedAccount]:
        return await children_in_pages(
            info.context,
            queries.PARKED_BY_RUN,
            self.row_id,
            first=first,
            after=after,
            of=ParkedAccount.from_row,
        )


@relay.fetched_by(queries.invoices_by_id)
@strawberry.type(description="What a customer owes for one period of one subscription.")
class Invoice(Node):
    row_id: strawberry.Private[UUID]
    bill_run_id: strawberry.Private[UUID]
    customer_id: strawberry.Private[UUID]
    subscription_id: strawberry.Private[UUID]
    state: InvoiceState = strawberry.field(description="Where it stands.")
    number: str | None = strawberry.field(description="Without gaps; given when it is final.")
    currency: str = strawberry.field(description="ISO 4217 code of all its amounts.")
    period_start: datetime = strawberry.field(description="The first moment of its period.")
    period_end: datetime = strawberry.field(description="The first moment after its period.")
    subtotal: Decimal = strawberry.field(description="Sum of the lines before discounts.")
    discount: Decimal = strawberry.field(description="Sum of the discounts.")
    tax: Decimal = strawberry.field(description="Tax on top of the lines.")
    total: Decimal = strawberry.field(description="Subtotal less discount plus tax.")
    from_wallet: Decimal = strawberry.field(
        description="Drawn from the wallet; on a draft, what would be."
    )
    amount_due: Decimal = strawberry.field(description="What is left to pay.")
    cogs: Decimal = strawberry.field(
        description="What serving the period's events cost us, as far as it is known."
    )
    uncosted_events: BigInt = strawberry.field(
        description="Events whose cost is unknown, or in another currency; they are not free."
    )
    created_at: datetime = strawberry.field(description="When it was first drafted.")
    finalized_at: datetime | None = strawberry.field(description="Since when it is final.")
    tax_failure: str | None = strawberry.field(description="Why it waits for its tax.")

    @classmethod
    def from_row(cls, row: models.Invoice) -> Self:
        return cls(
            id=relay.global_id("Invoice", row.id),
            row_id=row.id,
            bill_run_id=row.bill_run_id,
            customer_id=row.customer_id,
            subscription_id=row.subscription_id,
            state=row.state,
            number=row.number,
            currency=row.currency,
            period_start=row.period_start,
            period_end=row.period_end,
            subtotal=row.subtotal,
            discount=row.discount,
            tax=row.tax,
            total=row.total,
            from_wallet=row.from_wallet,
            amount_due=row.amount_due,
            cogs=row.cogs,
            uncosted_events=BigInt(row.uncosted_events),
            created_at=row.created_at,
            finalized_at=row.finalized_at,
            tax_failure=row.tax_failure,
        )

    @field("Who owes it.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)

    @field(
        "Events of its period that look like copies of others; null once it is final, and where "
        "the stage DEDUPLICATION is set not to look.",
        cost=20,
    )
    async def suspected_duplicates(self, info: Info) -> SuspectedDuplicates | None:
        if self.finalized_at is not None:
            return None
        return await suspects_of(info, self.customer_id, Period(self.period_start, self.period_end))

    @field("The subscription that is billed.")
    async def subscription(self, info: Info) -> CustomerSubscription:
        return await _subscription_of(info, self.subscription_id)

    @field("The bill run that wrote it.")
    async def bill_run(self, info: Info) -> BillRun:
        row = await info.context.load(queries.bill_runs_by_id, self.bill_run_id)
        assert row is not None, "a foreign key holds it"
        return BillRun.from_row(row)

    @field("Its lines: fees and usage, then discounts.")
    async def lines(self, info: Info) -> list[InvoiceLine]:
        rows = await info.context.load(queries.lines_by_invoice, self.row_id)
        return [InvoiceLine.from_row(row) for row in rows or ()]

    @field(
        "How to pay what is due, by the payment gateway in force. Null where nothing is due, "
        "where no gateway was chosen, and where it fails."
    )
    async def payment_instructions(self, info: Info) -> list[PaymentInstruction] | None:
        told = await info.context.load(instructions_by_invoice, self.row_id)
        return None if told is None else [PaymentInstruction.of(each) for each in told]

    @field("It in words, by an AI feature, from its own numbers; no model is asked.")
    async def explanation(
        self,
        info: Info,
        feature: Annotated[
            str, strawberry.argument(description="Key of an AI feature; see `aiFeatures`.")
        ],
    ) -> InvoiceExplanation | None:
        return await explanation_of(info, self.row_id, feature)

    @field("Its taxes.")
    async def taxes(self, info: Info) -> list[InvoiceTax]:
        rows = await info.context.load(queries.taxes_by_invoice, self.row_id)
        return [InvoiceTax.from_row(row) for row in rows or ()]


@strawberry.type
class BillingQuery:
    @field("The invoices.", needs=Permission.BILLING_READ)
    async def invoices(
        self,
        info: Info,
        *,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
        subscription_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this subscription's.")
        ] = None,
        state: Annotated[
            InvoiceState | None, strawberry.argument(description="Only those in this state.")
        ] = None,
        period: Annotated[
            PeriodInput | None,
            strawberry.argument(description="Only those whose own period starts in it."),
        ] = None,
        order_by: Annotated[
            InvoiceOrder, strawberry.argument(description="In what order they are listed.")
        ] = InvoiceOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Invoice]:
        listing = queries.invoices(
            customer_id=relay.optional_id("Customer", customer_id, field="customerId"),
            subscription_id=relay.optional_id(
                "CustomerSubscription", subscription_id, field="subscriptionId"
            ),
            state=state,
            period=period.to_period() if period else None,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Invoice.from_row
        )

    @field("The bill runs.", needs=Permission.BILLING_READ)
    async def bill_runs(
        self,
        info: Info,
        *,
        state: Annotated[
            BillRunState | None, strawberry.argument(description="Only those in this state.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[BillRun]:
        listing = queries.bill_runs(state=state, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=BillRun.from_row
        )


def _step(step: dict[str, str | None]) -> PriceStep:
    return PriceStep(
        label=step["label"] or "",
        quantity=_decimal(step.get("quantity")),
        unit_price=_decimal(step.get("unitPrice")),
        amount=Decimal(step["amount"] or 0),
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _cursor(event: SourceEvent) -> str:
    return cursor_at(event.occurred_at.isoformat(), event.event_id.hex)


def _position(cursor: str) -> tuple[datetime, UUID]:
    moment, event_id = cursor_parts(cursor, 2)
    try:
        return parse_moment(moment), UUID(event_id)
    except (GraphQLError, ValueError) as error:
        raise bad_cursor() from error


async def _subscription_of(info: Info, subscription_id: UUID) -> CustomerSubscription:
    row = await info.context.load(subscriptions_by_id, subscription_id)
    assert row is not None, "a foreign key holds it"
    return CustomerSubscription.from_row(row)
