"""Stage 9 on real engines: engines that answer, that are down, and that fail."""

import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import ClassVar

import anyio
import pytest

from aforo.billing import queries, taxes
from aforo.billing.commands import set_tax_engine
from aforo.billing.models import InvoiceState
from aforo.plugins import load_registry
from aforo.sdk import (
    AppliedTax,
    Invalid,
    NotFound,
    TaxEngine,
    TaxRequest,
    TaxUnavailable,
    TenantId,
    hookimpl,
)
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.billing.trade import (
    Buyer,
    RunJobs,
    bill_now,
    invoices_of,
    lines_of,
    open_trade,
    tax_everything,
)

pytestmark = pytest.mark.anyio


class Staged(TaxEngine):
    """Does what the test says, call by call."""

    key = "acme.tax"
    summary = "For tests"

    fault: ClassVar[BaseException | None] = None
    slow: ClassVar[bool] = False
    wrong: ClassVar[bool] = False
    asked: ClassVar[list[TaxRequest]] = []

    async def quote(self, request: TaxRequest) -> Sequence[AppliedTax]:
        type(self).asked.append(request)
        if self.slow:
            await anyio.sleep_forever()
        if self.fault is not None:
            raise self.fault
        line_ids = ("nowhere",) if self.wrong else tuple(line.id for line in request.lines)
        return [
            AppliedTax(
                name="Sales tax",
                jurisdiction="US-CA",
                rate=Decimal("0.10"),
                inclusive=False,
                line_ids=line_ids,
            )
        ]


class Acme:
    @hookimpl
    def register_tax_engines(self) -> list[type[TaxEngine]]:
        return [Staged]


@pytest.fixture
async def runtime(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The suite's, with a tax engine that obeys the test."""
    for name, value in (("fault", None), ("slow", False), ("wrong", False), ("asked", [])):
        monkeypatch.setattr(Staged, name, value)
    return dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))


async def choose(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id) as scope:
        await set_tax_engine(scope, engine="acme.tax", settings={})


async def test_an_engine_is_asked_about_every_line_and_its_answer_is_kept(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")], percent_off=10)
    await choose(runtime, tenant_id)
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert [str(n) for n in (invoice.subtotal, invoice.discount, invoice.tax, invoice.total)] == [
        "10.00",
        "1.00",
        "0.90",
        "9.90",
    ]
    async with runtime.scope(tenant_id) as scope:
        (tax,) = (await queries.taxes_by_invoice(scope, [invoice.id]))[invoice.id]
    assert (tax.name, tax.jurisdiction, str(tax.base), str(tax.amount)) == (
        "Sales tax",
        "US-CA",
        "9.00",
        "0.90",
    )
    taxes_of_lines = [line.tax for line in await lines_of(runtime, tenant_id, invoice)]
    assert sum(taxes_of_lines) == invoice.tax
    (request,) = Staged.asked
    assert (request.currency, request.date) == ("USD", date(2026, 10, 31))
    assert [line.net for line in request.lines] == [9, 0]


@pytest.mark.parametrize(
    "fault", [TaxUnavailable("the vendor is down"), TimeoutError(), ConnectionResetError()]
)
async def test_an_engine_that_is_down_leaves_the_invoice_waiting_and_is_asked_again(
    *,
    runtime: Runtime,
    tenant_id: TenantId,
    run_jobs: RunJobs,
    clock: MovableClock,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await choose(runtime, tenant_id)
    monkeypatch.setattr(Staged, "fault", fault)
    await bill_now(runtime, tenant_id, run_jobs)
    (waiting,) = await invoices_of(runtime, tenant_id)
    assert (waiting.state, waiting.number) == (InvoiceState.PENDING_TAX, None)
    assert waiting.tax_failure

    clock.advance(timedelta(minutes=5))
    await run_jobs()
    assert [one.state for one in await invoices_of(runtime, tenant_id)] == [
        InvoiceState.PENDING_TAX
    ]
    monkeypatch.setattr(Staged, "fault", None)
    clock.advance(timedelta(minutes=5))
    await run_jobs()
    (final,) = await invoices_of(runtime, tenant_id)
    assert (final.id, final.state, final.number) == (
        waiting.id,
        InvoiceState.FINALIZED,
        "INV-000001",
    )
    assert (str(final.tax), final.tax_failure) == ("1.00", None)


async def test_an_engine_that_does_not_answer_is_not_waited_for_forever(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name=f"c{number}") for number in range(5)])
    await choose(runtime, tenant_id)
    monkeypatch.setattr(Staged, "slow", True)
    monkeypatch.setattr(taxes, "ANSWER_TIMEOUT_SECONDS", 0.01)
    await bill_now(runtime, tenant_id, run_jobs)
    states = [one.state for one in await invoices_of(runtime, tenant_id)]
    assert states == [InvoiceState.PENDING_TAX] * 5
    assert len(Staged.asked) == 3


async def test_periods_after_one_that_waits_for_its_tax_stay_drafts(
    runtime: Runtime,
    tenant_id: TenantId,
    run_jobs: RunJobs,
    clock: MovableClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await choose(runtime, tenant_id)
    clock.advance(timedelta(days=30))
    monkeypatch.setattr(Staged, "fault", TaxUnavailable("down"))
    await bill_now(runtime, tenant_id, run_jobs, until=clock.now())
    assert [one.state for one in await invoices_of(runtime, tenant_id)] == [
        InvoiceState.PENDING_TAX,
        InvoiceState.DRAFT,
    ]
    monkeypatch.setattr(Staged, "fault", None)
    await bill_now(runtime, tenant_id, run_jobs, until=clock.now())
    assert [(one.state, one.number) for one in await invoices_of(runtime, tenant_id)] == [
        (InvoiceState.FINALIZED, "INV-000001"),
        (InvoiceState.FINALIZED, "INV-000002"),
    ]


@pytest.mark.parametrize("how", ["fault", "wrong"])
async def test_an_engine_that_fails_parks_the_account_with_its_name(
    runtime: Runtime,
    tenant_id: TenantId,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await choose(runtime, tenant_id)
    monkeypatch.setattr(Staged, how, {"fault": ZeroDivisionError(), "wrong": True}[how])
    run = await bill_now(runtime, tenant_id, run_jobs)
    assert (run.invoices, run.parked) == (0, 1)
    assert await invoices_of(runtime, tenant_id) == []
    async with runtime.scope(tenant_id) as scope:
        (parked,) = (await queries.PARKED_BY_RUN.pages(scope, [run.id], first=10))[run.id]
    assert "'acme.tax'" in parked.reason


async def test_the_engine_chosen_last_is_in_force(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    await choose(runtime, tenant_id)
    await tax_everything(runtime, tenant_id, "0.0825")
    async with runtime.scope(tenant_id) as scope:
        chosen = await queries.tax_settings(scope)
        assert chosen is not None
        assert chosen.engine == "manual"
        assert chosen.settings["rates"][0]["rate"] == "0.0825"
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert str(invoice.tax) == "0.83"


async def test_an_inclusive_tax_is_listed_and_changes_no_total(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a")])
    async with runtime.scope(tenant_id) as scope:
        rates = [{"name": "VAT", "rate": "0.25", "inclusive": True}]
        await set_tax_engine(scope, engine="manual", settings={"rates": rates})
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (str(invoice.tax), str(invoice.total)) == ("0.00", "10.00")
    async with runtime.scope(tenant_id) as scope:
        (tax,) = (await queries.taxes_by_invoice(scope, [invoice.id]))[invoice.id]
    assert (str(tax.base), str(tax.amount), tax.inclusive) == ("8.00", "2.00", True)


async def test_wrong_choices_are_refused_and_change_nothing(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    for engine, settings, error, field in (
        ("acme.none", {}, NotFound, "engine"),
        ("manual", {"rates": [{"name": "Tax", "rate": 0.1}]}, Invalid, "settings.rates.0.rate"),
        ("manual", {"rates": [{"name": "T\0", "rate": "0.1"}]}, Invalid, "settings"),
        ("manual", {"rate": "0.1"}, Invalid, "settings.rate"),
    ):
        with pytest.raises(error) as refused:
            async with runtime.scope(tenant_id) as scope:
                await set_tax_engine(scope, engine=engine, settings=settings)
        assert refused.value.field == field
    async with runtime.scope(tenant_id) as scope:
        assert await queries.tax_settings(scope) is None
