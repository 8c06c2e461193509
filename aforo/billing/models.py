"""Tables of bill runs, invoices and wallets."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.tables import (
    BY_CUSTOMER,
    Portal,
    TenantTable,
    belongs_to,
    choice,
    exact,
    json,
    moment,
)


class BillRunState(StrEnum):
    """How far a bill run has come."""

    QUEUED = "QUEUED"
    DONE = "DONE"
    FAILED = "FAILED"


class InvoiceState(StrEnum):
    """The life of an invoice."""

    DRAFT = "DRAFT"
    PENDING_TAX = "PENDING_TAX"
    FINALIZED = "FINALIZED"


class LineKind(StrEnum):
    """What a line of an invoice stands for."""

    FEE = "FEE"
    USAGE = "USAGE"
    DISCOUNT = "DISCOUNT"


class InvoiceOrder(StrEnum):
    """Orders of invoices."""

    OLDEST_FIRST = "id"
    NEWEST_FIRST = "id desc"
    PERIOD_START_ASC = "period_start"
    PERIOD_START_DESC = "period_start desc"


class BillRun(TenantTable, table=True):
    """One execution of stages 6 to 10 over every period that had ended by `until`."""

    __tablename__ = "bill_run"
    __table_args__ = (sa.Index("bill_run_by_state", "tenant_id", "state", "id"),)

    until: datetime = moment()
    state: BillRunState = choice(BillRunState, default=BillRunState.QUEUED)
    received: int = Field(sa_type=sa.BigInteger)
    """Place in the inbox of the last event that was acknowledged before the run."""
    watermark: int | None = Field(default=None, sa_type=sa.BigInteger)
    """The last confirmed segment that counts; stored before rating, so a repeat rates the same.
    None as long as events that were acknowledged before the run are on their way into the log."""
    invoices: int = 0
    parked: int = 0
    finished_at: datetime | None = moment(default=None)
    failure: str | None = None


class ParkedAccount(TenantTable, table=True):
    """A subscription that a bill run refused to bill, and why."""

    __tablename__ = "parked_account"
    __table_args__ = (
        sa.Index("parked_account_by_run", "tenant_id", "bill_run_id", "id"),
        belongs_to("bill_run", "bill_run_id"),
        belongs_to("subscription", "subscription_id"),
    )

    bill_run_id: UUID
    subscription_id: UUID
    reason: str


class Invoice(TenantTable, table=True):
    """What a customer owes for one period of one subscription. Immutable once finalised."""

    __tablename__ = "invoice"
    __portal__ = BY_CUSTOMER
    __table_args__ = (
        belongs_to("bill_run", "bill_run_id"),
        belongs_to("customer", "customer_id"),
        belongs_to("subscription", "subscription_id"),
        sa.UniqueConstraint("tenant_id", "subscription_id", "period_start"),
        sa.UniqueConstraint("tenant_id", "number"),
        sa.Index("invoice_by_customer", "tenant_id", "customer_id", "id"),
        sa.Index("invoice_by_state", "tenant_id", "state", "id"),
        sa.Index("invoice_by_period_start", "tenant_id", "period_start", "id"),
        sa.Index(
            "invoice_open",
            "tenant_id",
            "subscription_id",
            postgresql_where=sa.text("state <> 'FINALIZED'"),
        ),
    )

    bill_run_id: UUID
    customer_id: UUID
    subscription_id: UUID
    state: InvoiceState = choice(InvoiceState, default=InvoiceState.DRAFT)
    number: str | None = None
    """Gapless per tenant; given at finalisation."""
    currency: str = Field(max_length=3)
    period_start: datetime = moment()
    period_end: datetime = moment()
    watermark: int = Field(sa_type=sa.BigInteger)
    subtotal: Decimal = exact()
    """Sum of the rounded fee and usage lines, before discounts."""
    discount: Decimal = exact()
    tax: Decimal = exact()
    """Tax that comes on top; inclusive tax is inside the lines and listed with the taxes."""
    total: Decimal = exact()
    from_wallet: Decimal = exact()
    """Drawn from the wallet; on a draft, what would be drawn."""
    amount_due: Decimal = exact()
    cogs: Decimal = exact()
    """What serving the period's events cost us, in `currency`, as far as it is known."""
    uncosted_events: int = 0
    """Events of the period whose cost is unknown, or in another currency; never free."""
    finalized_at: datetime | None = moment(default=None)
    tax_failure: str | None = None
    """Why the tax engine gave no answer, while the invoice is PENDING_TAX."""


class InvoiceLine(TenantTable, table=True):
    """One line: its unrounded amount, its rounded amount, and the events that it stands on."""

    __tablename__ = "invoice_line"
    __portal__ = Portal("invoice_id", "invoice")
    __table_args__ = (
        belongs_to("invoice", "invoice_id"),
        sa.UniqueConstraint("tenant_id", "invoice_id", "position"),
    )

    invoice_id: UUID
    position: int
    kind: LineKind = choice(LineKind)
    code: str
    name: str
    rate_plan_line_id: UUID | None = None
    meter_id: UUID | None = None
    discount_id: UUID | None = None
    quantity: Decimal = exact()
    unrounded: Decimal = exact()
    amount: Decimal = exact()
    """Rounded once, HALF_UP, to the currency's exponent; negative for a discount."""
    discounted: Decimal = exact(default=Decimal(0))
    """The share of the invoice's discounts that was allocated to this line."""
    tax: Decimal = exact(default=Decimal(0))
    tax_category: str | None = None
    steps: list[dict[str, Any]] = json(default_factory=list)
    """The walk through the price: label, quantity, unit price and amount of each step."""
    event_count: int = 0
    """Events behind the line, as the lineage index holds them."""
    event_xor: str = "0"
    """XOR of those events' hashes, decimal."""


class InvoiceTax(TenantTable, table=True):
    """One tax of an invoice: its rate on the sum of its base."""

    __tablename__ = "invoice_tax"
    __portal__ = Portal("invoice_id", "invoice")
    __table_args__ = (belongs_to("invoice", "invoice_id"),)

    invoice_id: UUID
    name: str
    jurisdiction: str
    rate: Decimal = exact()
    inclusive: bool
    base: Decimal = exact()
    amount: Decimal = exact()


class InvoiceSeries(TenantTable, table=True):
    """The next number of a tenant's invoices; one row per tenant and series."""

    __tablename__ = "invoice_series"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "prefix"),)

    prefix: str
    next_number: int = 1


class TaxSettings(TenantTable, table=True):
    """The tax engine that a tenant chose, with its settings; the latest row is in force."""

    __tablename__ = "tax_settings"

    engine: str
    settings: dict[str, Any] = json(default_factory=dict)


class PaymentGatewaySettings(TenantTable, table=True):
    """The payment gateway that a tenant chose, with its settings; the latest row is in force."""

    __tablename__ = "payment_gateway_settings"

    gateway: str
    settings: dict[str, Any] = json(default_factory=dict)


class Wallet(TenantTable, table=True):
    """Prepaid value of a customer in one currency: its grants, less what its entries drew."""

    __tablename__ = "wallet"
    __portal__ = BY_CUSTOMER
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "currency"),
    )

    customer_id: UUID
    currency: str = Field(max_length=3)
    name: str


class WalletGrant(TenantTable, table=True):
    """One credited lot of value."""

    __tablename__ = "wallet_grant"
    __portal__ = Portal("wallet_id", "wallet")
    __table_args__ = (
        belongs_to("wallet", "wallet_id"),
        sa.Index("wallet_grant_by_wallet", "tenant_id", "wallet_id", "id"),
        sa.UniqueConstraint("tenant_id", "wallet_id", "reference"),
    )

    wallet_id: UUID
    amount: Decimal = exact()
    priority: int = 50
    """0 is drawn first, 100 last."""
    expires_at: datetime | None = moment(default=None)
    reference: str | None = None
    """The tenant's own name for the credit: a wallet is credited under it only once."""


class WalletEntry(TenantTable, table=True):
    """A drawdown, append-only: what an invoice took from a grant, or took on as debt."""

    __tablename__ = "wallet_entry"
    __portal__ = Portal("wallet_id", "wallet")
    __table_args__ = (
        belongs_to("wallet", "wallet_id"),
        belongs_to("wallet_grant", "grant_id"),
        belongs_to("invoice", "invoice_id"),
        sa.Index("wallet_entry_by_wallet", "tenant_id", "wallet_id"),
    )

    wallet_id: UUID
    grant_id: UUID | None = None
    """None: no grant was left, the wallet owes this amount."""
    invoice_id: UUID | None = None
    """None: a new grant repaid that much of a debt."""
    amount: Decimal = exact()
    """Drawn from the grant, or added to the debt; negative where a debt is repaid."""
