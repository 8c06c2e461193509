"""Writes the invoices of a bill run: drafts anew, and those past their grace for good."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.billing.bill_runs import Outcome, Rated
from aforo.billing.models import (
    BillRun,
    Invoice,
    InvoiceLine,
    InvoiceSeries,
    InvoiceState,
    InvoiceTax,
    ParkedAccount,
)
from aforo.billing.published import published_invoice
from aforo.billing.rate import Step
from aforo.billing.settle import WalletState, settle
from aforo.billing.wallets import Held, Purse, draw, locked_wallets, open_wallets
from aforo.sdk import currency_exponent, exact, round_half_up
from aforo.storage.event_types import EventType
from aforo.storage.failpoints import reached
from aforo.storage.rows import one_of
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.subscriptions.models import BillingMode, Subscription

SERIES = "INV"
WRITTEN_AT_ONCE = 200
MOVED = (
    "the subscription was changed while the run was computing; nothing was billed, "
    "another run follows"
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has written."""

    invoices: int
    parked: int
    pending_tax: int
    moved: int
    """Of the parked: subscriptions that were changed meanwhile, for another run to bill."""


_Shown = tuple[InvoiceState, Decimal, Decimal]
"""What of an invoice makes its followers look: state, total, and what is due."""


@dataclass(frozen=True, slots=True)
class _Bill:
    """A bill with the row that it became, and what that row is to be."""

    rated: Rated
    state: InvoiceState
    row: Invoice
    before: _Shown | None
    """What was there; None for a new one."""

    @property
    def is_final(self) -> bool:
        return self.state is InvoiceState.FINALIZED

    @property
    def mode(self) -> BillingMode:
        return self.rated.subscription.billing_mode

    @property
    def purse(self) -> Purse:
        return self.rated.stretch.account.customer.id, self.row.currency


async def write(scope: Scope, run: BillRun, outcome: Outcome) -> Written:
    """Write all invoices of a run, as of the moment when it was started.

    An invoice whose grace is over gets its number and its drawdowns, and is final; one whose
    taxes are not known then is PENDING_TAX; every other one is a draft, whose lines replace those
    of an earlier run. Subscriptions, wallets and the series of numbers are locked in this order.
    """
    moved = await _moved(scope, outcome.rated)
    parked = {**outcome.parked, **dict.fromkeys(moved, MOVED)}
    overtaken = await _overtaken(scope, run, outcome.rated)
    rated = [one for one in outcome.rated if one.subscription.id not in moved | overtaken]
    await _drop_unlived(scope)
    states = _states(rated, at=run.created_at)
    written = await _write_drafts(scope, run, rated)
    rows = [row for row, _ in written]
    bills = [
        _Bill(one, state, row, before)
        for one, state, (row, before) in zip(rated, states, written, strict=True)
    ]
    await _settle(scope, bills, at=run.created_at)
    for one in bills:
        if one.is_final:
            one.rated.subscription.billed_until = one.rated.end
        else:
            one.row.state = one.state
    await _finalize(scope, [one.row for one in bills if one.is_final])
    scope.db.add_all(
        ParkedAccount(bill_run_id=run.id, subscription_id=subscription_id, reason=reason)
        for subscription_id, reason in sorted(parked.items())
    )
    await scope.db.flush()
    await _publish(scope, run, bills, parked)
    for one in bills:
        if _shown(one.row) != one.before:
            scope.live.announce("invoices", _told(one.row))
    reached("bill.written")
    return Written(
        invoices=len(rows),
        parked=len(parked),
        pending_tax=states.count(InvoiceState.PENDING_TAX),
        moved=len(moved),
    )


async def _moved(scope: Scope, rated: Sequence[Rated]) -> set[UUID]:
    """Lock the subscriptions; those that are no longer as they were rated."""
    held = {one.subscription.id: one.subscription for one in rated}
    rows = await scope.db.execute(
        sa.select(col(Subscription.id), col(Subscription.ends_at), col(Subscription.billed_until))
        .where(one_of(Subscription.id, held))
        .order_by(col(Subscription.id))
        .with_for_update()
    )
    return {
        subscription_id
        for subscription_id, ends_at, billed_until in rows
        if (ends_at, billed_until)
        != (held[subscription_id].ends_at, held[subscription_id].billed_until)
    }


async def _overtaken(scope: Scope, run: BillRun, rated: Sequence[Rated]) -> set[UUID]:
    """Subscriptions with drafts of a later run, which know of more events than this one: a run
    that was held up until after it must not set them back."""
    found = await scope.db.scalars(
        sa.select(col(Invoice.subscription_id)).where(
            col(Invoice.state) != InvoiceState.FINALIZED,
            col(Invoice.watermark) > run.watermark,
            one_of(Invoice.subscription_id, {one.subscription.id for one in rated}),
        )
    )
    return set(found)


async def _drop_unlived(scope: Scope) -> None:
    """Delete the drafts of periods that began when their subscription, by now, had ended."""
    unlived = await scope.db.scalars(
        sa.select(col(Invoice.id))
        .join(Subscription, col(Subscription.id) == col(Invoice.subscription_id))
        .where(
            col(Invoice.state) != InvoiceState.FINALIZED,
            col(Subscription.ends_at) <= col(Invoice.period_start),
        )
    )
    if ids := list(unlived):
        await _clear(scope, ids)
        await scope.db.execute(sa.delete(Invoice).where(one_of(Invoice.id, ids)))


def _states(rated: Sequence[Rated], *, at: datetime) -> list[InvoiceState]:
    """What each invoice becomes. After one that is not final no later one of its subscription is:
    a subscription is billed without gaps."""
    states: list[InvoiceState] = []
    open_ones: set[UUID] = set()
    for one in rated:
        grace_ends = one.end + timedelta(seconds=one.subscription.grace_seconds)
        if one.subscription.id in open_ones or at < grace_ends:
            states.append(InvoiceState.DRAFT)
        elif one.tax_failure is not None:
            states.append(InvoiceState.PENDING_TAX)
        else:
            states.append(InvoiceState.FINALIZED)
        if states[-1] is not InvoiceState.FINALIZED:
            open_ones.add(one.subscription.id)
    return states


async def _write_drafts(
    scope: Scope, run: BillRun, rated: Sequence[Rated]
) -> list[tuple[Invoice, _Shown | None]]:
    """The invoices with their lines and taxes, all still open: a final one takes no lines.

    With each, what was there before.
    """
    held = await _open_invoices(scope, rated)
    before = {row.id: _shown(row) for row in held.values()}
    await _clear(scope, [row.id for row in held.values()])
    rows = []
    for one in rated:
        row = held.get((one.subscription.id, one.start))
        if row is None:
            row = Invoice(id=new_id(), **_columns(run, one))
        else:
            for name, value in _columns(run, one).items():
                setattr(row, name, value)
        rows.append(row)
    scope.db.add_all(rows)
    await scope.db.flush()
    pairs = list(zip(rated, rows, strict=True))
    # In batches, so that other work of this process gets its turn between them.
    for start in range(0, len(pairs), WRITTEN_AT_ONCE):
        batch = pairs[start : start + WRITTEN_AT_ONCE]
        lines = [line for one, row in batch for line in _lines(one, row)]
        taxes = [tax for one, row in batch for tax in _taxes(one, row)]
        for table, values in ((InvoiceLine, lines), (InvoiceTax, taxes)):
            if values:
                await scope.db.execute(sa.insert(table), values)
    return [(row, before.get(row.id)) for row in rows]


async def _open_invoices(
    scope: Scope, rated: Sequence[Rated]
) -> dict[tuple[UUID, datetime], Invoice]:
    """The drafts that are there already, by what an invoice is unique by."""
    wanted = {(one.subscription.id, one.start) for one in rated}
    rows = await scope.db.scalars(
        sa.select(Invoice).where(
            col(Invoice.state) != InvoiceState.FINALIZED,
            one_of(Invoice.subscription_id, {one.subscription.id for one in rated}),
        )
    )
    found = {(row.subscription_id, row.period_start): row for row in rows}
    return {key: row for key, row in found.items() if key in wanted}


async def _clear(scope: Scope, invoice_ids: Collection[UUID]) -> None:
    for table in (InvoiceLine, InvoiceTax):
        await scope.db.execute(
            sa.delete(table).where(one_of(table.invoice_id, invoice_ids)),
            execution_options={"synchronize_session": False},
        )


def _columns(run: BillRun, one: Rated) -> dict[str, Any]:
    bill = one.bill
    return {
        "bill_run_id": run.id,
        "customer_id": one.stretch.account.customer.id,
        "subscription_id": one.subscription.id,
        "state": InvoiceState.DRAFT,
        "currency": bill.currency,
        "period_start": one.start,
        "period_end": one.end,
        "watermark": run.watermark,
        "subtotal": _money(bill.subtotal, bill.currency),
        "discount": _money(bill.discount, bill.currency),
        "tax": _money(bill.tax, bill.currency),
        "total": _money(bill.total, bill.currency),
        "from_wallet": _money(Decimal(0), bill.currency),
        "amount_due": _money(bill.total, bill.currency),
        "cogs": one.costs.amount,
        "uncosted_events": one.costs.uncosted_events,
        "tax_failure": one.tax_failure,
    }


def _lines(one: Rated, row: Invoice) -> list[dict[str, Any]]:
    return [
        {
            "id": line_id,
            "invoice_id": row.id,
            "position": position,
            "kind": line.kind,
            "code": line.code,
            "name": line.name,
            "rate_plan_line_id": line.rate_plan_line_id,
            "meter_id": line.meter_id,
            "discount_id": line.discount_id,
            "quantity": line.quantity,
            "unrounded": line.unrounded,
            "amount": _money(line.amount, row.currency),
            "discounted": _money(line.discounted, row.currency),
            "tax": _money(line.tax, row.currency),
            "tax_category": line.tax_category,
            "steps": [_step(step) for step in line.steps],
            "event_count": line.event_count,
            "event_xor": str(line.event_xor),
        }
        for position, (line_id, line) in enumerate(zip(one.line_ids, one.bill.lines, strict=True))
    ]


def _taxes(one: Rated, row: Invoice) -> list[dict[str, Any]]:
    return [
        {
            "id": new_id(),
            "invoice_id": row.id,
            "name": tax.name,
            "jurisdiction": tax.jurisdiction,
            "rate": tax.rate,
            "inclusive": tax.inclusive,
            "base": _money(tax.base, row.currency),
            "amount": _money(tax.amount, row.currency),
        }
        for tax in one.bill.taxes
    ]


def _step(step: Step) -> dict[str, str | None]:
    return {
        "label": step.label,
        "quantity": _plain(step.quantity),
        "unitPrice": _plain(step.unit_price),
        "amount": _plain(step.amount),
    }


async def _settle(scope: Scope, bills: Sequence[_Bill], *, at: datetime) -> None:
    """Stage 10: draw the wallets for the final invoices, and expect it for the others.

    The final ones come first; each takes from what the ones before it have left.
    """
    final = [one for one in bills if one.is_final]
    await open_wallets(scope, {one.purse for one in final if one.mode is BillingMode.PREPAID})
    wallets = await locked_wallets(
        scope, {one.purse for one in bills if one.mode is not BillingMode.POSTPAID}
    )
    for one in (*final, *(one for one in bills if not one.is_final)):
        held = wallets.get(one.purse)
        state = held.state if held else WalletState()
        settlement = settle(one.rated.bill.total, state, mode=one.mode, at=at)
        one.row.from_wallet = _money(settlement.from_wallet, one.row.currency)
        one.row.amount_due = _money(settlement.amount_due, one.row.currency)
        if held is None:
            continue
        wallets[one.purse] = Held(held.wallet_id, settlement.wallet)
        if one.is_final:
            await draw(scope, held.wallet_id, one.row, settlement.draws)


async def _finalize(scope: Scope, rows: Sequence[Invoice]) -> None:
    """Give the rows their numbers, without a gap: the series stays locked until the end."""
    if not rows:
        return
    await scope.db.execute(
        insert(InvoiceSeries)
        .values(id=new_id(), prefix=SERIES, next_number=1)
        .on_conflict_do_nothing()
    )
    series = await scope.db.scalar(
        sa.select(InvoiceSeries).where(col(InvoiceSeries.prefix) == SERIES).with_for_update()
    )
    assert series is not None, "it was made in the statement before"
    for number, row in enumerate(rows, start=series.next_number):
        row.number = f"{SERIES}-{number:06}"
        row.state = InvoiceState.FINALIZED
        row.finalized_at = scope.now
    series.next_number += len(rows)


async def _publish(
    scope: Scope, run: BillRun, bills: Sequence[_Bill], parked: Mapping[UUID, str]
) -> None:
    """Tell of drafts that are new, of invoices that are final, and of parked accounts."""
    drafted = [one.row for one in bills if one.before is None and not one.is_final]
    finalized = [one.row for one in bills if one.is_final]
    for kind, rows in (
        (EventType.INVOICE_DRAFTED, drafted),
        (EventType.INVOICE_FINALIZED, finalized),
    ):
        await scope.publish_all(kind, [(row.id, published_invoice(row)) for row in rows])
    await scope.publish_all(
        EventType.ACCOUNT_PARKED,
        [
            (one, {"subscription": one, "billRun": run.id, "reason": reason})
            for one, reason in sorted(parked.items())
        ],
    )


def _shown(row: Invoice) -> _Shown:
    return row.state, row.total, row.amount_due


def _told(row: Invoice) -> dict[str, Any]:
    return {"id": str(row.id), "customerId": str(row.customer_id), "state": row.state.name}


def _money(amount: Decimal, currency: str) -> Decimal:
    """An amount that is whole already, with the decimals of its currency: 0 reads 0.00."""
    return round_half_up(amount, currency_exponent(currency))


def _plain(number: Decimal | None) -> str | None:
    """The shortest plain text."""
    if number is None:
        return None
    with exact():
        return f"{number.normalize():f}"
