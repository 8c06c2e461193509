"""Work beside requests: one of a key, few at once, and no failure that anybody sees."""

import asyncio

import pytest

from aforo.storage import background
from aforo.storage.background import WORK_MAX, Background

pytestmark = pytest.mark.anyio


async def test_of_one_key_only_one_runs_and_of_all_a_hundred() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(1)

    beside = Background()
    assert beside.start(0, work)
    assert not beside.start(0, work)
    assert all(beside.start(number, work) for number in range(1, WORK_MAX))
    assert not beside.start("one more", work)
    gate.set()
    await beside.settle()
    assert len(done) == WORK_MAX
    assert beside.start(0, work)
    await beside.close()
    assert len(done) == WORK_MAX + 1


async def test_a_failure_is_nobody_elses() -> None:
    async def fail() -> None:
        raise ValueError("lost")

    beside = Background()
    for _ in range(2):
        assert beside.start("key", fail)
        await beside.settle()


async def test_closing_gives_up_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "CLOSE_TIMEOUT_SECONDS", 0.01)
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    beside = Background()
    beside.start("key", hang)
    await beside.close()
    assert ended.is_set()
