"""From costly events to a signal: fired once, with its numbers, on real engines.

The fee of 100 has accrued to 65 by noon of the twentieth: COGS above 52 are below the limit of
20 %, above 58.5 below 10 %, above 65 below 0.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.metering import queries as metering
from aforo.sdk import Level
from aforo.sdk.ids import TenantId
from aforo.signals import queries
from aforo.signals.commands import detect, set_detector_settings
from aforo.signals.models import Signal
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.live_log import START
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.shop import Shop, call, open_shop, signals_of

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
Run = Callable[[], Awaitable[None]]


async def detect_now(runtime: Runtime, tenant_id: TenantId, shop: Shop) -> list[Signal]:
    """Look at all customers of a shop in one transaction."""
    async with runtime.scope(tenant_id) as scope:
        mark = await metering.watermark(scope)
        return await detect(scope, list(shop.customers.values()), mark)


async def events_by_cost(runtime: Runtime, tenant_id: TenantId) -> list[tuple[str, Decimal]]:
    """The ids of all events with their costs, the most expensive first."""
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.events.query(
            f"SELECT event_id, cost FROM {metering.EVENTS} ORDER BY cost DESC",
            watermark=await metering.watermark(scope),
        )
    return [(str(row["event_id"]), row["cost"]) for row in rows]


async def test_costly_events_fire_one_signal_with_its_numbers_and_events(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id)
    answer = await send(call(10), call(40), call("5.5"))
    assert answer["accepted"] == 3
    await run_jobs()

    (signal,) = await signals_of(runtime, tenant_id)
    assert (signal.detector, signal.threshold, signal.level) == ("margin_guard", "L3", Level.ALERT)
    assert (signal.customer_id, signal.subject) == (shop.customers["acme"], "*")
    assert signal.period_start == datetime(2026, 11, 1, tzinfo=UTC)
    assert signal.period_end == datetime(2026, 12, 1, tzinfo=UTC)
    assert signal.value == Decimal("0.146153846154")  # 9.5 / 65
    assert signal.limit == Decimal("0.2")
    assert signal.numbers == {
        "revenue": "65",
        "cogs": "55.5",
        "margin": f"{signal.value:f}",
        "uncostedEvents": "0",
        "l3": "0.2",
        "l2": "0.1",
        "l1": "0",
        "lossFloor": "10",
    }
    assert signal.explanation == (
        "A margin of 14.62 % is below L3, 20.00 %: revenue 65.00 USD, COGS 55.50 USD."
    )
    assert signal.settings["l3"] == "0.20"
    assert signal.event_count == 3
    assert signal.created_at == datetime(2026, 11, 20, 12, tzinfo=UTC)

    async with runtime.scope(tenant_id) as scope:
        assert signal.watermark == await metering.watermark(scope)
    events = await events_by_cost(runtime, tenant_id)
    assert [cost for _, cost in events] == [40, 10, Decimal("5.5")]
    assert signal.event_ids == [event_id for event_id, _ in events]


async def test_a_margin_above_every_limit_fires_nothing(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(52))  # A margin of exactly 20 %.
    await run_jobs()
    assert await signals_of(runtime, tenant_id) == []


async def test_looking_again_and_more_events_at_the_same_depth_fire_nothing_more(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(55))
    await run_jobs()
    first = await signals_of(runtime, tenant_id)
    assert len(first) == 1

    assert await detect_now(runtime, tenant_id, shop) == []
    await send(call(1))
    await run_jobs()
    assert await signals_of(runtime, tenant_id) == first


async def test_workers_who_look_at_once_fire_one_signal_between_them(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill", "chime"))
    await send(*(call(70, customer=name) for name in shop.customers))
    assert await worker.seal_all(runtime)

    fired = await asyncio.gather(*(detect_now(runtime, tenant_id, shop) for _ in range(6)))
    assert sorted(signal.customer_id for found in fired for signal in found) == sorted(
        shop.customers.values()
    )
    assert len(await signals_of(runtime, tenant_id)) == 3
    async with runtime.scope(tenant_id) as scope:
        jobs = await scope.db.scalars(sa.select(Job).where(col(Job.name) == JobName.ACT_ON_SIGNAL))
        assert len(list(jobs)) == 3


async def test_a_worker_that_looked_at_less_fires_nothing_milder_behind_one_that_saw_more(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    shop = await open_shop(runtime, tenant_id)
    customers = list(shop.customers.values())
    marks = []
    for units in (55, 20):  # 15 % of margin, then a loss.
        await send(call(units))
        assert await worker.seal_all(runtime)
        async with runtime.scope(tenant_id) as scope:
            marks.append(await metering.watermark(scope))
    before, after = marks

    async def late() -> list[Signal]:
        async with runtime.scope(tenant_id) as scope:
            return await detect(scope, customers, before)

    async with runtime.scope(tenant_id) as scope:
        (deep,) = await detect(scope, customers, after)
        behind = asyncio.create_task(late())
        await until_held_up_or_done(runtime, tenant_id, behind)
    assert deep.threshold == "L1"
    assert await behind == []
    assert [one.threshold for one in await signals_of(runtime, tenant_id)] == ["L1"]


async def until_held_up_or_done(
    runtime: Runtime, tenant_id: TenantId, task: asyncio.Task[list[Signal]]
) -> None:
    """Wait until a task waits for a lock, or has not waited for any."""
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(60):
        while True:
            async with runtime.scope(tenant_id) as scope:
                if task.done() or await scope.db.scalar(waiting):
                    return
            await asyncio.sleep(0.01)


async def test_a_margin_that_falls_through_all_limits_fires_once_for_each(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    for units in (55, 5, 6):
        await send(call(units))
        await run_jobs()
    assert [(one.threshold, one.level) for one in await signals_of(runtime, tenant_id)] == [
        ("L3", Level.ALERT),
        ("L2", Level.THROTTLE),
        ("L1", Level.BLOCK),
    ]


async def test_a_margin_that_climbs_back_through_milder_limits_fires_nothing_more(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run, clock: MovableClock
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    await run_jobs()
    for days in (3, 3, 3):  # The fee accrues: the margin is 6.7 %, then 17.6 %, then 26 %.
        clock.advance(timedelta(days=days))
        assert await detect_now(runtime, tenant_id, shop) == []
    assert [one.threshold for one in await signals_of(runtime, tenant_id)] == ["L1"]


async def test_a_margin_that_swings_around_a_limit_fires_once(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run, clock: MovableClock
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(53))
    await run_jobs()
    for units in (3, 3, 3):  # A day adds 3.33 of revenue, and COGS of 3 go below 20 % again.
        clock.advance(timedelta(days=1))
        await send(call(units))
        await run_jobs()
    assert [one.threshold for one in await signals_of(runtime, tenant_id)] == ["L3"]


async def test_the_next_period_fires_anew(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run, clock: MovableClock
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(70))
    await run_jobs()
    clock.move_to(datetime(2026, 12, 10, tzinfo=UTC))
    await send(call(40, at=datetime(2026, 12, 9, tzinfo=UTC)))
    await run_jobs()
    assert [
        (one.threshold, one.period_start.month) for one in await signals_of(runtime, tenant_id)
    ] == [("L1", 11), ("L1", 12)]


async def test_an_event_without_a_cost_rate_is_counted_and_told(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    rate_starts_at = datetime(2026, 11, 10, tzinfo=UTC)
    await open_shop(runtime, tenant_id, costs_from=rate_starts_at)
    await send(call(1, at=rate_starts_at - timedelta(days=1)), call(55))
    await run_jobs()
    (signal,) = await signals_of(runtime, tenant_id)
    assert (signal.numbers["cogs"], signal.numbers["uncostedEvents"]) == ("55", "1")
    assert "1 events have no known cost and are not in it" in signal.explanation
    assert signal.event_count == 2
    assert len(signal.event_ids) == 2


async def test_only_the_hundred_heaviest_events_are_named(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    await send(*(call("0.5") for _ in range(130)), call(3))
    await run_jobs()
    (signal,) = await signals_of(runtime, tenant_id)
    assert signal.event_count == 131
    assert len(set(signal.event_ids)) == 100
    events = await events_by_cost(runtime, tenant_id)
    assert signal.event_ids[0] == events[0][0]
    assert set(signal.event_ids) < {event_id for event_id, _ in events}


async def test_every_signal_asks_for_its_action_and_is_announced(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(55))
    await run_jobs()
    (signal,) = await signals_of(runtime, tenant_id)
    followed = await runtime.live.of(tenant_id).follow("signals", after=START)
    message = await anext(followed)
    followed.close()
    assert message.data["id"] == str(signal.id)
    async with runtime.scope(tenant_id) as scope:
        job = await scope.db.scalar(sa.select(Job).where(col(Job.name) == JobName.ACT_ON_SIGNAL))
    assert job is not None
    assert (job.state, job.arguments) == (JobState.DONE, {"signal_id": str(signal.id)})


async def test_a_customers_own_limit_wins_over_the_tenants_and_the_default(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill", "chime"))
    async with runtime.scope(tenant_id) as scope:
        await set_detector_settings(scope, detector="margin_guard", settings={"l3": "0.50"})
        await set_detector_settings(
            scope,
            detector="margin_guard",
            customer_id=shop.customers["brill"],
            settings={"l3": "0.80", "loss_floor": "7"},
        )
        await set_detector_settings(
            scope,
            detector="margin_guard",
            customer_id=shop.customers["chime"],
            settings={"l3": "0.11"},
        )
    await send(*(call(40, customer=name) for name in shop.customers))  # A margin of 38 %.
    await run_jobs()
    fired = {one.customer_id: one for one in await signals_of(runtime, tenant_id)}
    assert set(fired) == {shop.customers["acme"], shop.customers["brill"]}
    assert fired[shop.customers["acme"]].limit == Decimal("0.5")
    assert fired[shop.customers["brill"]].limit == Decimal("0.8")
    assert fired[shop.customers["brill"]].settings["lossFloor"] == "7"


async def test_another_tenant_sees_no_signal_and_no_settings(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    other = await create_tenant(runtime, name="Other")
    other_tenant_id = TenantId(other.tenant.tenant_id)
    await open_shop(runtime, tenant_id)
    async with runtime.scope(tenant_id) as scope:
        await set_detector_settings(scope, detector="margin_guard", settings={"l3": "0.9"})
    await send(call(55))
    await run_jobs()
    (signal,) = await signals_of(runtime, tenant_id)
    async with runtime.scope(other_tenant_id) as scope:
        assert await queries.signals().page(scope, first=10) == []
        assert await queries.signals_by_id(scope, [signal.id]) == {}
        assert await queries.settings_in_force(scope, "margin_guard") == {}


async def test_signals_come_in_pages_the_newest_first(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill", "chime"))
    await send(*(call(55, customer=name) for name in shop.customers))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        whole = await queries.signals().page(scope, first=100)
        first = await queries.signals().page(scope, first=2)
        rest = await queries.signals().page(scope, first=2, after=first[-1].id)
        own = await queries.signals(customer_id=shop.customers["brill"]).page(scope, first=2)
        others = await queries.signals(detector="other").page(scope, first=2)
        by_id = await queries.signals_by_id(scope, [one.id for one in first])
    assert [one.id for one in whole] == sorted((one.id for one in whole), reverse=True)
    assert [one.id for one in first + rest] == [one.id for one in whole]
    assert [one.customer_id for one in own] == [shop.customers["brill"]]
    assert others == []
    assert set(by_id) == {one.id for one in first}
