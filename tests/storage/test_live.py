"""The live log and the hub: what a reader gets, what it is told, and what it holds."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage import live_hub, live_log, live_topic
from aforo.storage.embedded import redis as embedded_redis
from aforo.storage.live_log import START, Position
from aforo.storage.live_topic import FellBehind, Follower
from aforo.storage.redis import Live
from aforo.storage.scope import Runtime

pytestmark = pytest.mark.anyio

STREAM = "events"


@pytest.fixture
async def live(runtime: Runtime) -> AsyncIterator[Live]:
    """Connections and a hub of the test's own."""
    opened = Live(runtime.settings.redis_url)
    yield opened
    await opened.close()


async def announce(live: Live, tenant_id: TenantId, *numbers: int, **more: Any) -> None:
    of = live.of(tenant_id)
    for number in numbers:
        of.announce(STREAM, {"number": number, **more})
    await of.flush()


async def take(follower: Follower, count: int) -> list[int]:
    async with asyncio.timeout(60):
        return [(await anext(follower)).data["number"] for _ in range(count)]


async def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_a_reader_gets_what_is_announced_from_now_on_or_after_a_position(
    live: Live, tenant_id: TenantId
) -> None:
    await announce(live, tenant_id, 1, 2)
    new = await live.of(tenant_id).follow(STREAM)
    await announce(live, tenant_id, 3, 4)
    assert await take(new, 1) == [3]
    seen = new.seen
    assert await take(new, 1) == [4]
    again = await live.of(tenant_id).follow(STREAM, after=seen)
    assert await take(again, 1) == [4]
    whole = await live.of(tenant_id).follow(STREAM, after=START)
    assert await take(whole, 4) == [1, 2, 3, 4]
    await announce(live, tenant_id, 5)
    for follower in (new, again, whole):
        assert await take(follower, 1) == [5]
        assert follower.missed is None
        follower.close()


async def test_nobody_reads_the_stream_of_another_tenant(live: Live, tenant_id: TenantId) -> None:
    other = await live.of(TenantId(uuid4())).follow(STREAM, after=START)
    mine = await live.of(tenant_id).follow(STREAM)
    await announce(live, tenant_id, 1)
    assert await take(mine, 1) == [1]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await anext(other)
    mine.close()
    other.close()


async def test_what_is_not_wanted_is_passed_over_and_not_missed(
    live: Live, tenant_id: TenantId
) -> None:
    follower = await live.of(tenant_id).follow(STREAM, wants=lambda data: data["number"] % 3 == 0)
    taking = asyncio.create_task(take(follower, 2))
    for number in range(1, 8):
        await announce(live, tenant_id, number)
    assert await taking == [3, 6]
    assert follower.missed is None
    waiting = asyncio.create_task(take(follower, 1))
    await wait_for(lambda: follower.seen is not None and follower.seen.number == 7)
    waiting.cancel()
    follower.close()


async def test_a_reader_that_asks_for_what_the_log_no_longer_has_is_told_how_much(
    live: Live, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_log, "LOG_MESSAGES_MAX", 10)
    follower = await live.of(tenant_id).follow(STREAM)
    await announce(live, tenant_id, 1)
    await take(follower, 1)
    old = follower.seen
    follower.close()
    await announce(live, tenant_id, *range(2, 31))
    late = await live.of(tenant_id).follow(STREAM, after=old)
    assert await take(late, 1) == [21]
    assert late.missed is not None
    assert (late.missed.count, late.missed.after) == (19, old)
    assert late.missed.before == late.seen
    assert await take(late, 9) == [*range(22, 31)]
    assert late.missed is None
    late.close()


async def test_the_log_keeps_fewer_messages_where_they_are_large(
    runtime: Runtime, live: Live, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_log, "LOG_BYTES_MAX", 100_000)
    await announce(live, tenant_id, *range(50), text="x" * 10_000)
    follower = await live.of(tenant_id).follow(STREAM, after=START)
    kept = await take(follower, 1)
    assert follower.missed is not None
    assert (follower.missed.count, kept) == (40, [40])
    assert await take(follower, 9) == [*range(41, 50)]
    follower.close()
    async with Redis.from_url(runtime.settings.redis_url) as redis:
        ttl = await redis.ttl(f"aforo:{tenant_id}:{STREAM}")
    assert 0 < ttl <= live_log.LOG_SECONDS_MAX


async def test_a_log_that_was_lost_is_told_and_not_counted(
    runtime: Runtime, live: Live, tenant_id: TenantId
) -> None:
    follower = await live.of(tenant_id).follow(STREAM)
    await announce(live, tenant_id, 1, 2, 3)
    assert await take(follower, 3) == [1, 2, 3]
    async with Redis.from_url(runtime.settings.redis_url) as redis:
        await redis.delete(f"aforo:{tenant_id}:{STREAM}")
        assert follower.seen is not None
        while (now := await redis.time())[0] * 1_000 + now[1] // 1_000 <= follower.seen.moment:
            pass  # Time has to move on for a new log to begin after the old one.
    await announce(live, tenant_id, 4, 5)
    assert await take(follower, 1) == [4]
    assert follower.missed is not None
    assert follower.missed.count is None
    assert await take(follower, 1) == [5]
    assert follower.missed is None
    follower.close()


async def test_everybody_holds_a_message_once_and_nobody_holds_what_all_have_taken(
    live: Live, tenant_id: TenantId
) -> None:
    followers = [await live.of(tenant_id).follow(STREAM) for _ in range(50)]
    [topic] = live.hub._topics.values()
    tasks = [asyncio.create_task(take(follower, 20)) for follower in followers]
    await announce(live, tenant_id, *range(20))
    assert await asyncio.gather(*tasks) == [[*range(20)]] * 50
    assert (topic.held_bytes, topic.ring, topic._crowd) == (0, {}, {topic.head: 50})
    for follower in followers:
        follower.close()
    assert live.hub._topics == {}


async def test_a_reader_that_takes_nothing_falls_behind_and_slows_nobody(
    live: Live, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_topic, "RING_MESSAGES_MAX", 30)
    slow = await live.of(tenant_id).follow(STREAM)
    quick = await live.of(tenant_id).follow(STREAM)
    for number in range(100):
        await announce(live, tenant_id, number)
        assert await take(quick, 1) == [number]
        [topic] = live.hub._topics.values()
        # Once nobody can still be served from it, the rest is let go of too.
        assert len(topic.ring) == (number + 1 if number < 30 else 0)
    with pytest.raises(FellBehind) as told:
        await anext(slow)
    assert told.value.missed.count == 100
    slow.close()
    again = await live.of(tenant_id).follow(STREAM, after=slow.seen or START)
    assert await take(again, 100) == [*range(100)]
    again.close()
    quick.close()


async def test_all_that_is_held_for_the_slow_is_bounded_together(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_hub, "HELD_BYTES_MAX", 100_000)
    tenants = [TenantId(uuid4()) for _ in range(20)]
    stuck = [await live.of(tenant_id).follow(STREAM) for tenant_id in tenants]
    for tenant_id in tenants:
        await announce(live, tenant_id, *range(20), text="x" * 1_000)
    topics = list(live.hub._topics.values())
    await wait_for(lambda: all(topic.head == 20 for topic in topics))
    assert 50_000 < sum(topic.held_bytes for topic in topics) <= 100_000
    outcomes = set()
    for follower in stuck:
        try:
            outcomes.add(tuple(await take(follower, 20)))
        except FellBehind as error:
            outcomes.add(error.missed.count)
        follower.close()
    assert outcomes == {20, tuple(range(20))}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_between_the_log_and_what_is_live_there_is_no_gap_and_nothing_twice(
    data: st.DataObject,
) -> None:
    """Of the ring alone, without Redis: a reader joins at any moment, with any page of the log."""
    asyncio.run(_model(data))


async def _model(data: st.DataObject) -> None:
    log: list[live_log.Message] = []

    def add(count: int) -> list[live_log.Message]:
        new = [
            live_log.Message(Position(number // 3, number % 3, 7, number), {"number": number}, 10)
            for number in range(len(log) + 1, len(log) + count + 1)
        ]
        log.extend(new)
        return new

    async def read(_key: str, after: Position | None, until: Position) -> list[live_log.Message]:
        if unread and data.draw(st.booleans()):
            topic.publish([unread.pop(0) for _ in range(data.draw(st.integers(1, len(unread))))])
        await asyncio.sleep(0)
        page = [one for one in log if one.position.is_past(after)]
        page = [one for one in page if not one.position.is_past(until)]
        return page[: data.draw(st.integers(1, 4))]

    topic = live_topic.Topic("key", read=read, on_end=lambda _topic: None)
    unread: list[live_log.Message] = []
    topic.publish(add(data.draw(st.integers(0, 12))))
    unread += add(data.draw(st.integers(0, 12)))
    start = data.draw(st.integers(0, len(log)))
    after = log[start - 1].position if start else START
    follower = Follower(topic, after, None)
    follower.begin()
    got: list[int] = []
    while len(got) < len(log) - start:
        if unread and data.draw(st.booleans()):
            topic.publish([unread.pop(0)])
        try:
            async with asyncio.timeout(0.005 if unread else 30):
                got.append((await anext(follower)).data["number"])
        except TimeoutError:
            assert unread, "there is nothing to wait for"
            topic.publish([unread.pop(0)])
        assert follower.missed is None
    assert got == [*range(start + 1, len(log) + 1)]


async def test_a_redis_that_restarts_costs_no_message_and_doubles_none(redis_root: Path) -> None:
    server = embedded_redis.start(redis_root, port=0)
    port = int(server.url.rsplit(":", 1)[1].partition("/")[0])
    live = Live(server.url)
    tenant_id = TenantId(uuid4())
    try:
        followers = [await live.of(tenant_id).follow(STREAM) for _ in range(20)]
        tasks = [asyncio.create_task(_until(follower, 300)) for follower in followers]
        for number in range(100):
            await announce(live, tenant_id, number)
        late = asyncio.create_task(
            _until(await live.of(tenant_id).follow(STREAM, after=START), 300)
        )
        await asyncio.to_thread(server.stop)
        # Nobody writes them down, and everybody is told how many there were.
        for number in range(100, 110):
            await announce(live, tenant_id, number)
        server = await asyncio.to_thread(embedded_redis.start, redis_root, port=port)
        await wait_for(lambda: live._log._rests_until < time.monotonic())
        for number in range(110, 300):
            await announce(live, tenant_id, number)
        async with asyncio.timeout(60):
            results = await asyncio.gather(*tasks, late)
        kept = [*range(100), *range(110, 300)]
        assert results == [(kept, 10)] * 21
        anew = await live.of(tenant_id).follow(STREAM, after=START)
        assert await _until(anew, 300) == (kept, 10)
        followers.append(anew)
        for follower in followers:
            follower.close()
    finally:
        await live.close()
        await asyncio.to_thread(server.stop)


async def _until(follower: Follower, count: int) -> tuple[list[int], int]:
    """Take until so many were taken or missed; what was taken, and how many were missed."""
    got: list[int] = []
    missed = 0
    while len(got) + missed < count:
        got.append((await anext(follower)).data["number"])
        if follower.missed is not None:
            missed += follower.missed.count or 0
    return got, missed


async def test_a_redis_that_stays_away_ends_the_streams_in_words(
    redis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_hub, "OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr(live_hub, "LOOK_SECONDS", 0.2)
    server = embedded_redis.start(redis_root, port=0)
    live = Live(server.url)
    tenant_id = TenantId(uuid4())
    try:
        follower = await live.of(tenant_id).follow(STREAM)
        waiting = asyncio.create_task(take(follower, 1))
        await announce(live, tenant_id, 1)
        assert await waiting == [1]
        await asyncio.to_thread(server.stop)
        with pytest.raises(Unavailable, match="go on after the last cursor"):
            await take(follower, 1)
        with pytest.raises(Unavailable, match="go on after the last cursor"):
            await live.of(tenant_id).follow(STREAM)
        follower.close()
    finally:
        await live.close()
        await asyncio.to_thread(server.stop)


async def test_a_frozen_redis_holds_up_whoever_announces_for_a_moment_once(
    redis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aforo.storage.redis.APPEND_TIMEOUT_SECONDS", 0.2)
    server = embedded_redis.start(redis_root, port=0)
    live = Live(server.url)
    tenant_id = TenantId(uuid4())
    try:
        await announce(live, tenant_id, 1)
        pid = server.supervisor.pid
        assert pid is not None
        clock = asyncio.get_running_loop().time
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = clock()
            for number in range(50):
                await announce(live, tenant_id, number)
            assert clock() - begun < 5  # Of ten, if each waited.
        finally:
            os.kill(pid, signal.SIGCONT)
    finally:
        await live.close()
        await asyncio.to_thread(server.stop)


async def test_a_redis_that_freezes_is_waited_for_and_then_given_up(
    redis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aforo.storage.redis.FOLLOW_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(live_hub, "LOOK_SECONDS", 0.2)
    server = embedded_redis.start(redis_root, port=0)
    live = Live(server.url)
    tenant_id = TenantId(uuid4())
    pid = server.supervisor.pid
    assert pid is not None
    try:
        follower = await live.of(tenant_id).follow(STREAM)
        await announce(live, tenant_id, 1)
        assert await take(follower, 1) == [1]
        taking = asyncio.create_task(take(follower, 2))
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.shield(taking)
        os.kill(pid, signal.SIGCONT)
        await announce(live, tenant_id, 2, 3)
        assert await taking == [2, 3]
        assert follower.missed is None
        monkeypatch.setattr(live_hub, "OUTAGE_SECONDS", 0.5)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(Unavailable, match="go on after the last cursor"):
            await take(follower, 1)
        follower.close()
    finally:
        os.kill(pid, signal.SIGCONT)
        await live.close()
        await asyncio.to_thread(server.stop)
