"""A bill run that is killed at any point gives each invoice once, with the same numbers."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from aforo.billing import queries
from aforo.billing.commands import start_bill_run
from aforo.billing.models import BillRunState, LineKind
from aforo.sdk import TenantId
from aforo.storage.scope import Runtime
from aforo.subscriptions.models import BillingMode
from tests.billing.trade import (
    NOVEMBER,
    Buyer,
    RunJobs,
    Send,
    call,
    invoices_of,
    lines_of,
    open_trade,
    tax_everything,
)

pytestmark = pytest.mark.anyio

# Another process, with the clock of the test, that carries one run out.
BILL = """
import asyncio, sys
from datetime import datetime
from uuid import UUID
from aforo.billing.commands import bill
from aforo.plugins import load_registry
from aforo.settings import from_environment
from aforo.storage.clock import MovableClock
from aforo.storage.scope import open_runtime

async def main(tenant_id, bill_run_id, now):
    clock = MovableClock(datetime.fromisoformat(now))
    runtime = open_runtime(from_environment(), load_registry(), clock)
    async with runtime.scope(UUID(tenant_id)) as scope:
        await bill(scope, UUID(bill_run_id))

asyncio.run(main(*sys.argv[1:]))
"""


async def bill_elsewhere(
    runtime: Runtime, repository: Path, *arguments: object, fail_point: str
) -> int:
    """Carry a run out in a process that dies at a fail point; its exit code."""
    settings = runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        BILL,
        *map(str, arguments),
        cwd=repository,
        env=os.environ
        | {
            "AFORO_DATABASE_URL": settings.database_url,
            "AFORO_REDIS_URL": settings.redis_url,
            "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
            "AFORO_KEY_PEPPER": settings.key_pepper,
            "AFORO_FAILPOINTS": "1",
            "AFORO_FAILPOINT": fail_point,
        },
    )
    return await process.wait()


@pytest.mark.parametrize(
    "fail_point", ["bill.staged", "bill.indexed", "bill.written", "scope.committed"]
)
async def test_a_killed_run_is_done_once_with_the_numbers_of_its_watermark(
    *,
    runtime: Runtime,
    tenant_id: TenantId,
    send: Send,
    run_jobs: RunJobs,
    repository: Path,
    fail_point: str,
) -> None:
    buyers = [
        Buyer(name="a"),
        Buyer(name="b", mode=BillingMode.HYBRID, wallet="4"),
        Buyer(name="c", mode=BillingMode.PREPAID, wallet="4"),
    ]
    trade = await open_trade(runtime, tenant_id, buyers)
    await tax_everything(runtime, tenant_id, "0.10")
    await send(*(call(name) for name in "aabbbc"))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
    died = await bill_elsewhere(
        runtime, repository, tenant_id, run.id, scope_now(runtime), fail_point=fail_point
    )
    assert died == -signal.SIGKILL
    await send(*(call(name) for name in "abc"))  # Past the watermark of the run.
    await run_jobs()

    found = await invoices_of(runtime, tenant_id)
    numbers = {
        one.customer_id: (str(one.total), str(one.from_wallet), str(one.amount_due))
        for one in found
    }
    assert numbers == {
        trade.customers["a"]: ("11.02", "0.00", "11.02"),
        trade.customers["b"]: ("11.03", "4.00", "7.03"),
        trade.customers["c"]: ("11.01", "11.01", "0.00"),
    }
    assert sorted(str(one.number) for one in found) == ["INV-000001", "INV-000002", "INV-000003"]
    async with runtime.scope(tenant_id) as scope:
        done = (await queries.bill_runs_by_id(scope, [run.id]))[run.id]
        assert (done.state, done.invoices, done.parked) == (BillRunState.DONE, 3, 0)
        balances = await queries.wallet_balances(scope, list(trade.wallets.values()))
        assert sorted(map(str, balances.values())) == ["-7.01", "0"]
        for invoice in found:
            for line in await lines_of(runtime, tenant_id, invoice):
                if line.kind is LineKind.USAGE:
                    events = await queries.source_events(scope, line.id, first=100)
                    assert len(events) == line.event_count > 0


def scope_now(runtime: Runtime) -> str:
    """The moment of the test's clock."""
    return runtime.clock.now().isoformat()
