"""The live quota counters keep up with the aggregate, and are read from it where they cannot."""

import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aforo import worker
from aforo.catalog import commands as catalog
from aforo.catalog.models import Aggregation, EntitlementKind
from aforo.catalog.validate import Filter
from aforo.metering import queries, quotas, reconcile
from aforo.metering.grants import QuotaInForce, quota_grants
from aforo.metering.quota import QuotaUse
from aforo.sdk.ids import TenantId
from aforo.storage import clickhouse, redis
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tallies import Tally
from aforo.subscriptions import commands as subscriptions
from aforo.telemetry.metrics import TALLIES
from tests.metering.market import Market

KINDS = {
    "sum": Aggregation.SUM,
    "corrected": Aggregation.SUM,
    "count": Aggregation.COUNT,
    "max": Aggregation.MAX,
    "unique": Aggregation.UNIQUE,
    "latest": Aggregation.LATEST,
}


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """Acme may use 100 units of each kind of meter per month."""
    async with runtime.scope(tenant_id) as scope:
        meters = {
            code: await catalog.create_meter(
                scope,
                code=code,
                name=code,
                event_type="llm.request",
                aggregation=kind,
                property_name=None if kind is Aggregation.COUNT else "tokens",
                filters=[] if code == "corrected" else [Filter("kind", ["usage"])],
                allows_negative=code == "corrected",
            )
            for code, kind in KINDS.items()
        }
        grants = [
            await catalog.create_entitlement(
                scope,
                code=code,
                name=code,
                kind=EntitlementKind.QUOTA,
                meter_id=meter.id,
                quota=Decimal(100),
            )
            for code, meter in meters.items()
        ]
        product = await catalog.create_product(scope, code="llm", name="LLM")
        plan = await catalog.create_rate_plan(
            scope,
            code="llm",
            name="LLM",
            currency="USD",
            lines=[catalog.NewLine(code="fee", name="Fee", model="FLAT", settings={"fee": "1"})],
        )
        offering = await catalog.create_offering(
            scope,
            code="llm",
            name="LLM",
            product_id=product.id,
            rate_plan_id=plan.id,
            entitlement_ids=[grant.id for grant in grants],
        )
        customer = await subscriptions.create_customer(
            scope, external_id="acme", name="Acme", currency="USD"
        )
        subscription = await subscriptions.create_subscription(
            scope,
            customer_id=customer.id,
            offering_id=offering.id,
            starts_at=scope.now - timedelta(days=100),
            anchor_day=1,
        )
    return Market(runtime, tenant_id, meters, {"acme": customer.id}, {"acme": subscription.id})


async def test_counters_keep_up_with_the_aggregate_segment_by_segment(
    market: Market, without_clickhouse: Market
) -> None:
    assert set((await uses(market)).values()) == {0}  # From here on they are followed.
    for batch in ((5, 7), (40,), (7, 3), (5,)):
        await market.take(*(used(market, tokens) for tokens in batch))
        assert await worker.seal_all(market.runtime)
        # Read without ClickHouse: it is the counters that say so.
        assert await uses(without_clickhouse) == await aggregates(market)
    assert await uses(market) == {
        "sum": 67,
        "corrected": 67,
        "count": 6,
        "max": 40,
        "unique": 4,
        "latest": 5,
    }


async def test_a_counter_is_of_one_billing_period(market: Market, clock: MovableClock) -> None:
    await market.take(used(market, 5), used(market, 6, ago=timedelta(days=40)))
    assert await worker.seal_all(market.runtime)
    assert (await uses(market))["sum"] == 5
    clock.advance(timedelta(days=20))
    assert (await uses(market))["sum"] == 0


async def test_corrections_below_zero_leave_a_counter_where_the_aggregate_is(
    market: Market,
) -> None:
    for tokens, total in ((5, 5), (-9, 0), (10, 6), (-1, 5)):
        await market.take(used(market, tokens))
        assert await worker.seal_all(market.runtime)
        assert (await uses(market))["corrected"] == total


async def test_a_counter_that_missed_a_segment_is_counted_again(
    market: Market, without_clickhouse: Market
) -> None:
    await market.take(used(market, 5))
    assert await worker.seal_all(market.runtime)
    assert (await uses(market))["sum"] == 5
    await market.take(used(market, 6))
    assert await market.seal()  # Whoever sealed died before the counters moved.
    assert (await uses(without_clickhouse))["sum"] == 5
    await market.take(used(market, 7))
    assert await worker.seal_all(market.runtime)
    assert await uses(market) == await aggregates(market)
    assert await uses(without_clickhouse) == await uses(market)


async def test_counters_lost_with_redis_are_read_from_the_aggregate(market: Market) -> None:
    await market.take(used(market, 5))
    live = redis.Live("redis://127.0.0.1:1/0")
    away = dataclasses.replace(market, runtime=dataclasses.replace(market.runtime, live=live))
    assert await worker.seal_all(away.runtime)
    assert await uses(away) == await uses(market) == await aggregates(market)
    await live.close()


async def test_a_counter_that_drifted_is_put_right_and_measured(
    market: Market, clock: MovableClock
) -> None:
    assert (await uses(market))["sum"] == 0
    await market.take(used(market, 5))
    await worker.drain(market.runtime, market.tenant_id)
    [quota] = await sums(market)
    async with market.scope() as scope:
        wrong = {quota.name: Tally(Decimal(40), Decimal(0), await queries.watermark(scope))}
        await scope.live.tallies.settle(quota.of, scope.now, used=wrong)
    assert (await uses(market))["sum"] == 40
    mended = TALLIES.labels("mended")._value.get()
    clock.advance(timedelta(minutes=6))
    await worker.drain(market.runtime, market.tenant_id)
    assert (await uses(market))["sum"] == 5
    assert TALLIES.labels("mended")._value.get() == mended + 1


async def test_units_beyond_a_quota_are_overage(market: Market) -> None:
    await market.take(used(market, 80), used(market, 50))
    assert await worker.seal_all(market.runtime)
    async with market.scope() as scope:
        found = await quotas.quota_uses(scope, [market.customers["acme"]])
    [use] = [use for quota, use in found[market.customers["acme"]] if quota.meter.code == "sum"]
    assert use == QuotaUse(limit=Decimal(100), used=Decimal(130))
    assert (use.remaining, use.overage) == (Decimal(0), Decimal(30))


async def test_usage_under_the_subscription_before_is_not_held_against_a_new_one(
    market: Market, clock: MovableClock
) -> None:
    await market.take(used(market, 80))
    assert await worker.seal_all(market.runtime)
    async with market.scope() as scope:
        ended = await subscriptions.end_subscription(
            scope, subscription_id=market.subscriptions["acme"]
        )
        await subscriptions.create_subscription(
            scope,
            customer_id=ended.customer_id,
            offering_id=ended.offering_id,
            anchor_day=ended.anchor_day,
        )
    assert (await uses(market))["sum"] == 0
    clock.advance(timedelta(hours=2))
    await market.take(used(market, 30), used(market, 7, ago=timedelta(hours=3)))
    assert await worker.seal_all(market.runtime)
    assert (await uses(market))["sum"] == 30


@pytest.fixture
def without_clickhouse(market: Market) -> Market:
    events = clickhouse.Events("http://aforo:x@127.0.0.1:1/aforo")
    return dataclasses.replace(market, runtime=dataclasses.replace(market.runtime, events=events))


def used(
    market: Market,
    tokens: int,
    key: str | None = None,
    *,
    ago: timedelta = timedelta(hours=1),
    **more: Any,
) -> dict[str, Any]:
    """Usage, or below zero a correction, which only one of the meters sees."""
    kind = "usage" if tokens >= 0 else "correction"
    return market.event(key, ago=ago, properties={"tokens": tokens, "kind": kind}, **more)


async def sums(market: Market) -> list[QuotaInForce]:
    """Acme's quota of the meter that sums."""
    async with market.scope() as scope:
        grants = await quota_grants(scope, [market.customers["acme"]], scope.now)
        return [each.at(scope.now) for each in grants if each.meter.code == "sum"]


async def uses(market: Market) -> dict[str, Decimal]:
    """What acme used, by the code of the quota."""
    async with market.scope() as scope:
        found = await quotas.quota_uses(scope, [market.customers["acme"]])
    return {quota.entitlement.code: use.used for quota, use in found[market.customers["acme"]]}


async def aggregates(market: Market) -> dict[str, Decimal]:
    """The same by the aggregate; all of a test's usage is in one period."""
    return {code: await market.used(code) for code in market.meters}


async def test_what_is_amended_or_voided_leaves_the_counters_where_the_aggregate_is(
    market: Market, without_clickhouse: Market
) -> None:
    await uses(market)  # From here on they are followed.
    await market.take(*(used(market, number, f"e{number}") for number in (5, 7, 30)))
    assert await worker.seal_all(market.runtime)
    for batch in (
        [{"idempotencyKey": "v", "voids": "e30"}],
        [used(market, 9, "e7b", supersedes="e7"), used(market, 1)],
        [used(market, 2, "gone"), {"idempotencyKey": "w", "voids": "gone"}],
    ):
        await market.take(*batch)
        assert await worker.seal_all(market.runtime)
        assert await uses(without_clickhouse) == await aggregates(market)
    assert (await uses(market))["sum"] == 5 + 9 + 1
    async with market.scope() as scope:
        assert await reconcile.reconcile(scope) == 0
