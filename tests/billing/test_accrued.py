"""What customers have accrued in the running period, on real engines."""

import dataclasses
from datetime import timedelta
from decimal import Decimal

import pytest

from aforo.billing.queries import Accrual, accrued
from aforo.metering.queries import watermark
from aforo.plugins import load_registry
from aforo.sdk import CustomerId, Period, PricedLine, PricingModel, TenantId, Usage, hookimpl
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.billing.trade import DECEMBER, NOVEMBER, Buyer, RunJobs, Send, Trade, call, open_trade
from tests.shop import call as sell
from tests.shop import open_shop

pytestmark = pytest.mark.anyio
D = Decimal
TOKENS = [
    ("fee", "FLAT", {"fee": "30"}),
    ("input_tokens", "PER_UNIT", {"unitPrice": "0.00001"}),
]


async def accruals(
    runtime: Runtime, tenant_id: TenantId, trade: Trade
) -> dict[CustomerId, Accrual]:
    async with runtime.scope(tenant_id) as scope:
        return await accrued(
            scope,
            customer_ids=list(trade.customers.values()),
            watermark=await watermark(scope),
            at=scope.now,
        )


async def test_fees_usage_and_costs_so_far_net_of_discounts(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    clock.move_to(NOVEMBER + timedelta(days=10))
    buyers = [Buyer(name="a"), Buyer(name="late", starts_at=NOVEMBER + timedelta(days=9))]
    trade = await open_trade(runtime, tenant_id, buyers, lines=TOKENS, percent_off=10)
    at = clock.now()
    await send(
        call("a", input_tokens=100_000, at=at - timedelta(days=1)),
        call("a", input_tokens=50_000, at=NOVEMBER - timedelta(seconds=1)),  # Last month's.
    )
    await run_jobs()
    found = await accruals(runtime, tenant_id, trade)
    november = Period(NOVEMBER, DECEMBER)
    assert found[CustomerId(trade.customers["a"])] == Accrual(
        currency="USD",
        revenue=D("9.9"),  # (10 of 30 days of 30 + 1) − 10 %
        cogs=D("0.11"),
        uncosted_events=0,
        period=november,
    )
    late = found[CustomerId(trade.customers["late"])]
    assert (late.revenue, late.cogs, late.period) == (D("0.9"), 0, november)


async def test_two_subscriptions_of_a_customer_add_up(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER)])
    more = await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER)], code="more")
    clock.move_to(NOVEMBER + timedelta(days=15))
    assert more.customers == trade.customers
    (found,) = (await accruals(runtime, tenant_id, trade)).values()
    assert found.revenue == 10


async def test_costs_in_another_currency_are_unknown_and_never_free(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    shop = await open_shop(runtime, tenant_id, currency="EUR", cost_currency="USD")
    await send(sell(1_000), sell(1))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        (found,) = (
            await accrued(
                scope,
                customer_ids=list(shop.customers.values()),
                watermark=await watermark(scope),
                at=scope.now,
            )
        ).values()
    assert (found.currency, found.cogs, found.uncosted_events) == ("EUR", 0, 2)


async def test_customers_without_an_active_subscription_have_accrued_nothing(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER)])
    clock.move_to(NOVEMBER - timedelta(days=1))
    assert await accruals(runtime, tenant_id, trade) == {}


class Broken(PricingModel):
    """Prices nothing, and fails beyond one call."""

    key = "acme.broken"
    summary = "Fails on large quantities"

    def price(self, usage: Usage) -> list[PricedLine]:
        if usage.event_count > 1:
            raise RuntimeError("too much for me")
        return [PricedLine("Calls", usage.quantity, D(0))]


class Acme:
    @hookimpl
    def register_pricing_models(self) -> list[type[PricingModel]]:
        return [Broken]


async def test_a_failing_model_hides_its_customer_and_nobody_else(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: RunJobs
) -> None:
    plugged = dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))
    trade = await open_trade(
        plugged,
        tenant_id,
        [Buyer(name="a"), Buyer(name="b")],
        lines=[("calls", "acme.broken", {})],
    )
    await send(*(call("a", at=NOVEMBER + timedelta(days=2)) for _ in range(2)))
    await run_jobs()
    found = await accruals(plugged, tenant_id, trade)
    assert set(found) == {trade.customers["b"]}
