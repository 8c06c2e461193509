"""What changes between two bill runs, or during one: ends of subscriptions, later runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aforo import worker
from aforo.billing import commands
from aforo.billing.commands import bill, start_bill_run
from aforo.billing.models import InvoiceState
from aforo.sdk import BillRunId, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
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

JANUARY, MARCH = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
GRACE_SECONDS = 30 * 24 * 3600


async def test_drafts_of_periods_that_were_not_lived_go(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    clock.move_to(MARCH + timedelta(hours=6))
    buyers = [
        Buyer(name=name, starts_at=JANUARY, grace_seconds=GRACE_SECONDS) for name in ("a", "b")
    ]
    trade = await open_trade(runtime, tenant_id, buyers)
    await bill_now(runtime, tenant_id, run_jobs, until=MARCH)
    assert len(await invoices_of(runtime, tenant_id)) == 4
    ended = JANUARY + timedelta(days=31 / 2)
    async with runtime.scope(tenant_id) as scope:
        await end_subscription(scope, subscription_id=trade.subscriptions["a"], ends_at=ended)
    await run_jobs()
    left = {
        (one.customer_id, one.period_start, one.period_end): one
        for one in await invoices_of(runtime, tenant_id)
    }
    january = left[trade.customers["a"], JANUARY, ended]
    assert (january.state, str(january.total)) == (InvoiceState.FINALIZED, "5.00")
    assert [customer_id for customer_id, _, _ in left].count(trade.customers["a"]) == 1
    assert len(left) == 3


async def test_a_subscription_that_ends_while_a_run_computes_is_billed_by_the_next_at_once(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a"), Buyer(name="b")])
    await run_jobs()
    compute = commands.compute

    async def interrupted(*args: Any, **kwargs: Any) -> Any:
        outcome = await compute(*args, **kwargs)
        monkeypatch.undo()
        async with runtime.scope(tenant_id) as other:
            await end_subscription(
                other, subscription_id=trade.subscriptions["a"], ends_at=DECEMBER
            )
        return outcome

    monkeypatch.setattr(commands, "compute", interrupted)
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.invoices, run.parked) == (1, 1)
    found = await invoices_of(runtime, tenant_id)
    assert {one.customer_id for one in found} == set(trade.customers.values())
    for one in found:
        assert (one.state, one.period_start, one.period_end) == (
            InvoiceState.FINALIZED,
            OCTOBER,
            NOVEMBER,
        )
        assert [str(line.amount) for line in await lines_of(runtime, tenant_id, one)] == [
            "10.00",
            "0.00",
        ]


async def test_a_run_that_was_held_up_sets_no_draft_of_a_later_one_back(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    await open_trade(
        runtime,
        tenant_id,
        [Buyer(name="a", grace_seconds=GRACE_SECONDS), Buyer(name="b")],
        lines=[("calls", "PER_UNIT", {"unitPrice": "1"})],
    )
    await send(call("a"))
    assert await worker.seal_all(runtime)
    async with runtime.scope(tenant_id) as scope:
        held_up = await start_bill_run(scope, until=NOVEMBER)
    await send(call("a"))
    assert await worker.seal_all(runtime)
    async with runtime.scope(tenant_id) as scope:
        later = await start_bill_run(scope, until=NOVEMBER)
    for run in (later, held_up):
        async with runtime.scope(tenant_id) as scope:
            await bill(scope, BillRunId(run.id))
    await run_jobs()
    totals = {
        (one.state, str(one.total), one.bill_run_id)
        for one in await invoices_of(runtime, tenant_id)
    }
    assert totals == {
        (InvoiceState.DRAFT, "2.00", later.id),
        (InvoiceState.FINALIZED, "0.00", later.id),
    }
