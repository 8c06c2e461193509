"""Keys are kept for 97 days, and forgotten after; those of quarantined events are held."""

from datetime import timedelta

import sqlalchemy as sa

from aforo.metering import keys
from aforo.metering.quarantine import Wanted, release
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.conftest import NOW
from tests.metering.market import Market


async def forget_all(runtime: Runtime, parts: int = 7) -> int:
    return sum([await keys.forget_old(runtime, part=part, parts=parts) for part in range(parts)])


async def test_a_key_is_kept_for_97_days_and_then_forgotten(
    market: Market, runtime: Runtime, clock: MovableClock
) -> None:
    old = [market.event(f"old-{place}", occurredAt=None) for place in range(300)]
    await market.take(*old)
    clock.move_to(NOW + timedelta(days=1))
    await market.take(market.event("young"))
    clock.move_to(NOW + keys.KEPT)
    await forget_all(runtime)
    assert len(await market.rows("event_key")) == 301
    assert (await market.take(*old)).duplicates == 300
    clock.advance(timedelta(microseconds=1))
    assert await forget_all(runtime) >= 300
    [left] = await market.rows("event_key")
    assert left["received_at"] == NOW + timedelta(days=1)
    assert await forget_all(runtime) == 0


async def test_what_is_quarantined_holds_its_key_until_it_is_settled(
    market: Market, clock: MovableClock
) -> None:
    sent = market.event("waits", customer="newcomer", occurredAt=None)
    await market.take(sent)
    clock.move_to(NOW + timedelta(days=200))
    await forget_all(market.runtime)
    assert (await market.take(sent)).duplicates == 1
    await market.let_in("newcomer")
    async with market.scope() as scope:
        await release(scope, Wanted(customer="newcomer"))
    assert len(await market.waiting()) == 1
    await forget_all(market.runtime)
    assert await market.rows("event_key") == []


async def test_in_a_day_every_part_has_its_turn() -> None:
    turns = {keys.part_at(NOW + place * keys.PART) for place in range(keys.PARTS)}
    assert turns == set(range(keys.PARTS))


async def test_only_a_stretch_of_each_partition_is_read(runtime: Runtime) -> None:
    async with runtime.system("explain") as db:
        # The table is too small here for another plan than to read all of it.
        await db.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = await db.execute(
            sa.text(f"EXPLAIN {keys._FORGET.text}"),
            {"first": "(0,0)", "end": "(64,0)", "before": NOW},
        )
        text = "\n".join(row[0] for row in plan)
    assert text.count("Tid Range Scan on event_key_") == 16
