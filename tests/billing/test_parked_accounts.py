"""What a bill run refuses to bill: the account whose plugin fails, or whose lineage differs."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.api.parts import relay
from aforo.billing import accounts, queries
from aforo.billing.commands import fail, start_bill_run
from aforo.billing.models import BillRunState, InvoiceState
from aforo.catalog.models import RatePlanLine
from aforo.metering.queries import MeterUsage
from aforo.plugins import load_registry
from aforo.sdk import BillRunId, JobId, PricedLine, PricingModel, TenantId, Usage, hookimpl
from aforo.storage import queue
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName
from aforo.storage.scope import Runtime
from tests.billing.trade import (
    NOVEMBER,
    Buyer,
    RunJobs,
    Send,
    bill_now,
    call,
    invoices_of,
    lines_of,
    open_trade,
)
from tests.conftest import GraphQL

pytestmark = pytest.mark.anyio


class Moody(PricingModel):
    """Prices up to three calls, and fails beyond, in words that cannot be stored."""

    key = "acme.moody"
    summary = "Fails on large quantities"

    def price(self, usage: Usage) -> list[PricedLine]:
        if usage.quantity > 3:
            raise RuntimeError("too much for me\0\ud800" + "!" * 10_000)
        return [PricedLine("Calls", usage.quantity, usage.fraction)]


class Acme:
    @hookimpl
    def register_pricing_models(self) -> list[type[PricingModel]]:
        return [Moody]


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """The suite's, with a partner's plugin."""
    return dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))


async def reasons_of(runtime: Runtime, tenant_id: TenantId, run_id: Any) -> dict[Any, str]:
    async with runtime.scope(tenant_id) as scope:
        parked = (await queries.PARKED_BY_RUN.pages(scope, [run_id], first=100)).get(run_id, [])
    return {one.subscription_id: one.reason for one in parked}


async def test_a_failing_plugin_parks_its_account_and_the_others_are_billed(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    trade = await open_trade(
        runtime,
        tenant_id,
        [Buyer(name="a"), Buyer(name="b")],
        lines=[("fee", "FLAT", {"fee": "10"}), ("calls", "acme.moody", {})],
    )
    await send(*(call("a") for _ in range(4)), *(call("b") for _ in range(3)))
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.state, run.invoices, run.parked) == (BillRunState.DONE, 1, 1)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (invoice.customer_id, str(invoice.total)) == (trade.customers["b"], "13.00")
    reasons = await reasons_of(runtime, tenant_id, run.id)
    assert set(reasons) == {trade.subscriptions["a"]}
    assert "acme.moody" in reasons[trade.subscriptions["a"]]
    assert "too much for me  !!!" in reasons[trade.subscriptions["a"]]
    assert len(reasons[trade.subscriptions["a"]]) < 1_000


async def test_whoever_asked_for_a_run_is_told_what_it_refused_and_why(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, send: Send, graphql: GraphQL
) -> None:
    lines = [("calls", "acme.moody", {})]
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a")], lines=lines)
    await send(*(call("a") for _ in range(4)))
    run = await bill_now(runtime, tenant_id, run_jobs)
    document = """
    query($id: ID!) { node(id: $id) { ... on BillRun { state invoices parked
      parkedAccounts { edges { node { reason subscription { id } } } }
    } } }
    """
    told = (await graphql(document, id=relay.global_id("BillRun", run.id)))["node"]
    assert (told["state"], told["invoices"], told["parked"]) == ("DONE", 0, 1)
    [account] = [edge["node"] for edge in told["parkedAccounts"]["edges"]]
    assert "acme.moody" in account["reason"]
    refused = relay.global_id("CustomerSubscription", trade.subscriptions["a"])
    assert account["subscription"] == {"id": refused}


async def test_a_plugin_that_is_gone_parks_the_accounts_of_its_plans(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(
        runtime, tenant_id, [Buyer(name="a")], lines=[("calls", "acme.moody", {})], code="moody"
    )
    await open_trade(runtime, tenant_id, [Buyer(name="b")])
    bare = dataclasses.replace(runtime, plugins=load_registry())
    async with bare.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
    await worker.drain(bare, tenant_id)
    assert len(await invoices_of(runtime, tenant_id)) == 1
    (reason,) = (await reasons_of(runtime, tenant_id, run.id)).values()
    assert "acme.moody" in reason
    # Once it is installed again the account is billed by the next run.
    again = await bill_now(runtime, tenant_id, run_jobs)
    assert (again.invoices, again.parked) == (1, 0)
    assert len(await invoices_of(runtime, tenant_id)) == 2


async def test_settings_that_fit_no_more_park_the_account(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    rows = sa.select(RatePlanLine).where(col(RatePlanLine.model) == "PER_UNIT")

    class Stricter(PricingModel):
        key = "PER_UNIT"
        summary = "Wants more than it did"
        unit_price: str
        contract: str

        def price(self, usage: Usage) -> list[PricedLine]:
            raise NotImplementedError

    models = dict(runtime.plugins.pricing_models) | {"PER_UNIT": Stricter}
    changed = dataclasses.replace(
        runtime, plugins=dataclasses.replace(runtime.plugins, pricing_models=models)
    )
    async with changed.scope(tenant_id) as scope:
        assert (await scope.db.scalars(rows)).one().settings == {"unitPrice": "0.01"}
        run = await start_bill_run(scope, until=NOVEMBER)
    await worker.drain(changed, tenant_id)
    (reason,) = (await reasons_of(runtime, tenant_id, run.id)).values()
    assert "PER_UNIT" in reason
    assert "settings.contract" in reason
    assert await invoices_of(runtime, tenant_id) == []


@pytest.mark.parametrize("wrong", ["events", "xor"])
async def test_a_line_whose_lineage_differs_is_not_billed(
    *,
    runtime: Runtime,
    tenant_id: TenantId,
    send: Send,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a"), Buyer(name="b")])
    await send(call("a"), call("a"), call("b"))
    counted = accounts.usage_by_customer
    customer_id = trade.customers["a"]

    async def miscounted(*args: Any, **kwargs: Any) -> Any:
        usage: dict[Any, MeterUsage] = dict(await counted(*args, **kwargs))
        right = usage[customer_id]
        usage[customer_id] = dataclasses.replace(right, **{wrong: getattr(right, wrong) + 1})
        return usage

    monkeypatch.setattr(accounts, "usage_by_customer", miscounted)
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.invoices, run.parked) == (1, 1)
    (reason,) = (await reasons_of(runtime, tenant_id, run.id)).values()
    assert "lineage index" in reason
    assert [one.customer_id for one in await invoices_of(runtime, tenant_id)] == [
        trade.customers["b"]
    ]
    monkeypatch.undo()
    await bill_now(runtime, tenant_id, run_jobs)
    assert len(await invoices_of(runtime, tenant_id)) == 2


async def test_lines_of_all_meters_and_customers_are_indexed_in_batches(
    runtime: Runtime,
    tenant_id: TenantId,
    send: Send,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aforo.billing.lineage.LINES_PER_INSERT", 2)
    monkeypatch.setattr("aforo.billing.accounts.IDS_MAX", 2)
    per_unit = {"unitPrice": "0.01"}
    names = [f"c{number}" for number in range(5)]
    await open_trade(
        runtime,
        tenant_id,
        [Buyer(name=name) for name in names],
        lines=[("calls", "PER_UNIT", per_unit), ("tokens", "PER_UNIT", per_unit)],
    )
    await send(*(call(name, tokens=number) for number, name in enumerate(names)), call("c0"))
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.invoices, run.parked) == (5, 0)
    counts = [
        [one.event_count for one in await lines_of(runtime, tenant_id, invoice)]
        for invoice in await invoices_of(runtime, tenant_id)
    ]
    # Every call counts, tokens only where there are any.
    assert sorted(counts) == [[1, 1], [1, 1], [1, 1], [1, 1], [2, 1]]


async def test_the_values_of_events_reach_a_model_that_prices_each_of_them(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    settings = {"rate": "0.10", "minimumFee": "1", "maximumFee": "5", "scope": "EVENT"}
    await open_trade(
        runtime,
        tenant_id,
        [Buyer(name="a"), Buyer(name="b")],
        lines=[("value", "PERCENTAGE", settings)],
    )
    await send(call("a", value="2"), call("a", value="30"), call("a", value="900"))
    await bill_now(runtime, tenant_id, run_jobs)
    totals = sorted(str(one.total) for one in await invoices_of(runtime, tenant_id))
    assert totals == ["0.00", "9.00"]  # 1 + 3 + 5.


async def test_a_run_that_takes_its_worker_with_it_every_time_is_followed_by_another(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
        jobs = sa.select(col(Job.id)).where(col(Job.name) == JobName.BILL)
        job_id = JobId((await scope.db.scalars(jobs)).one())
    for _ in range(worker.JOBS[JobName.BILL].tries_max):
        assert await queue.lease(runtime, tenant_id, job_id, seconds=dict.fromkeys(JobName, 60))
        clock.advance(timedelta(seconds=61))
    await worker.execute(runtime, tenant_id, job_id)
    async with runtime.scope(tenant_id) as scope:
        failed = (await queries.bill_runs_by_id(scope, [run.id]))[run.id]
    assert (failed.state, failed.invoices) == (BillRunState.FAILED, 0)
    assert "its worker was gone" in (failed.failure or "")
    clock.advance(timedelta(hours=1))
    await run_jobs()
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert invoice.state is InvoiceState.FINALIZED


async def test_a_run_whose_job_has_failed_for_good_says_so_and_is_followed_by_another(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=NOVEMBER)
        await fail(scope, BillRunId(run.id), "Unavailable: ClickHouse cannot be reached")
    await run_jobs()  # The job that is still there finds a run that is over.
    assert await invoices_of(runtime, tenant_id) == []
    async with runtime.scope(tenant_id) as scope:
        failed = (await queries.bill_runs_by_id(scope, [run.id]))[run.id]
        assert failed.state is BillRunState.FAILED
        assert failed.failure == "Unavailable: ClickHouse cannot be reached"
    clock.advance(timedelta(hours=1))
    await run_jobs()
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert invoice.state is InvoiceState.FINALIZED
