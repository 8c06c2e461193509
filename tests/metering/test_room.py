"""Where there is no room for more, senders are told to wait, and nothing is dropped."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from aforo.metering import room
from aforo.sdk.errors import Unavailable
from aforo.storage.scope import open_runtime
from tests.metering.market import KEPT, Market


@pytest.fixture
async def full_disk(market: Market) -> AsyncIterator[Market]:
    """The same tenant, served by a process that may fill no disk."""
    runtime = market.runtime
    settings = dataclasses.replace(runtime.settings, disk_percent_max=1)
    other = open_runtime(settings, runtime.plugins, runtime.clock)
    yield dataclasses.replace(market, runtime=other)
    await other.close()


@pytest.fixture
async def other_process(market: Market) -> AsyncIterator[Market]:
    runtime = market.runtime
    other = open_runtime(runtime.settings, runtime.plugins, runtime.clock)
    yield dataclasses.replace(market, runtime=other)
    await other.close()


@pytest.mark.parametrize("atomic", [True, False])
async def test_on_a_full_disk_nothing_is_taken_and_nothing_written(
    full_disk: Market, *, atomic: bool
) -> None:
    with pytest.raises(Unavailable, match=r"the disk of the archive is [0-9]+ % full") as refused:
        await full_disk.take(full_disk.event(), atomic=atomic)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("NO_ROOM", 30)
    for table in KEPT:
        assert await full_disk.rows(table) == []


async def test_where_too_much_waits_the_next_waits_too_until_the_log_has_caught_up(
    other_process: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = other_process
    await market.seal()
    monkeypatch.setattr(room, "EVENTS_MAX", 2)
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)
    sent = market.event("third")
    await market.take(market.event(), market.event())
    with pytest.raises(Unavailable, match="events wait to reach the log"):
        await market.take(sent)
    await market.seal()
    assert (await market.take(sent)).accepted == 1


async def test_it_is_looked_at_once_in_a_while_and_not_for_every_batch(
    other_process: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other_process.take(other_process.event(), other_process.event())
    monkeypatch.setattr(room, "EVENTS_MAX", 1)
    assert (await other_process.take(other_process.event())).accepted == 1
