"""The right to seal: one has it, and whoever does not live any more loses it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aforo import worker
from aforo.metering import leadership, sealer
from aforo.metering.leadership import Leader
from aforo.sdk.errors import Unavailable
from aforo.storage.scope import Runtime
from tests.meanwhile import until
from tests.metering.market import Market
from tests.metering.test_sealer import WAIT_SECONDS, terminate


async def test_only_one_process_leads(market: Market, rival: Market) -> None:
    await market.take(market.event())
    async with leadership.leadership(market.runtime) as leader:
        assert leader is not None
        assert await rival.try_to_seal() is None
        assert not await worker.seal_once(rival.runtime)
    assert await rival.try_to_seal()


async def test_a_leader_that_is_cut_off_notices_and_another_takes_over(
    market: Market, rival: Market
) -> None:
    async def lead_and_be_cut_off() -> None:
        async with leadership.leadership(market.runtime) as leader:
            assert leader is not None
            await leader.assert_held()
            await terminate(market.runtime, await pid_of(leader.connection))
            async with led(rival.runtime) as successor:
                await successor.assert_held()
                assert await sealer.seal_and_confirm(rival.runtime)
            await leader.assert_held()

    await market.take(market.event())
    with pytest.raises(Unavailable):
        await lead_and_be_cut_off()
    assert await market.used("tokens") == 10


async def test_a_leader_that_is_frozen_is_followed_by_another_and_doubles_nothing_once_it_wakes(
    market: Market, rival: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "IDLE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(leadership, "LIFE_SECONDS", 60)  # It shows none.

    async def lead_and_freeze() -> None:
        async with leadership.leadership(market.runtime) as leader:
            assert leader is not None
            async with led(rival.runtime) as successor:
                await successor.assert_held()
                assert await sealer.seal_and_confirm(rival.runtime)
            assert await sealer.seal_and_confirm(market.runtime) == []  # It was in a round.
            await leader.assert_held()

    await market.take(market.event())
    with pytest.raises(Unavailable):
        await lead_and_freeze()
    assert await market.used("tokens") == 10


async def test_a_leader_is_told_also_where_its_sign_of_life_was_first_to_find_out(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LIFE_SECONDS", 0.01)

    async def lead_and_be_cut_off() -> None:
        async with leadership.leadership(market.runtime) as leader:
            assert leader is not None
            await terminate(market.runtime, await pid_of(leader.connection))
            await until(lambda: is_cut(leader.connection), seconds=WAIT_SECONDS)
            await leader.assert_held()

    with pytest.raises(Unavailable, match="another process may seal by now"):
        await lead_and_be_cut_off()


async def test_a_leader_that_is_busy_for_long_shows_that_it_lives(
    market: Market, rival: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "IDLE_SECONDS_MAX", 0.8)
    monkeypatch.setattr(leadership, "LIFE_SECONDS", 0.05)
    async with leadership.leadership(market.runtime) as leader:
        assert leader is not None
        # For longer than a leader may be idle, by the clock of PostgreSQL.
        async with rival.scope() as scope:
            await scope.db.execute(sa.text("SELECT pg_sleep(1)"))
        await leader.assert_held()
        assert await rival.try_to_seal() is None


async def test_a_leader_that_is_stopped_anywhere_leaves_the_right_to_others(
    market: Market, rival: Market
) -> None:
    async def lead() -> None:
        async with leadership.leadership(rival.runtime) as leader:
            assert leader is not None
            led_once.set()

    led_once = asyncio.Event()
    steps = 0
    while not led_once.is_set():
        leading = asyncio.create_task(lead())
        for _ in range(steps):
            await asyncio.sleep(0)
        leading.cancel()
        await asyncio.wait([leading])
        async with led(market.runtime):
            steps += 1
    assert steps > 1


async def test_a_segment_that_another_leader_has_confirmed_stays_as_it_is(
    market: Market, rival: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = sealer._finish

    async def late(runtime: Runtime, *others: Any) -> int | None:
        """What a leader that was frozen before the last step does."""
        monkeypatch.setattr(sealer, "_finish", finish)
        assert await sealer.seal_and_confirm(rival.runtime)
        before.extend(await market.rows("segment") + await market.rows("job"))
        return await finish(runtime, *others)

    before: list[Any] = []
    await market.take(market.event())
    monkeypatch.setattr(sealer, "_finish", late)
    assert await market.seal() == []
    assert before == await market.rows("segment") + await market.rows("job")


async def is_cut(connection: AsyncConnection) -> bool:
    return connection.invalidated


async def pid_of(connection: AsyncConnection) -> int:
    """PostgreSQL's process behind a connection."""
    return int(await connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)


@asynccontextmanager
async def led(runtime: Runtime) -> AsyncIterator[Leader]:
    """The right to seal, as soon as whoever had it is gone."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            async with leadership.leadership(runtime) as leader:
                if leader is not None:
                    yield leader
                    return
            await asyncio.sleep(0.01)
