"""Reads how one event passed all ten stages: to the lines of invoices that stand on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.billing.models import (
    BillRun,
    Invoice,
    InvoiceLine,
    InvoiceState,
    InvoiceTax,
    LineKind,
)
from aforo.catalog.models import RatePlan, RatePlanLine
from aforo.metering import traces
from aforo.metering.passing import LATER, Step, not_reached
from aforo.metering.queries import EventRow, moment
from aforo.metering.stored import hash_of_key
from aforo.metering.traces import Trace
from aforo.stages.queries import versions_at
from aforo.stages.registry import StageName
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Subscription

_OF_BILLING = LATER[2:]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that stands on the event, with what is said of it."""

    line: InvoiceLine
    invoice: Invoice
    plan: RatePlan
    model: str
    mode: str
    at: datetime
    """When the bill run was started."""

    @property
    def called(self) -> str:
        """The invoice, for people."""
        return f"invoice {self.invoice.number}" if self.invoice.number else "a draft"


class _Said(NamedTuple):
    """What is said of a line in one stage."""

    decision: str
    reason: str
    passed: bool | None = True


async def trace_in_log(
    scope: Scope, *, customer_id: UUID, event_type: str, occurred_at: datetime, key: str
) -> Sequence[Step]:
    """The steps of an event of the log, in the order of the stages."""
    trace = await traces.trace_in_log(
        scope, customer_id=customer_id, event_type=event_type, occurred_at=occurred_at, key=key
    )
    return await _whole(scope, trace)


async def trace_of_quarantined(scope: Scope, event_id: UUID) -> Sequence[Step]:
    """The steps of an event that is, or was, quarantined."""
    return await _whole(scope, await traces.trace_of_quarantined(scope, event_id))


async def _whole(scope: Scope, trace: Trace) -> Sequence[Step]:
    if trace.event is None:
        return trace.steps
    if not trace.meters:
        reason = "no meter counts it, so there is nothing to bill"
        return [*trace.steps, *not_reached(_OF_BILLING, reason)]
    lines = await _lines(scope, trace.event)
    if not lines:
        reason = (
            "another event took its place, or voided it, before it was billed"
            if trace.is_superseded
            else await _why_not(scope, trace.event, trace.meters)
        )
        return [*trace.steps, *not_reached(_OF_BILLING, reason)]
    taxes = await _taxes(scope, [each.invoice.id for each in lines])
    discounts = await _discounts(scope, [each.invoice.id for each in lines])
    steps = list(trace.steps)
    for each in lines:
        versions = await versions_at(scope, each.at)
        steps += [
            Step(
                stage=stage,
                passed=said.passed,
                decision=said.decision,
                reason=said.reason,
                settings_version=versions[stage],
                at=each.at,
                invoice_line_id=each.line.id,
            )
            for stage, said in (
                (StageName.RATING, _rated(each)),
                (StageName.DISCOUNTING, _discounted(each, discounts.get(each.invoice.id, []))),
                (StageName.TAXATION, _taxed(each, taxes.get(each.invoice.id, []))),
                (StageName.SETTLEMENT, _settled(each)),
            )
        ]
    order = list(StageName)
    return sorted(steps, key=lambda step: order.index(step.stage)) if len(lines) > 1 else steps


def _rated(line: _Line) -> _Said:
    return _Said(
        "RATED",
        f"line {line.line.code} of {line.called}, priced by {line.model} of rate plan "
        f"{line.plan.code} version {line.plan.version}",
    )


def _discounted(line: _Line, names: Sequence[str]) -> _Said:
    if not line.line.discounted:
        return _Said("NO_DISCOUNT", "no discount takes anything off its line")
    return _Said("DISCOUNTED", f"its line has its share of {', '.join(names)}")


def _taxed(line: _Line, names: Sequence[str]) -> _Said:
    if line.invoice.tax_failure:
        reason = f"the tax engine gave no answer: {line.invoice.tax_failure}"
        return _Said("PENDING", reason, passed=None)
    if not line.line.tax:
        return _Said("NO_TAX", "there is no tax on its line")
    return _Said("TAXED", f"its line has its share of {', '.join(names)}")


def _settled(line: _Line) -> _Said:
    invoice = line.invoice
    if invoice.state is not InvoiceState.FINALIZED:
        return _Said("EXPECTED", f"{line.mode}: the invoice is not final yet", passed=None)
    drawn = "the wallet was drawn" if invoice.from_wallet else "no wallet was drawn"
    due = "the rest is due" if invoice.amount_due else "nothing is due"
    return _Said("SETTLED", f"{line.mode}: invoice {invoice.number} is final, {drawn}, {due}")


async def _lines(scope: Scope, event: EventRow) -> list[_Line]:
    """The lines whose lineage holds the event. Only those of invoices over its moment can."""
    rows = await scope.db.execute(
        sa.select(InvoiceLine, Invoice, RatePlan, RatePlanLine, Subscription, BillRun)
        .join(Invoice, col(Invoice.id) == col(InvoiceLine.invoice_id))
        .join(RatePlanLine, col(RatePlanLine.id) == col(InvoiceLine.rate_plan_line_id))
        .join(RatePlan, col(RatePlan.id) == col(RatePlanLine.rate_plan_id))
        .join(Subscription, col(Subscription.id) == col(Invoice.subscription_id))
        .join(BillRun, col(BillRun.id) == col(Invoice.bill_run_id))
        .where(*_over(event), col(InvoiceLine.kind) == LineKind.USAGE)
        .order_by(col(Invoice.id), col(InvoiceLine.position))
    )
    found = {
        line.id: _Line(line, invoice, plan, price.model, subscription.billing_mode, run.created_at)
        for line, invoice, plan, price, subscription, run in rows
    }
    if not found:
        return []
    held = await scope.events.query(
        "SELECT DISTINCT invoice_line_id FROM bill_run_event_index_of(tenant = {tenant:UUID}) "
        "WHERE bill_run_id IN {runs:Array(UUID)} AND invoice_line_id IN {lines:Array(UUID)} "
        "AND occurred_at = {at:DateTime64(6, 'UTC')} AND key_hash = unhex({key_hash:String})",
        runs=[str(each.invoice.bill_run_id) for each in found.values()],
        lines=[str(line_id) for line_id in found],
        at=moment(event.occurred_at),
        key_hash=hash_of_key(event.idempotency_key).hex(),
    )
    wanted = {row["invoice_line_id"] for row in held}
    return [line for line_id, line in found.items() if line_id in wanted]


async def _why_not(scope: Scope, event: EventRow, meters: frozenset[UUID]) -> str:
    """Why no line stands on an event that a meter counts."""
    invoices = list(await scope.db.scalars(sa.select(Invoice).where(*_over(event))))
    if not invoices:
        return "its period has not been billed yet"
    priced = await scope.db.scalar(
        sa.select(sa.func.count())
        .select_from(InvoiceLine)
        .where(
            col(InvoiceLine.invoice_id).in_([each.id for each in invoices]),
            col(InvoiceLine.meter_id).in_(meters),
        )
    )
    if not priced:
        return "no line of the rate plan prices a meter that counts it"
    final = [each.number for each in invoices if each.state is InvoiceState.FINALIZED]
    if final:
        return f"it came after invoice {final[0]} of its period was final"
    return "it came after the last bill run over its period"


def _over(event: EventRow) -> tuple[sa.ColumnElement[bool], ...]:
    """The invoices of its customer over its moment."""
    return (
        col(Invoice.customer_id) == event.customer_id,
        col(Invoice.period_start) <= event.occurred_at,
        col(Invoice.period_end) > event.occurred_at,
    )


async def _taxes(scope: Scope, invoice_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    rows = await scope.db.scalars(
        sa.select(InvoiceTax)
        .where(col(InvoiceTax.invoice_id).in_(invoice_ids))
        .order_by(col(InvoiceTax.id))
    )
    found: dict[UUID, list[str]] = {}
    for row in rows:
        found.setdefault(row.invoice_id, []).append(row.name)
    return found


async def _discounts(scope: Scope, invoice_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    rows = await scope.db.scalars(
        sa.select(InvoiceLine)
        .where(
            col(InvoiceLine.invoice_id).in_(invoice_ids),
            col(InvoiceLine.kind) == LineKind.DISCOUNT,
        )
        .order_by(col(InvoiceLine.position))
    )
    found: dict[UUID, list[str]] = {}
    for row in rows:
        found.setdefault(row.invoice_id, []).append(row.name)
    return found
