"""Reads of invoices: their lines, steps and source events, filters, and other tenants."""

from datetime import timedelta
from decimal import Decimal

import pytest

from aforo.billing import queries
from aforo.billing.commands import bill
from aforo.billing.models import InvoiceState
from aforo.sdk import BillRunId, NotFound, Period, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant
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
)

pytestmark = pytest.mark.anyio


async def test_lines_lead_to_their_events_page_by_page(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a"), Buyer(name="b")])
    sent = [call("a", at=OCTOBER + timedelta(hours=index // 2)) for index in range(7)]
    await send(*sent, *(call("b") for _ in range(3)))
    await bill_now(runtime, tenant_id, run_jobs)
    found = await invoices_of(runtime, tenant_id)
    async with runtime.scope(tenant_id) as scope:
        lines = await queries.lines_by_invoice(scope, [one.id for one in found])
        by_count = {line.event_count: line for each in lines.values() for line in each}
        keys: list[str] = []
        after = None
        while page := await queries.source_events(scope, by_count[7].id, after=after, first=3):
            keys += [event.idempotency_key for event in page]
            after = (page[-1].occurred_at, page[-1].event_id)
        assert sorted(keys) == sorted(event["idempotencyKey"] for event in sent)
        assert len(await queries.source_events(scope, by_count[3].id, first=100)) == 3
        assert await queries.source_events(scope, by_count[0].id, first=100) == []
        assert await queries.source_events(scope, new_id(), first=100) == []


async def test_steps_show_the_walk_through_the_price(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")], lines=LINES, percent_off=10)
    await send(call("a", input_tokens=150_000, output_tokens=10))
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    lines = {line.code: line for line in await lines_of(runtime, tenant_id, invoice)}
    assert lines["input_tokens"].steps == [
        {"label": "Up to 100,000", "quantity": "100000", "unitPrice": "0.000003", "amount": "0.3"},
        {
            "label": "Above 100,000 up to 1,000,000",
            "quantity": "50000",
            "unitPrice": "0.0000025",
            "amount": "0.125",
        },
    ]
    assert (lines["input_tokens"].unrounded, str(lines["input_tokens"].amount)) == (
        Decimal("0.425"),
        "0.43",
    )
    assert lines["plan-off"].steps == [
        {"label": "Off", "quantity": "20.43", "unitPrice": "-0.1", "amount": "-2.043"}
    ]


async def test_invoices_are_found_by_customer_state_and_period(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a"), Buyer(name="b")])
    clock.move_to(DECEMBER)
    await bill_now(runtime, tenant_id, run_jobs, until=DECEMBER)
    async with runtime.scope(tenant_id) as scope:
        everything = await queries.invoices().page(scope, first=10)
        assert len(everything) == 4
        page = await queries.invoices().page(scope, first=3)
        rest = await queries.invoices().page(scope, after=page[-1].id, first=3)
        assert page + rest == everything
        mine = await queries.invoices(customer_id=trade.customers["a"]).page(scope, first=10)
        assert {one.customer_id for one in mine} == {trade.customers["a"]}
        assert len(mine) == 2
        october = Period(OCTOBER, NOVEMBER)
        assert {
            one.period_start for one in await queries.invoices(period=october).page(scope, first=10)
        } == {OCTOBER}
        assert await queries.invoices(state=InvoiceState.DRAFT).page(scope, first=10) == []


async def test_what_belongs_to_another_tenant_is_not_there(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a", wallet="5")])
    await send(call("a"))
    run = await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    line = (await lines_of(runtime, tenant_id, invoice))[1]
    other = TenantId((await create_tenant(runtime, name="Other")).tenant.tenant_id)
    async with runtime.scope(other) as scope:
        assert await queries.invoices().page(scope, first=10) == []
        assert await queries.invoices_by_id(scope, [invoice.id]) == {}
        assert await queries.lines_by_invoice(scope, [invoice.id]) == {invoice.id: []}
        assert await queries.source_events(scope, line.id, first=10) == []
        assert not (await queries.PARKED_BY_RUN.pages(scope, [run.id], first=10)).get(run.id)
        refusals = []
        for bill_run_id in (run.id, new_id()):
            with pytest.raises(NotFound) as refused:
                await bill(scope, BillRunId(bill_run_id))
            refusals.append(str(refused.value))
        assert refusals[0] == refusals[1]
