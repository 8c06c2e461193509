"""Bill runs on real engines: from events to invoices, drafts, numbers, lineage, the schedule."""

import random
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.billing import commands, queries
from aforo.billing.commands import bill, start_bill_run
from aforo.billing.models import BillRunState, Invoice, InvoiceLine, InvoiceState, LineKind
from aforo.sdk import BillRunId, Invalid, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
from aforo.subscriptions.models import BillingMode, Subscription
from tests.billing import reference
from tests.billing.offering import LINES
from tests.billing.trade import (
    DECEMBER,
    NOVEMBER,
    OCTOBER,
    Buyer,
    RunJobs,
    Send,
    bill_now,
    call,
    invoices_of,
    lines_of,
    open_trade,
    tax_everything,
)

pytestmark = pytest.mark.anyio


async def test_a_trace_is_billed_as_the_plain_calculation_says(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    seeded = random.Random(7)
    rows = [(seeded.randrange(20_000), seeded.randrange(900)) for _ in range(1200)]
    buyers = [
        Buyer(
            name=f"trace-{number}",
            mode=BillingMode.HYBRID
            if number < reference.HYBRID_CUSTOMERS
            else BillingMode.POSTPAID,
            wallet="10.00" if number < reference.HYBRID_CUSTOMERS else None,
        )
        for number in range(4)
    ]
    trade = await open_trade(runtime, tenant_id, buyers, lines=LINES, percent_off=10)
    await tax_everything(runtime, tenant_id, "0.0825")
    events = [
        call(f"trace-{index % 4}", input_tokens=row[0], output_tokens=str(row[1]))
        for index, row in enumerate(rows)
    ]
    for start in range(0, len(events), 500):
        await send(*events[start : start + 500])

    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.state, run.invoices, run.parked) == (BillRunState.DONE, 4, 0)
    invoices = {invoice.customer_id: invoice for invoice in await invoices_of(runtime, tenant_id)}
    for number in range(4):
        mine = rows[number::4]
        usage = reference.TraceUsage(sum(r[0] for r in mine), sum(r[1] for r in mine), len(mine))
        invoice = invoices[trade.customers[f"trace-{number}"]]
        assert await shown(runtime, tenant_id, number, invoice) == reference.bill_of(number, usage)


async def shown(
    runtime: Runtime, tenant_id: TenantId, number: int, invoice: Invoice
) -> dict[str, object]:
    """A stored invoice in the shape of the reference."""
    assert invoice.state is InvoiceState.FINALIZED
    lines = await lines_of(runtime, tenant_id, invoice)
    quantities = {line.code: line.quantity for line in lines if line.kind is LineKind.USAGE}
    return {
        "customer": f"trace-{number}",
        "usage": {
            code: int(quantity) if code == "requests" else str(quantity)
            for code, quantity in quantities.items()
        },
        "lines": {
            line.code: str(line.amount) for line in lines if line.kind is not LineKind.DISCOUNT
        },
        "subtotal": str(invoice.subtotal),
        "discount": str(invoice.discount),
        "tax": str(invoice.tax),
        "total": str(invoice.total),
        "fromWallet": str(invoice.from_wallet),
        "amountDue": str(invoice.amount_due),
        "cogs": str(invoice.cogs),
    }


async def test_numbers_have_no_gap_and_a_second_run_bills_nothing_again(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name=name) for name in "abc"])
    first = await bill_now(runtime, tenant_id, run_jobs)
    second = await bill_now(runtime, tenant_id, run_jobs)
    assert (first.invoices, second.invoices) == (3, 0)
    found = await invoices_of(runtime, tenant_id)
    assert sorted(invoice.number or "" for invoice in found) == [
        "INV-000001",
        "INV-000002",
        "INV-000003",
    ]
    async with runtime.scope(tenant_id) as scope:
        again = await bill(scope, BillRunId(first.id))
        assert again.finished_at == first.finished_at
    assert len(await invoices_of(runtime, tenant_id)) == 3


async def test_without_usage_there_are_lines_of_zero_and_without_an_engine_no_tax(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="idle")])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert [str(n) for n in (invoice.subtotal, invoice.tax, invoice.total)] == [
        "10.00",
        "0.00",
        "10.00",
    ]
    fee, calls = await lines_of(runtime, tenant_id, invoice)
    assert (fee.kind, str(fee.amount), fee.event_count) == (LineKind.FEE, "10.00", 0)
    assert (calls.kind, str(calls.amount), calls.event_count) == (LineKind.USAGE, "0.00", 0)


async def test_every_period_that_has_ended_is_billed_the_oldest_first(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    begun = OCTOBER + timedelta(days=15)
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=begun)])
    clock.move_to(DECEMBER + timedelta(days=3))
    await bill_now(runtime, tenant_id, run_jobs, until=DECEMBER + timedelta(days=3))
    found = await invoices_of(runtime, tenant_id)
    assert [(one.period_start, one.period_end, str(one.total)) for one in found] == [
        (begun, NOVEMBER, "5.16"),  # 16 of 31 days of 10.00.
        (NOVEMBER, DECEMBER, "10.00"),
    ]
    assert [one.number for one in found] == ["INV-000001", "INV-000002"]
    async with runtime.scope(tenant_id) as scope:
        subscription = await scope.db.scalar(
            sa.select(Subscription).where(col(Subscription.id) == trade.subscriptions["a"])
        )
        assert subscription is not None
        assert subscription.billed_until == DECEMBER


async def test_the_last_period_is_cut_where_the_subscription_ended(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a")])
    async with runtime.scope(tenant_id) as scope:
        ends_at = NOVEMBER + timedelta(days=3)
        await end_subscription(scope, subscription_id=trade.subscriptions["a"], ends_at=ends_at)
    await send(call("a", at=NOVEMBER + timedelta(days=1)))
    await bill_now(runtime, tenant_id, run_jobs, until=NOVEMBER + timedelta(days=10))
    found = await invoices_of(runtime, tenant_id)
    assert [(one.period_end, str(one.total)) for one in found] == [
        (NOVEMBER, "10.00"),
        (ends_at, "1.01"),  # 3 of 30 days of 10.00, and a call.
    ]
    await bill_now(runtime, tenant_id, run_jobs, until=NOVEMBER + timedelta(days=10))
    assert len(await invoices_of(runtime, tenant_id)) == 2


async def test_a_period_that_still_runs_is_not_billed(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER)])
    run = await bill_now(runtime, tenant_id, run_jobs, until=clock.now())
    assert (run.state, run.invoices) == (BillRunState.DONE, 0)
    assert await invoices_of(runtime, tenant_id) == []


async def test_a_run_cannot_reach_into_the_future(runtime: Runtime, tenant_id: TenantId) -> None:
    with pytest.raises(Invalid, match="still to come") as refused:
        async with runtime.scope(tenant_id) as scope:
            await start_bill_run(scope, until=scope.now + timedelta(seconds=1))
    assert refused.value.field == "until"
    async with runtime.scope(tenant_id) as scope:
        assert await queries.bill_runs().page(scope, first=10) == []


async def test_an_invoice_is_a_draft_until_its_grace_is_over_and_late_events_enter(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a", grace_seconds=3600)])
    clock.move_to(NOVEMBER + timedelta(minutes=10))
    await send(call("a"))
    await bill_now(runtime, tenant_id, run_jobs)
    (draft,) = await invoices_of(runtime, tenant_id)
    assert (draft.state, draft.number, str(draft.total)) == (InvoiceState.DRAFT, None, "10.01")

    await send(call("a"), call("a"))
    clock.move_to(NOVEMBER + timedelta(minutes=59))
    await bill_now(runtime, tenant_id, run_jobs)
    (later,) = await invoices_of(runtime, tenant_id)
    assert (later.id, later.state, str(later.total)) == (draft.id, InvoiceState.DRAFT, "10.03")
    assert len(await lines_of(runtime, tenant_id, later)) == 2

    await send(call("a"))
    clock.move_to(NOVEMBER + timedelta(hours=1))
    await bill_now(runtime, tenant_id, run_jobs)
    (final,) = await invoices_of(runtime, tenant_id)
    assert (final.id, final.state) == (draft.id, InvoiceState.FINALIZED)
    assert (final.number, str(final.total)) == ("INV-000001", "10.04")
    assert final.finalized_at == clock.now()


async def test_a_final_invoice_cannot_be_touched(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    before = await lines_of(runtime, tenant_id, invoice)
    await send(call("a"))  # Late for its period.
    await bill_now(runtime, tenant_id, run_jobs)
    for statement in (
        sa.update(Invoice).values(total=0),
        sa.delete(Invoice),
        sa.update(InvoiceLine).values(amount=0),
        sa.delete(InvoiceLine),
    ):
        # No right to do it at all, or no row that may be touched.
        with suppress(sa.exc.ProgrammingError):
            async with runtime.scope(tenant_id) as scope:
                await scope.db.execute(statement)
    assert await invoices_of(runtime, tenant_id) == [invoice]
    assert await lines_of(runtime, tenant_id, invoice) == before


async def test_events_that_were_acknowledged_before_a_run_are_in_it(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await send(*(call("a") for _ in range(5)))
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
        assert run.watermark is None
    # The events are still in the inbox: the run puts itself off instead of billing without them.
    async with runtime.scope(tenant_id) as scope:
        waiting = await bill(scope, BillRunId(run.id))
        assert (waiting.state, waiting.watermark) == (BillRunState.QUEUED, None)
    assert await invoices_of(runtime, tenant_id) == []
    clock.advance(timedelta(seconds=2))
    await run_jobs()
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (invoice.state, str(invoice.total)) == (InvoiceState.FINALIZED, "10.05")


async def test_events_that_come_after_the_watermark_was_stored_are_not_in_the_run(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await send(call("a"))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
        assert run.watermark is not None
    await send(call("a"))
    await run_jobs()
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (str(invoice.total), invoice.watermark) == ("10.01", run.watermark)


async def test_two_runs_at_once_give_each_invoice_once(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name=name) for name in "abcd"])
    runs = []
    for _ in range(2):
        async with runtime.scope(tenant_id) as scope:
            runs.append(await start_bill_run(scope, until=NOVEMBER))
    async with runtime.scope(tenant_id) as one, runtime.scope(tenant_id) as other:
        first = await bill(one, BillRunId(runs[0].id))
        second = await bill(other, BillRunId(runs[1].id))
        assert (first.state, second.state) == (BillRunState.DONE, BillRunState.QUEUED)
    clock.advance(timedelta(seconds=2))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        found = await queries.bill_runs().page(scope, first=10)
    assert [(run.state, run.invoices) for run in found] == [
        (BillRunState.DONE, 4),
        (BillRunState.DONE, 0),
    ]
    numbers = {invoice.number for invoice in await invoices_of(runtime, tenant_id)}
    assert numbers == {f"INV-{number:06}" for number in range(1, 5)}


async def test_a_subscription_that_ends_while_a_run_computes_is_not_billed_past_its_end(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a"), Buyer(name="b")])
    ends_at = NOVEMBER - timedelta(days=1)
    compute = commands.compute

    async def interrupted(*args: Any, **kwargs: Any) -> Any:
        outcome = await compute(*args, **kwargs)
        async with runtime.scope(tenant_id) as other:
            await end_subscription(other, subscription_id=trade.subscriptions["a"], ends_at=ends_at)
        return outcome

    monkeypatch.setattr(commands, "compute", interrupted)
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.invoices, run.parked) == (1, 1)
    monkeypatch.setattr(commands, "compute", compute)
    await bill_now(runtime, tenant_id, run_jobs)
    found = {one.customer_id: one.period_end for one in await invoices_of(runtime, tenant_id)}
    assert found == {trade.customers["a"]: ends_at, trade.customers["b"]: NOVEMBER}
