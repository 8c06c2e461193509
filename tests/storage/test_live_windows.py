"""Windows of what happens often: told to who watches, counted exactly, and never waited for."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage import live_windows
from aforo.storage.embedded import redis as embedded_redis
from aforo.storage.live_topic import Follower
from aforo.storage.live_windows import Say, Window
from aforo.storage.redis import Live
from aforo.storage.scope import Runtime
from tests.api.listening import wait_for

pytestmark = pytest.mark.anyio

STREAM = "verdicts"


@pytest.fixture
async def here(runtime: Runtime) -> AsyncIterator[Live]:
    """The connections of one process,"""
    opened = Live(runtime.settings.redis_url)
    yield opened
    await opened.close()


@pytest.fixture
async def there(runtime: Runtime) -> AsyncIterator[Live]:
    """and those of another."""
    opened = Live(runtime.settings.redis_url)
    yield opened
    await opened.close()


def things(group: str, count: int) -> Say:
    def say(window: Window) -> None:
        for _ in range(count):
            window.add((group, None), lambda: {"of": group})

    return say


async def read(follower: Follower, total: int) -> tuple[Counter[str], list[Any]]:
    """What is told, until so much was: each window counts once."""
    counts: Counter[str] = Counter()
    windows: dict[tuple[str, int], Any] = {}
    async with asyncio.timeout(60):
        while counts.total() < total:
            data = (await anext(follower)).data
            if windows.setdefault((data["writer"], data["number"]), data) is data:
                counts.update({group: count for group, _, count in data["counts"]})
    return counts, list(windows.values())


async def test_what_nobody_watches_is_not_even_added_up(here: Live, tenant_id: TenantId) -> None:
    added = []
    async with here.of(TenantId(uuid4())).watching(STREAM):
        # As long as it is not known whether somebody watches, it is kept for a moment.
        here.of(tenant_id).tell(STREAM, 1, lambda _window: added.append("unsure"))
        await wait_for(lambda: not here._windows._pending)
        here.of(tenant_id).tell(STREAM, 1, lambda _window: added.append("sure"))
        assert not here._windows._pending
    follower = await here.of(tenant_id).follow(STREAM)
    assert follower.seen is None
    follower.close()
    assert "sure" not in added


async def test_a_watcher_in_another_process_is_soon_known(
    here: Live, there: Live, tenant_id: TenantId
) -> None:
    there.of(tenant_id).tell(STREAM, 1, things("before", 1))
    await wait_for(lambda: not there._windows._pending)
    async with here.of(tenant_id).watching(STREAM):
        follower = await here.of(tenant_id).follow(STREAM)
        begun = time.monotonic()
        while not follower.is_ready():
            there.of(tenant_id).tell(STREAM, 1, things("after", 1))
            await asyncio.sleep(0.02)
        assert time.monotonic() - begun < 10
        counts, _ = await read(follower, 1)
        assert set(counts) == {"after"}
        follower.close()


async def test_a_window_counts_all_and_shows_as_much_as_there_is_room_for(
    here: Live, tenant_id: TenantId
) -> None:
    of = here.of(tenant_id)
    async with of.watching(STREAM):
        follower = await of.follow(STREAM)
        of.tell(STREAM, 3_000, things("a", 3_000))
        of.tell(STREAM, live_windows.WAITING_MAX, things("b", live_windows.WAITING_MAX))
        counts, windows = await read(follower, 3_000 + live_windows.WAITING_MAX)
        follower.close()
    assert counts == {"a": 3_000, "b": live_windows.WAITING_MAX}
    assert all(len(window["shown"]) <= live_windows.SHOWN_MAX for window in windows)


def test_groups_beyond_the_bound_are_counted_by_their_first_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_windows, "GROUPS_MAX", 2)
    window = Window()
    for customer in ("one", "two", "three", "four", "one"):
        window.add(("ACCEPTED", customer), dict)
    assert window.counts == {
        ("ACCEPTED", "one"): 2,
        ("ACCEPTED", "two"): 1,
        ("ACCEPTED", None): 2,
    }


async def test_a_frozen_redis_holds_up_nobody_and_costs_no_count(
    redis_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aforo.storage.redis.APPEND_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr("aforo.storage.live_log.REST_SECONDS", 0.1)
    server = embedded_redis.start(redis_root, port=0)
    live, tenant_id = Live(server.url), TenantId(uuid4())
    pid = server.supervisor.pid
    assert pid is not None
    try:
        async with live.of(tenant_id).watching(STREAM):
            follower = await live.of(tenant_id).follow(STREAM)
            live.of(tenant_id).tell(STREAM, 10, things("a", 10))
            await read(follower, 10)
            os.kill(pid, signal.SIGSTOP)
            begun = time.monotonic()
            for _ in range(40):
                live.of(tenant_id).tell(STREAM, 1_000, things("a", 1_000))
                await asyncio.sleep(0)
            assert time.monotonic() - begun < 4  # Of eight, if each waited.
            await asyncio.sleep(0.5)  # Time enough to try, to fail, and to try again.
            os.kill(pid, signal.SIGCONT)
            # What was sent and not answered may have arrived: it is told once more, as it is.
            counts, _ = await read(follower, 40_000)
            assert counts == {"a": 40_000}
            follower.close()
    finally:
        os.kill(pid, signal.SIGCONT)
        await live.close()
        await asyncio.to_thread(server.stop)


async def test_nobody_watches_without_redis() -> None:
    live = Live("redis://127.0.0.1:1/0")
    of = live.of(TenantId(uuid4()))
    with pytest.raises(Unavailable):
        async with of.watching(STREAM):
            pass
    of.tell(STREAM, 1, things("a", 1))
    await wait_for(lambda: not live._windows._pending)
    await live.close()
