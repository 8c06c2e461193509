"""The figures of a window, read from invoices, subscriptions and events on real engines."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from aforo.billing.models import BillRun, BillRunState, Invoice, InvoiceState, InvoiceTax
from aforo.reports.queries import RevenueSummary, customer_margins, revenue_summary
from aforo.sdk import Invalid
from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
from aforo.tenants.commands import create_tenant
from tests.shop import STARTS_AT, Shop, call, open_shop

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
Run = Callable[[], Awaitable[None]]

MONTH_END = datetime(2026, 12, 1, tzinfo=UTC)


async def add_invoice(
    runtime: Runtime,
    tenant_id: TenantId,
    shop: Shop,
    *,
    customer: str = "acme",
    currency: str = "USD",
    subtotal: str = "100",
    discount: str = "0",
    inclusive_tax: str | None = None,
    cogs: str = "0",
    due: str | None = None,
    period_end: datetime = MONTH_END,
    state: InvoiceState = InvoiceState.FINALIZED,
) -> None:
    """An invoice as billing leaves it; its tax of 19 % on top is no revenue either."""
    async with runtime.scope(tenant_id) as scope:
        run = BillRun(until=period_end, state=BillRunState.DONE, received=0, watermark=0)
        scope.db.add(run)
        await scope.db.flush()
        net = Decimal(subtotal) - Decimal(discount)
        invoice = Invoice(
            bill_run_id=run.id,
            customer_id=shop.customers[customer],
            subscription_id=shop.subscriptions[customer],
            currency=currency,
            period_start=period_end - timedelta(days=30),
            period_end=period_end,
            watermark=0,
            subtotal=Decimal(subtotal),
            discount=Decimal(discount),
            tax=net * Decimal("0.19"),
            total=net * Decimal("1.19"),
            from_wallet=Decimal(0),
            amount_due=net * Decimal("1.19") if due is None else Decimal(due),
            cogs=Decimal(cogs),
        )
        scope.db.add(invoice)
        await scope.db.flush()
        if inclusive_tax is not None:
            scope.db.add(
                InvoiceTax(
                    invoice_id=invoice.id,
                    name="VAT",
                    jurisdiction="DE",
                    rate=Decimal("0.07"),
                    inclusive=True,
                    base=net,
                    amount=Decimal(inclusive_tax),
                )
            )
            await scope.db.flush()
        invoice.state = state
        await scope.db.flush()


async def summary_of(
    runtime: Runtime,
    tenant_id: TenantId,
    *,
    start: datetime = STARTS_AT,
    end: datetime = MONTH_END,
) -> list[RevenueSummary]:
    """The figures of a window; and each currency's must be the sum of its customers'."""
    async with runtime.scope(tenant_id) as scope:
        rows = await revenue_summary(scope, start=start, end=end)
        margins = await customer_margins(scope, start=start, end=end)
    for row in rows:
        own = [one for one in margins if one.currency == row.currency]
        for name in ("invoiced_revenue", "expected_revenue", "cogs"):
            assert sum((getattr(one, name) for one in own), Decimal(0)) == getattr(row, name)
    assert {one.currency for one in margins} <= {row.currency for row in rows}
    return rows


async def test_a_tenant_without_anything_has_no_figures(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    assert await summary_of(runtime, tenant_id) == []


async def test_revenue_is_net_of_discounts_and_of_every_tax(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill", "chime", "dune"))
    await add_invoice(runtime, tenant_id, shop, cogs="30.005")
    await add_invoice(
        runtime, tenant_id, shop, customer="brill", subtotal="107", discount="20", cogs="20.005"
    )
    await add_invoice(
        runtime, tenant_id, shop, customer="chime", subtotal="107", inclusive_tax="7", cogs="0.004"
    )
    await add_invoice(
        runtime,
        tenant_id,
        shop,
        customer="dune",
        subtotal="50",
        cogs="9",
        due="0",
        state=InvoiceState.PENDING_TAX,
    )
    (row,) = await summary_of(runtime, tenant_id)
    assert row.currency == "USD"
    assert row.as_of == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert str(row.invoiced_revenue) == "287.00"
    assert str(row.expected_revenue) == "50.00"
    assert str(row.cogs) == "50.01"
    assert row.margin == Decimal("0.825749")
    assert str(row.outstanding) == "349.86"  # 1.19 times 100, 87 and 107.

    async with runtime.scope(tenant_id) as scope:
        margins = await customer_margins(scope, start=STARTS_AT, end=MONTH_END)
    by_name = {
        name: one
        for name, customer_id in shop.customers.items()
        for one in margins
        if one.customer_id == customer_id
    }
    # 50.014 is 50.01: the cent that rounding down leaves over goes to one of the two halves.
    assert sorted(str(one.cogs) for one in margins) == ["0.00", "0.00", "20.00", "30.01"]
    assert by_name["acme"].margin == Decimal("0.6999")
    assert by_name["dune"].margin is None


# period end | in the window of November
WINDOWS = """
    2026-11-01T00:00:00+00:00 | no
    2026-11-01T00:00:01+00:00 | yes
    2026-12-01T00:00:00+00:00 | yes
    2026-12-01T00:00:01+00:00 | no
"""


@pytest.mark.parametrize("row", WINDOWS.strip().splitlines())
async def test_a_month_shows_the_invoices_whose_period_ended_in_it_or_with_it(
    runtime: Runtime, tenant_id: TenantId, row: str
) -> None:
    period_end, inside = (cell.strip() for cell in row.split("|"))
    shop = await open_shop(runtime, tenant_id)
    await add_invoice(
        runtime, tenant_id, shop, period_end=datetime.fromisoformat(period_end), cogs="60"
    )
    (figures,) = await summary_of(runtime, tenant_id)
    assert figures.invoiced_revenue == (100 if inside == "yes" else 0)
    assert figures.cogs == (60 if inside == "yes" else 0)
    assert figures.margin == (Decimal("0.4") if inside == "yes" else None)
    assert figures.outstanding == 119  # Whenever its period ended.


async def test_currencies_stand_beside_each_other_and_are_never_added(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    dollars = await open_shop(runtime, tenant_id, name="dollars", fee="19.99")
    yen = await open_shop(
        runtime, tenant_id, name="yen", customers=("sakura", "ume"), currency="JPY", fee="1001"
    )
    await add_invoice(runtime, tenant_id, dollars, cogs="1.005")
    await add_invoice(
        runtime, tenant_id, yen, customer="sakura", currency="JPY", subtotal="1001", cogs="600.5"
    )
    in_yen, in_dollars = await summary_of(runtime, tenant_id)
    assert (in_yen.currency, in_dollars.currency) == ("JPY", "USD")
    assert (str(in_yen.invoiced_revenue), str(in_yen.cogs)) == ("1001", "601")
    assert (str(in_dollars.invoiced_revenue), str(in_dollars.cogs)) == ("100.00", "1.01")
    assert (in_yen.active_subscriptions, in_yen.active_customers) == (2, 2)
    assert (str(in_yen.mrr), str(in_yen.arr), str(in_yen.arpu)) == ("2002", "24024", "1001")
    assert (str(in_dollars.mrr), str(in_dollars.arr)) == ("19.99", "239.88")


async def test_recurring_revenue_is_net_of_discounts_and_counts_who_is_active_then(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    await open_shop(runtime, tenant_id, customers=("acme", "brill"), fee="100")
    reduced = await open_shop(
        runtime, tenant_id, name="reduced", customers=("chime", "dune"), fee="49.99", percent_off=15
    )
    (row,) = await summary_of(runtime, tenant_id)
    assert (row.mrr, row.arr) == (Decimal("284.98"), Decimal("3419.76"))  # 2 × 100 + 2 × 42.49
    assert (row.active_subscriptions, row.active_customers) == (4, 4)
    assert row.arpu == Decimal("71.25")

    async with runtime.scope(tenant_id) as scope:
        await end_subscription(scope, subscription_id=reduced.subscriptions["dune"])
    (row,) = await summary_of(runtime, tenant_id)
    assert (row.mrr, row.active_subscriptions) == (Decimal("242.49"), 3)

    before = clock.now() - timedelta(hours=1)
    (row,) = await summary_of(runtime, tenant_id, end=before)
    assert (row.mrr, row.active_subscriptions) == (Decimal("284.98"), 4)
    assert (
        await summary_of(
            runtime,
            tenant_id,
            start=STARTS_AT - timedelta(days=30),
            end=STARTS_AT - timedelta(days=1),
        )
        == []
    )


async def test_costs_in_a_currency_that_the_customer_does_not_pay_in_are_shown_apart(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id, name="euros", currency="EUR", cost_currency="USD")
    await open_shop(runtime, tenant_id, name="dollars", customers=("brill",))
    await open_shop(runtime, tenant_id, name="free", customers=("chime",), unit_cost=None)
    await send(
        call("12.345", name="euros"),
        call("0.001", name="euros"),
        call(5, name="dollars", customer="brill"),
        call(7, name="free", customer="chime"),
        call(100, name="euros", at=STARTS_AT),
    )
    await run_jobs()
    in_euros, in_dollars = await summary_of(
        runtime, tenant_id, start=STARTS_AT + timedelta(seconds=1)
    )
    assert (in_euros.unattributed_cogs, in_euros.uncosted_events) == (0, 0)
    assert str(in_dollars.unattributed_cogs) == "12.35"
    assert in_dollars.uncosted_events == 1


async def test_there_is_no_margin_where_a_cost_is_unknown_or_in_another_currency(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run, clock: MovableClock
) -> None:
    euros = await open_shop(
        runtime, tenant_id, name="euros", currency="EUR", customers=("acme", "idle")
    )
    dollars = await open_shop(runtime, tenant_id, name="dollars", customers=("brill", "dune"))
    await open_shop(runtime, tenant_id, name="free", customers=("chime",), unit_cost=None)
    await send(
        call(40, name="euros"),
        call(5, name="dollars", customer="brill"),
        call(1, name="free", customer="chime"),
    )
    clock.move_to(MONTH_END + timedelta(hours=2))
    await run_jobs()
    in_euros, in_dollars = await summary_of(runtime, tenant_id)
    assert (in_euros.invoiced_revenue, in_euros.cogs, in_euros.margin) == (200, 0, None)
    assert (in_dollars.invoiced_revenue, in_dollars.cogs, in_dollars.margin) == (300, 5, None)
    async with runtime.scope(tenant_id) as scope:
        rows = await customer_margins(scope, start=STARTS_AT, end=MONTH_END)
    shown = {row.customer_id: (row.uncosted_events, row.margin) for row in rows}
    assert shown[CustomerId(euros.customers["acme"])] == (1, None)
    assert shown[CustomerId(euros.customers["idle"])] == (0, 1)
    assert shown[CustomerId(dollars.customers["brill"])] == (0, Decimal("0.95"))
    assert shown[CustomerId(dollars.customers["dune"])] == (0, 1)
    assert sorted(events for events, _ in shown.values()) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "window",
    [(MONTH_END, STARTS_AT), (STARTS_AT, STARTS_AT), (STARTS_AT.replace(tzinfo=None), MONTH_END)],
)
async def test_a_window_that_is_none_is_refused(
    runtime: Runtime, tenant_id: TenantId, window: Sequence[datetime]
) -> None:
    with pytest.raises(Invalid):
        async with runtime.scope(tenant_id) as scope:
            await revenue_summary(scope, start=window[0], end=window[1])


async def test_another_tenants_money_is_not_in_the_figures(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id, cost_currency="EUR")
    await add_invoice(runtime, tenant_id, shop)
    await send(call(5))
    await run_jobs()
    assert len(await summary_of(runtime, tenant_id)) == 2
    other = await create_tenant(runtime, name="Other")
    assert await summary_of(runtime, TenantId(other.tenant.tenant_id)) == []


async def test_a_billed_month_adds_up_to_its_invoices_and_to_the_cost_of_its_events(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run, clock: MovableClock
) -> None:
    shop = await open_shop(
        runtime,
        tenant_id,
        customers=("acme", "brill"),
        fee="100",
        unit_price="0.5",
        unit_cost="0.3333",
        percent_off=10,
    )
    await send(call(10), call("2.5"), call(101, customer="brill"))
    await run_jobs()
    clock.move_to(MONTH_END + timedelta(minutes=1))
    await run_jobs()
    (draft,) = await summary_of(runtime, tenant_id)
    assert (draft.invoiced_revenue, draft.margin, draft.outstanding) == (0, None, 0)
    assert str(draft.expected_revenue) == "231.07"

    clock.advance(timedelta(hours=2))
    await run_jobs()
    (row,) = await summary_of(runtime, tenant_id)
    assert row.expected_revenue == 0
    assert str(row.invoiced_revenue) == "231.07"  # 106.25 − 10.63 and 150.50 − 15.05.
    assert str(row.cogs) == "37.83"  # 12.5 and 101 units.
    assert row.margin == Decimal("0.836283")
    assert str(row.outstanding) == "231.07"
    assert (row.unattributed_cogs, row.uncosted_events) == (0, 0)
    async with runtime.scope(tenant_id) as scope:
        margins = await customer_margins(scope, start=STARTS_AT, end=MONTH_END)
    assert {
        name: (str(one.invoiced_revenue), str(one.cogs))
        for name, customer_id in shop.customers.items()
        for one in margins
        if one.customer_id == customer_id
    } == {"acme": ("95.62", "4.17"), "brill": ("135.45", "33.66")}
