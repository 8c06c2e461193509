"""What a process remembers is read once for all who ask, and never from before a change."""

import asyncio

import pytest

from aforo.sdk.errors import Unavailable
from aforo.storage import remembered
from aforo.storage.remembered import Remembered


class Source:
    """Something that is read, as often as it is counted, and as late as it is let go."""

    def __init__(self) -> None:
        self.value, self.reads = "old", 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def read(self) -> str:
        self.reads += 1
        value = self.value
        self.begun.set()
        await self.go.wait()
        return value


@pytest.fixture
def memory() -> Remembered:
    return Remembered()


@pytest.fixture
def source() -> Source:
    return Source()


async def test_those_who_ask_at_the_same_time_share_one_look(
    memory: Remembered, source: Source
) -> None:
    asking = [asyncio.create_task(memory.recall("k", source.read, about="a")) for _ in range(9)]
    await source.begun.wait()
    asking[0].cancel()  # Whoever asked first gives up, which is nothing to the others.
    source.go.set()
    assert await asyncio.gather(*asking[1:]) == ["old"] * 8
    assert await memory.recall("k", source.read, about="a") == "old"
    assert source.reads == 1


async def test_what_was_read_before_a_change_is_given_to_nobody_who_asks_after_it(
    memory: Remembered, source: Source
) -> None:
    early = asyncio.create_task(memory.recall("k", source.read, about="a"))
    await source.begun.wait()
    source.value = "new"
    memory.hear("a")
    late = asyncio.create_task(memory.recall("k", source.read, about="a"))
    source.go.set()
    assert (await early, await late) == ("old", "new")
    assert memory.find("k") == "new"


async def test_a_failure_is_told_and_not_remembered(memory: Remembered, source: Source) -> None:
    async def fail() -> str:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await memory.recall("k", fail, about="a")
    source.go.set()
    assert await memory.recall("k", source.read, about="a") == "old"


async def test_an_engine_that_gives_no_answer_holds_nobody_up(
    memory: Remembered, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "READ_SECONDS_MAX", 0.05)
    with pytest.raises(Unavailable, match="no answer"):
        await memory.recall("k", source.read, about="a")
    source.go.set()
    assert await memory.recall("k", source.read, about="a") == "old"
