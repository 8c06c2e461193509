"""Token buckets in a real Redis: exact over processes, cheap within one, and there without it."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from aforo.storage import buckets as module
from aforo.storage.buckets import Buckets, Rate
from aforo.storage.clock import MovableClock
from aforo.storage.embedded import EmbeddedEngines
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

SLOW = Rate(per_second=2, burst=20)
FAST = Rate(per_second=1_000, burst=10_000)


@pytest.fixture
async def pair(engines: EmbeddedEngines) -> AsyncIterator[tuple[Buckets, Buckets]]:
    """The buckets of two processes."""
    both = Buckets(engines.redis_url), Buckets(engines.redis_url)
    yield both
    for each in both:
        await each.close()


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


async def test_a_bucket_gives_its_burst_and_then_as_much_as_flows_in(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    bucket = pair[0]
    taken = [await bucket.take(key, SLOW, 1, clock.now()) for _ in range(20)]
    assert [each.remaining for each in taken] == list(range(19, -1, -1))
    assert all(each.granted for each in taken)
    refused = await bucket.take(key, SLOW, 5, clock.now())
    assert (refused.granted, refused.wait_seconds, refused.remaining) == (False, 3, 0)
    assert refused.full_in_seconds == 10
    clock.advance(timedelta(seconds=2))
    assert not (await bucket.take(key, SLOW, 5, clock.now())).granted
    clock.advance(timedelta(seconds=0.5))
    assert (await bucket.take(key, SLOW, 5, clock.now())).granted
    clock.advance(timedelta(days=1))
    full = await bucket.take(key, SLOW, 1, clock.now())
    assert full.remaining == 19


async def test_two_processes_share_one_bucket_and_give_no_token_twice(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    rate = Rate(per_second=100, burst=500)
    now = clock.now()
    answers = await asyncio.gather(
        *(pair[number % 2].take(key, rate, 3, now) for number in range(400))
    )
    granted = sum(each.granted for each in answers)
    # What is left is less than one request in each process's lot, and in the bucket.
    assert 500 // 3 - 2 <= granted <= 500 // 3


async def test_a_lot_serves_many_requests_without_asking_redis(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    bucket = pair[0]
    for _ in range(1_000):
        assert (await bucket.take(key, FAST, 1, clock.now())).granted
    assert bucket.asked == 1_000 // FAST.lot == 10


async def test_what_is_left_of_a_lot_goes_back_after_a_second(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    first, second = pair
    assert Rate(per_second=10, burst=1_000).lot == 1
    fast = Rate(per_second=200, burst=1_000)
    assert fast.lot == 20
    await first.take(key, fast, 1, clock.now())
    clock.advance(timedelta(seconds=1))
    await first.take(key, fast, 1, clock.now())  # Gives 19 back, takes 20; 200 flowed in: full.
    assert (await second.take(key, fast, 1, clock.now())).remaining == 1_000 - 20 - 1


async def test_what_is_given_back_is_there_for_the_next(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    first, second = pair
    assert (await first.take(key, SLOW, 15, clock.now())).remaining == 5
    first.give_back(key, SLOW, 15)
    assert (await first.take(key, SLOW, 20, clock.now())).granted
    first.give_back(key, SLOW, 20)
    first.give_back(key, SLOW, 20)  # Never more than there is room for.
    assert (await first.take(key, SLOW, 1, clock.now())).remaining == 19
    clock.advance(timedelta(seconds=1))
    await first.take(key, SLOW, 20, clock.now())  # What lies here goes back to Redis with it.
    assert not (await second.take(key, SLOW, 1, clock.now())).granted


async def test_a_clock_that_goes_back_gives_no_tokens(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    bucket = pair[0]
    for _ in range(20):
        await bucket.take(key, SLOW, 1, clock.now())
    for moved in (timedelta(hours=-1), timedelta(hours=1)):
        clock.advance(moved)
        assert not (await bucket.take(key, SLOW, 1, clock.now())).granted


async def test_who_needs_more_than_the_burst_waits_for_a_full_bucket(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    bucket = pair[0]
    assert (await bucket.take(key, SLOW, 1_000, clock.now())).granted
    assert (await bucket.take(key, SLOW, 1_000, clock.now())).wait_seconds == 10


async def test_another_rate_holds_at_once(
    pair: tuple[Buckets, Buckets], key: str, clock: MovableClock
) -> None:
    bucket = pair[0]
    await bucket.take(key, FAST, 10, clock.now())
    lowered = await bucket.take(key, SLOW, 1, clock.now())
    assert (lowered.remaining, lowered.rate) == (19, SLOW)


async def test_without_redis_a_process_counts_for_itself(key: str, clock: MovableClock) -> None:
    alone = Buckets("redis://127.0.0.1:1/0")
    answers = [await alone.take(key, SLOW, 1, clock.now()) for _ in range(30)]
    assert [each.granted for each in answers] == [True] * 20 + [False] * 10
    assert alone.asked == 1
    clock.advance(timedelta(seconds=1))
    assert (await alone.take(key, SLOW, 2, clock.now())).granted
    await alone.close()


async def test_a_redis_that_is_frozen_holds_a_request_up_once_and_shortly(
    key: str, clock: MovableClock
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    frozen = Buckets(f"redis://127.0.0.1:{port}/0")
    async with asyncio.timeout(module.ANSWER_TIMEOUT_SECONDS + 20):
        assert (await frozen.take(key, SLOW, 1, clock.now())).granted
    for _ in range(5):
        await frozen.take(key, SLOW, 1, clock.now())
    assert frozen.asked == 1
    await frozen.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    server.close()


async def test_redis_is_asked_again_when_it_is_back(
    engines: EmbeddedEngines, key: str, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    buckets = Buckets(engines.redis_url)
    buckets._alone_until = time.monotonic() + 3_600
    assert (await buckets.take(key, SLOW, 1, clock.now())).granted
    assert buckets.asked == 0
    buckets._alone_until = 0
    assert (await buckets.take(key, SLOW, 1, NOW)).granted
    assert buckets.asked == 1
    await buckets.close()


async def test_the_buckets_that_a_process_knows_are_bounded(
    pair: tuple[Buckets, Buckets], clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUCKETS_MAX", 3)
    for number in range(5):
        await pair[0].take(f"test:{uuid4()}:{number}", SLOW, 1, clock.now())
    assert len(pair[0]._known) == 3
