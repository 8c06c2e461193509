"""Each engine is frozen, and killed, while events are sent: what was acknowledged counts once.

The test is the client: it sends what was not acknowledged again, as any client would.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aforo.metering import known, queries, taking
from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage import redis, remembered, scope
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.embedded.supervisor import Supervisor
from aforo.storage.migrate import migrate
from aforo.storage.tables import new_id
from tests.metering.crashable import Config, Urls, opened
from tests.metering.market import Market, open_market
from tests.metering.test_durability import config_for, family

ENGINES = ("postgres", "redis", "clickhouse")
WAIT_SECONDS = 60
PAUSE_SECONDS = 0.05


@dataclass
class Sender:
    """Sends events until they are acknowledged, and counts how often they were not."""

    market: Market
    acknowledged: set[str] = field(default_factory=set)
    refused: int = 0

    async def send(self, *keys: str) -> None:
        """One try for each, all at once."""
        await asyncio.gather(*map(self._send, keys))

    async def until_acknowledged(self, keys: Sequence[str]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while left := [key for key in keys if key not in self.acknowledged]:
                await self.send(*left)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _send(self, key: str) -> None:
        try:
            answer = await self.market.take(self.market.event(key))
        except Unavailable:
            self.refused += 1
        else:
            assert answer.accepted + answer.duplicates == 1
            self.acknowledged.add(key)


@pytest.fixture(scope="module")
def own_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngines]:
    """Engines that may be killed."""
    with EmbeddedEngines.start(tmp_path_factory.mktemp("own")) as engines:
        yield engines


@pytest.fixture
async def sender(
    market: Market, own_engines: EmbeddedEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sender]:
    await migrate(
        owner_database_url=own_engines.owner_database_url,
        database_url=own_engines.database_url,
        clickhouse_url=own_engines.clickhouse_url,
    )
    monkeypatch.setattr(taking, "ROUND_SECONDS_MAX", 0.5)
    monkeypatch.setattr(known, "LOOK_UP_SECONDS_MAX", 0.5)
    monkeypatch.setattr(remembered, "READ_SECONDS_MAX", 0.5)
    for patience in ("ANSWER", "APPEND"):
        monkeypatch.setattr(redis, f"{patience}_TIMEOUT_SECONDS", 0.2)
    config: Config = config_for(market, tmp_path / "socket")
    urls = Urls(
        database_url=own_engines.database_url,
        redis_url=own_engines.redis_url,
        clickhouse_url=own_engines.clickhouse_url,
    )
    runtime = opened(config, urls, market.runtime.plugins)
    yield Sender(await open_market(runtime, TenantId(new_id())))
    await runtime.close()


@contextmanager
def frozen(supervisor: Supervisor) -> Iterator[None]:
    """An engine that is there, and does nothing."""
    assert supervisor.pid is not None
    pids = family(supervisor.pid)
    # Whatever becomes of this process, what it has frozen goes on: with it, this one's input ends.
    thaw = f"read line; kill -CONT {' '.join(map(str, pids))} 2> /dev/null"
    with subprocess.Popen(["sh", "-c", thaw], stdin=subprocess.PIPE, start_new_session=True):
        signal_all(pids, signal.SIGSTOP)
        yield


def signal_all(pids: Sequence[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # It ended by itself meanwhile.
            os.kill(pid, what)


@pytest.mark.parametrize("name", ENGINES)
async def test_an_engine_that_is_frozen_for_a_while_costs_no_event(
    sender: Sender, own_engines: EmbeddedEngines, name: str
) -> None:
    supervisor: Supervisor = getattr(own_engines, name).supervisor
    keys = [f"{name}-{number}" for number in range(30)]
    await sender.send(*keys[:10])
    with frozen(supervisor):
        await sender.send(*keys[10:20])
    await sender.until_acknowledged(keys)
    assert (sender.refused > 0) == (name == "postgres")
    await check(sender, keys)


@pytest.mark.parametrize("name", ENGINES)
async def test_an_engine_that_is_killed_costs_no_event(
    sender: Sender, own_engines: EmbeddedEngines, name: str
) -> None:
    supervisor: Supervisor = getattr(own_engines, name).supervisor
    keys = [f"{name}-{number}" for number in range(30)]
    await sender.send(*keys[:10])
    assert supervisor.pid is not None
    before = supervisor.pid
    sending = asyncio.create_task(sender.send(*keys[10:20]))
    signal_all(family(before), signal.SIGKILL)
    await sending
    await sender.until_acknowledged(keys)
    await check(sender, keys)
    assert supervisor.pid != before


async def test_a_process_ends_while_every_engine_is_frozen(
    sender: Sender, own_engines: EmbeddedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "CLOSE_SECONDS_MAX", 0.5)
    await sender.until_acknowledged(["before"])
    market = sender.market
    market.runtime.remembered.begin(market.runtime.app)
    supervisors: list[Supervisor] = [getattr(own_engines, name).supervisor for name in ENGINES]
    with frozen(supervisors[0]), frozen(supervisors[1]), frozen(supervisors[2]):
        async with asyncio.timeout(WAIT_SECONDS):
            await market.runtime.close()


async def check(sender: Sender, keys: Sequence[str]) -> None:
    """Seal, as soon as the engines are there again, and hold the log against what was sent."""
    market = sender.market
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await market.try_to_seal()
                if not await market.rows("event_inbox"):
                    break
            except Unavailable:
                pass
            await asyncio.sleep(PAUSE_SECONDS)
    async with market.scope() as opened_scope:
        found = await opened_scope.events.query(
            f"SELECT idempotency_key, count() AS times FROM {queries.EVENTS} GROUP BY 1",
            watermark=await queries.watermark(opened_scope),
        )
    assert {row["idempotency_key"]: row["times"] for row in found} == dict.fromkeys(keys, 1)
    assert sender.acknowledged == set(keys)
