"""Conservation: after whatever was sent, released, discarded and sealed, all is accounted for."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from aforo import worker
from aforo.metering import conservation, quarantine
from aforo.metering.conservation import HOUR, Balance
from aforo.metering.quarantine import Wanted
from aforo.sdk.errors import Invalid
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.clock import MovableClock
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.postgres import create_async_engine
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from tests.conftest import NOW
from tests.metering.market import Market, open_market

ROUNDS_MAX = 20
BODIES: dict[str, dict[str, Any]] = {
    "good": {},
    "other": {"properties": {"tokens": 2}},
    "late": {"customer": "newcomer"},
    "stranger": {"customer": "nobody"},
    "wrong": {"properties": {"tokens": "x"}},
}
sending = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([*BODIES])), max_size=5)
steps = st.one_of(
    st.tuples(st.just("send"), sending),
    st.tuples(
        st.sampled_from(("release", "discard")), st.sampled_from(("newcomer", "nobody", "acme"))
    ),
    st.tuples(st.just("seal"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from((1, 59, 60))),
)


async def balance(market: Market) -> dict[datetime, Balance]:
    async with market.scope() as scope:
        return await conservation.balances(scope, Period(NOW - HOUR, NOW + 96 * HOUR))


@settings(max_examples=25)
@given(st.lists(steps, min_size=1, max_size=8))
async def test_whatever_is_done_the_identities_hold(
    shared_runtime: Runtime, steps: Sequence[tuple[str, Any]]
) -> None:
    clock = MovableClock(NOW)
    runtime = replace(shared_runtime, clock=clock)
    market = await open_market(runtime, TenantId(new_id()))
    await market.let_in("newcomer")
    told: Counter[str] = Counter()
    for step, what in steps:
        if step == "send":
            events = [
                market.event(key, occurredAt=(NOW - HOUR).isoformat(), **BODIES[body])
                for key, body in what
            ]
            # The newcomer's come before he does.
            await with_him_away(market, events, told)
        elif step in {"release", "discard"}:
            async with market.scope() as scope:
                settle = quarantine.release if step == "release" else quarantine.discard
                settled = await settle(scope, Wanted(customer=what))
            told["quarantined"] -= settled.events
            told["accepted" if step == "release" else "discarded"] += settled.events
        elif step == "seal":
            await market.seal()
        else:
            clock.advance(timedelta(minutes=what))
        found = await balance(market)
        assert all(each.balanced for each in found.values())
        total = sum(found.values(), Balance())
        assert {
            name: getattr(total, name) for name in (*TOLD, "discarded") if getattr(total, name)
        } == {name: number for name, number in told.items() if number}
    await market.seal()
    total = sum((await balance(market)).values(), Balance())
    assert total.balanced
    assert total.in_inbox == 0


TOLD = ("received", "accepted", "duplicates", "conflicts", "rejected", "quarantined")


async def with_him_away(
    market: Market, events: Sequence[dict[str, Any]], told: Counter[str]
) -> None:
    """Take a batch in which the newcomer is named by a name that nobody has yet, and let it be
    his from then on."""
    answer = await market.take(
        *(
            {**event, "customer": "not yet"} if event["customer"] == "newcomer" else event
            for event in events
        )
    )
    told.update({name: getattr(answer, name) for name in TOLD})
    async with market.scope() as scope:
        for row in await market.rows("quarantined_event"):
            if row["customer"] == "not yet" and row["state"] == "QUARANTINED":
                await quarantine.correct(
                    scope,
                    row["id"],
                    quarantine.Correction(given={"customer"}, customer="newcomer"),
                    pepper=market.runtime.settings.key_pepper,
                )


async def test_an_hour_is_that_of_the_first_receipt(market: Market) -> None:
    clock = market.runtime.clock
    assert isinstance(clock, MovableClock)
    clock.move_to(datetime(2026, 11, 20, 12, 59, 59, 999_999, tzinfo=UTC))
    await market.take(market.event(), market.event(customer="newcomer"), market.event(type=1))
    clock.advance(timedelta(microseconds=1))
    await market.take(market.event("b"), market.event("b"))
    await market.let_in("newcomer")
    clock.advance(timedelta(hours=5))
    async with market.scope() as scope:
        await quarantine.release(scope, Wanted(customer="newcomer"))
    await market.seal()
    assert await balance(market) == {
        NOW: Balance(received=3, accepted=2, rejected=1, released=1, in_log=2),
        NOW + HOUR: Balance(received=2, accepted=1, duplicates=1, in_log=1),
    }


async def test_batches_of_two_hours_in_one_transaction_stay_apart(market: Market) -> None:
    earlier = replace(
        market, runtime=replace(market.runtime, clock=MovableClock(NOW - timedelta(seconds=1)))
    )
    rows: list[Any] = []
    for _ in range(ROUNDS_MAX):
        # The first go alone; those that come meanwhile go together.
        await asyncio.gather(*(each.take(each.event()) for each in [market, earlier] * 3))
        rows = await market.rows("event_inbox")
        if len({row["xid"] for row in rows}) < len(rows):
            break
    assert len({row["xid"] for row in rows}) < len(rows), "two hours were never taken at once"
    hours = await balance(market)
    assert hours.keys() == {NOW - HOUR, NOW}
    assert hours[NOW].in_inbox == hours[NOW - HOUR].in_inbox == hours[NOW].received
    assert all(hour.balanced for hour in hours.values())


async def test_what_is_lost_is_told_in_numbers_in_the_log_and_as_a_metric(
    market: Market, engines: EmbeddedEngines
) -> None:
    await market.take(market.event(), market.event(customer="nobody"), market.event())
    await worker.drain(market.runtime, market.tenant_id)
    before = REGISTRY.get_sample_value("aforo_unbalanced_hours_total")
    async with market.scope() as scope:
        assert await conservation.check(scope) == {}
    assert REGISTRY.get_sample_value("aforo_unbalanced_hours_total") == before
    engine = create_async_engine(engines.owner_database_url)
    async with engine.begin() as owner:
        for table, change in (
            ("quarantined_event", "DELETE FROM quarantined_event"),
            ("ingest_batch", "UPDATE ingest_batch SET received = received + 2, accepted = 4"),
        ):
            await owner.execute(sa.text(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"))
            await owner.execute(
                sa.text(f"{change} WHERE tenant_id = :tenant"), {"tenant": market.tenant_id}
            )
            await owner.execute(sa.text(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))
    await engine.dispose()
    clock = market.runtime.clock
    assert isinstance(clock, MovableClock)
    clock.advance(timedelta(seconds=conservation.CHECK_SECONDS))
    with capture_logs() as logs:
        await worker.drain(market.runtime, market.tenant_id)
    [told] = [each for each in logs if each["event"] == "events are not accounted for"]
    assert (told["unaccounted"], told["missing"], told["log_level"]) == (1, 2, "error")
    assert REGISTRY.get_sample_value("aforo_unbalanced_hours_total") == (before or 0) + 1


async def test_a_period_is_bounded(market: Market) -> None:
    async with market.scope() as scope:
        with pytest.raises(Invalid):
            await conservation.balances(scope, Period(NOW - timedelta(days=31), NOW + HOUR))
        assert await conservation.balances(scope, Period(NOW - timedelta(days=31), NOW)) == {}


async def test_other_tenants_have_no_part_in_it(market: Market, runtime: Runtime) -> None:
    other = await open_market(runtime, TenantId(new_id()))
    await other.take(other.event(), other.event(customer="nobody"))
    await other.seal()
    assert await balance(market) == {}
