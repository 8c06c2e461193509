"""Reads invoices with their lines and source events, bill runs, wallets, and accruals."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.billing.accounts import Stretch, count_costs, count_usage, load_accounts
from aforo.billing.accrue import accrue
from aforo.billing.explain import facts_of
from aforo.billing.models import (
    BillRun,
    BillRunState,
    Invoice,
    InvoiceLine,
    InvoiceOrder,
    InvoiceState,
    InvoiceTax,
    ParkedAccount,
    TaxSettings,
    Wallet,
    WalletGrant,
)
from aforo.billing.settle import WalletState
from aforo.billing.taxes import tax_settings
from aforo.billing.wallets import wallet_states
from aforo.metering.aggregate import EVENTS
from aforo.metering.queries import IN_PERIOD, moment
from aforo.sdk import CustomerId, InvoiceFacts, Period, PluginError, exact
from aforo.storage.listing import PAGE_MAX, AgeOrder, Children, Listing, equal
from aforo.storage.rows import one_of, rows_by_id
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Customer, Subscription
from aforo.subscriptions.periods import PeriodPart, part_at

__all__ = ["tax_settings", "wallet_states"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEvent:
    """One event that an invoice line stands on."""

    event_id: UUID
    idempotency_key: str
    type: str
    customer_id: UUID
    subscription_id: UUID
    occurred_at: datetime
    received_at: datetime
    properties: str
    """Canonical JSON."""
    cost: Decimal | None
    """COGS in `cost_currency`; None is UNKNOWN_COST."""
    cost_currency: str
    supersedes: str
    """The key of the event whose place it takes; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accrual:
    """What a customer has brought in and cost in the billing period that is running."""

    currency: str
    revenue: Decimal
    """Net of discounts, before tax, to 12 decimals."""
    cogs: Decimal
    """Known costs in `currency`."""
    uncosted_events: int
    """Events whose cost is unknown, or in another currency; never free."""
    period: Period


def invoices(
    *,
    customer_id: UUID | None = None,
    subscription_id: UUID | None = None,
    state: InvoiceState | None = None,
    period: Period | None = None,
    order: InvoiceOrder = InvoiceOrder.NEWEST_FIRST,
) -> Listing[Invoice]:
    """The invoices that meet all conditions; `period` keeps those whose own begins in it."""
    where = (
        *equal(Invoice.customer_id, customer_id),
        *equal(Invoice.subscription_id, subscription_id),
        *equal(Invoice.state, state),
    )
    if period is not None:
        start = col(Invoice.period_start)
        where += (start >= period.start, start < period.end)
    return Listing(Invoice, where, order)


async def invoices_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Invoice]:
    return await rows_by_id(scope, Invoice, ids)


async def lines_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, InvoiceLine]:
    return await rows_by_id(scope, InvoiceLine, ids)


async def lines_by_invoice(
    scope: Scope, invoice_ids: Collection[UUID]
) -> dict[UUID, list[InvoiceLine]]:
    """Each invoice's lines in order: fees and usage, then discounts."""
    rows = await scope.db.scalars(
        sa.select(InvoiceLine)
        .where(col(InvoiceLine.invoice_id).in_(invoice_ids))
        .order_by(col(InvoiceLine.invoice_id), col(InvoiceLine.position))
    )
    lines: dict[UUID, list[InvoiceLine]] = {invoice_id: [] for invoice_id in invoice_ids}
    for row in rows:
        lines[row.invoice_id].append(row)
    return lines


async def taxes_by_invoice(
    scope: Scope, invoice_ids: Collection[UUID]
) -> dict[UUID, list[InvoiceTax]]:
    """Each invoice's taxes, in the order in which the engine gave them."""
    rows = await scope.db.scalars(
        sa.select(InvoiceTax)
        .where(col(InvoiceTax.invoice_id).in_(invoice_ids))
        .order_by(col(InvoiceTax.invoice_id), col(InvoiceTax.id))
    )
    taxes: dict[UUID, list[InvoiceTax]] = {invoice_id: [] for invoice_id in invoice_ids}
    for row in rows:
        taxes[row.invoice_id].append(row)
    return taxes


async def source_events(
    scope: Scope,
    line_id: UUID,
    *,
    after: tuple[datetime, UUID] | None = None,
    first: int,
) -> list[SourceEvent]:
    """A page of the events behind an invoice line, by time and id; empty if there is no such line.

    `after` is the time and id of the last event on the page before.
    """
    assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
    invoice = await scope.db.scalar(
        sa.select(Invoice)
        .join(InvoiceLine, col(InvoiceLine.invoice_id) == col(Invoice.id))
        .where(col(InvoiceLine.id) == line_id)
    )
    if invoice is None:
        return []
    position: dict[str, Any] = {}
    if after is not None:
        position = {"after_time": moment(after[0]), "after_id": str(after[1])}
    page = f"{_PAGE_OF_INDEX}{_PAST if after else ''}{_IN_ORDER}"
    rows = await scope.events.query(
        f"{_EVENTS_OF_PAGE}({page}) {_IN_ORDER}",
        line=str(line_id),
        bill_run=str(invoice.bill_run_id),
        customer=str(invoice.customer_id),
        start=moment(invoice.period_start),
        end=moment(invoice.period_end),
        watermark=invoice.watermark,
        first=first,
        **position,
    )
    return [SourceEvent(**row) for row in rows]


# The page is cut from the index first: the log is then read for its few events alone.
_PAGE_OF_INDEX = (
    "SELECT occurred_at, key_hash FROM bill_run_event_index_of(tenant = {tenant:UUID}) "
    "WHERE bill_run_id = {bill_run:UUID} AND invoice_line_id = {line:UUID} "
)
_PAST = "AND (occurred_at, event_id) > ({after_time:DateTime64(6, 'UTC')}, {after_id:UUID}) "
_IN_ORDER = "ORDER BY occurred_at, event_id LIMIT {first:UInt32}"
_EVENTS_OF_PAGE = (
    "SELECT event_id, idempotency_key, type, customer_id, subscription_id, occurred_at, "
    f"received_at, properties, cost, cost_currency, supersedes FROM {EVENTS} "
    f"WHERE customer_id = {{customer:UUID}} AND {IN_PERIOD} AND (occurred_at, key_hash) IN "
)


def bill_runs(
    *, state: BillRunState | None = None, order: AgeOrder = AgeOrder.OLDEST_FIRST
) -> Listing[BillRun]:
    """The bill runs, or those in a state."""
    return Listing(BillRun, equal(BillRun.state, state), order)


async def bill_runs_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, BillRun]:
    return await rows_by_id(scope, BillRun, ids)


PARKED_BY_RUN = Children(ParkedAccount, "bill_run_id")
"""What each bill run refused to bill, with the reasons."""


async def wallets_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Wallet]:
    return await rows_by_id(scope, Wallet, ids)


WALLETS_BY_CUSTOMER = Children(Wallet, "customer_id")


async def wallet_balances(scope: Scope, wallet_ids: Collection[UUID]) -> dict[UUID, Decimal]:
    """What unexpired grants have left at this moment, less the debt; below 0 is a debt."""
    states: dict[UUID, WalletState] = await wallet_states(scope, wallet_ids)
    return {wallet_id: state.balance(scope.now) for wallet_id, state in states.items()}


async def grants_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, WalletGrant]:
    return await rows_by_id(scope, WalletGrant, ids)


GRANTS_BY_WALLET = Children(WalletGrant, "wallet_id")


async def invoice_facts(scope: Scope, invoice_id: UUID) -> InvoiceFacts | None:
    """What an AI feature may know of an invoice; None where there is no such invoice."""
    found = (
        await scope.db.execute(
            sa.select(Invoice, Customer)
            .join(Customer, col(Customer.id) == col(Invoice.customer_id))
            .where(col(Invoice.id) == invoice_id)
        )
    ).one_or_none()
    if found is None:
        return None
    invoice, customer = found
    lines = (await lines_by_invoice(scope, [invoice_id]))[invoice_id]
    return facts_of(invoice, lines, customer_name=customer.name, time_zone=customer.time_zone)


async def tax_settings_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, TaxSettings]:
    return await rows_by_id(scope, TaxSettings, ids)


async def accrued(
    scope: Scope, *, customer_ids: Sequence[UUID], watermark: int, at: datetime
) -> dict[CustomerId, Accrual]:
    """What each customer's subscriptions have accrued in the period of `at`, up to that moment.

    A customer's subscriptions are added up, those in the currency of the oldest; the period is
    the oldest's. Customers without an active subscription are absent, and so is one whose pricing
    model fails, which the log tells: the others' margins are not to wait for it.
    """
    stretches = await _running(scope, customer_ids, at)
    counted = await count_usage(scope, stretches, watermark=watermark)
    costs = await count_costs(scope, stretches, watermark=watermark)
    accruals: dict[CustomerId, Accrual] = {}
    failed: set[CustomerId] = set()
    for stretch, usage, cost in zip(stretches, counted, costs, strict=True):
        account, customer_id = stretch.account, CustomerId(stretch.account.customer.id)
        try:
            if account.fault is not None:
                raise PluginError(account.fault)  # noqa: TRY301
            revenue = accrue(
                account.prices.charges,
                usage,
                currency=account.currency,
                part=stretch.part,
                at=at,
                discounts=account.discounts,
            )
        except PluginError as error:
            log.warning("no accrual", customer_id=str(customer_id), error=str(error))
            failed.add(customer_id)
            continue
        known = cost.within(account.currency)
        mine = Accrual(
            currency=account.currency,
            revenue=revenue,
            cogs=known.amount,
            uncosted_events=known.uncosted_events,
            period=stretch.part.whole,
        )
        accruals[customer_id] = _added(accruals.get(customer_id), mine)
    return {key: accrual for key, accrual in accruals.items() if key not in failed}


async def _running(scope: Scope, customer_ids: Collection[UUID], at: datetime) -> list[Stretch]:
    """The active subscriptions of some customers in the period of a moment, the oldest first."""
    ends_at = col(Subscription.ends_at)
    rows = await scope.db.scalars(
        sa.select(Subscription)
        .where(
            one_of(Subscription.customer_id, customer_ids),
            col(Subscription.starts_at) <= at,
            sa.or_(ends_at.is_(None), ends_at > at),
        )
        .order_by(col(Subscription.starts_at), col(Subscription.id))
    )
    return [
        Stretch(account, _part(account.subscription, account.customer, at))
        for account in await load_accounts(scope, list(rows))
    ]


def _part(subscription: Subscription, customer: Customer, at: datetime) -> PeriodPart:
    return part_at(
        anchor_day=subscription.anchor_day,
        time_zone=customer.time_zone,
        starts_at=subscription.starts_at,
        ends_at=subscription.ends_at,
        at=at,
    )


def _added(before: Accrual | None, more: Accrual) -> Accrual:
    if before is None:
        return more
    if before.currency != more.currency:
        return before
    with exact():
        return Accrual(
            currency=before.currency,
            revenue=before.revenue + more.revenue,
            cogs=before.cogs + more.cogs,
            uncosted_events=before.uncosted_events + more.uncosted_events,
            period=before.period,
        )
