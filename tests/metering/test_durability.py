"""Whatever dies, and wherever: what was acknowledged is in the log, once.

The test is the client. It writes down what it sends and what it is told, and holds the log, the
archive and the chain of segments against that.
"""

import asyncio
import dataclasses
import os
import random
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from aforo.metering import archive, queries
from aforo.metering.models import SegmentState
from aforo.metering.sealer import GENESIS
from aforo.metering.stored import unpacked
from aforo.sdk.ids import TenantId
from aforo.storage.tables import new_id
from tests.metering.crashable import (
    LINE_BYTES_MAX,
    PAUSE_SECONDS,
    Config,
    Hello,
    Said,
    Urls,
    opened,
)
from tests.metering.market import Market, open_market

KILLS_PER_POINT = int(os.environ.get("AFORO_TEST_KILLS_PER_POINT", "6"))
KILLS_OF_EVERYTHING = int(os.environ.get("AFORO_TEST_KILLS_OF_EVERYTHING", "2"))
POINTS = (
    *("ingest.written", "ingest.committed"),
    *("seal.assigned", "seal.committed"),
    *("archive.written", "confirm.archived", "confirm.inserted", "confirm.projected"),
    *("confirm.finishing", "confirm.finished"),
)
TURNS_MAX = 20
WAIT_SECONDS = 60
CHECKOUT = Path(__file__).parents[2]


@dataclass
class Journal:
    """What the client sent, and what it was told: the oracle."""

    market: Market
    sent: dict[str, int] = field(default_factory=dict)
    """Tokens by key."""
    acknowledged: set[str] = field(default_factory=set)
    again: list[list[dict[str, Any]]] = field(default_factory=list)
    """Batches to send once more: unanswered ones, and one that was acknowledged."""

    def turn(self) -> list[list[dict[str, Any]]]:
        """Two new batches, and what is to be sent again."""
        batches = [*self.again]
        self.again.clear()
        for _ in range(2):
            batch = []
            for _ in range(5):
                tokens = len(self.sent) + 1
                sent = self.market.event(f"event-{tokens}", properties={"tokens": tokens})
                self.sent[sent["idempotencyKey"]] = tokens
                batch.append(sent)
            batches.append(batch)
        return batches

    def acknowledge(self, batch: Sequence[dict[str, Any]]) -> None:
        self.acknowledged |= {sent["idempotencyKey"] for sent in batch}


async def test_a_crash_at_any_step_loses_nothing_and_doubles_nothing(
    market: Market, tmp_path: Path
) -> None:
    settings = market.runtime.settings
    urls = Urls(
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        clickhouse_url=settings.clickhouse_url,
    )
    journal = Journal(market)
    deaths = list(POINTS) * KILLS_PER_POINT
    random.Random(0).shuffle(deaths)
    config = config_for(market, tmp_path / "socket", urls=urls)
    async with crashable(config) as lives:
        for point in deaths:
            await live_until_death(lives, journal, point)
            assert await lives.exit_code() == -signal.SIGKILL
    await until_sealed(market, lives=len(deaths))
    await check(journal)
    assert len(journal.acknowledged) > len(deaths)


async def test_the_death_of_every_process_at_once_loses_nothing_that_was_acknowledged(
    market: Market, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(
        config_for(market, tmp_path / "socket", folder=str(tmp_path / "engines")),
        data_dir=str(tmp_path),
        tenant_id=new_id(),
    )
    journal: Journal | None = None
    chance = random.Random(1)
    async with crashable(config) as lives:
        for deaths in range(KILLS_OF_EVERYTHING + 1):
            lives.spell()
            reader, writer, hello = await lives.begin()
            runtime = opened(config, hello.urls, market.runtime.plugins)
            if journal is None:
                journal = Journal(await open_market(runtime, TenantId(config.tenant_id)))
            if deaths == KILLS_OF_EVERYTHING:
                journal.market = dataclasses.replace(journal.market, runtime=runtime)
                await until_sealed(journal.market, lives=deaths)
                await check(journal)
            else:
                turns = [journal.turn() for _ in range(10)]
                writer.writelines(msgspec.json.encode(turn) + b"\n" for turn in turns)
                last = chance.randrange(3, 17)
                async for number, batch in answers(reader, turns):
                    journal.acknowledge(batch)
                    if number == last:
                        kill_at_once(family(hello.pid))
                assert await lives.exit_code() == -signal.SIGKILL
            await runtime.close()
            writer.close()


async def live_until_death(lives: "Lives", journal: Journal, point: str) -> None:
    """One life: turns until it dies, and what it left unanswered goes to the journal."""
    lives.spell(point)
    reader, writer, _ = await lives.begin()
    for _ in range(TURNS_MAX):
        turn = journal.turn()
        writer.write(msgspec.json.encode(turn) + b"\n")
        unanswered = list(turn)
        async for _, batch in answers(reader, [turn]):
            journal.acknowledge(batch)
            unanswered.remove(batch)
        if reader.at_eof():
            # Half of them are tried again; whether the others count is open, but never twice.
            journal.again = [*unanswered[::2], *turn[-1:]]
            writer.close()
            return
    raise AssertionError(f"the process came past {point} alive")


async def answers(
    reader: StreamReader, turns: Sequence[Sequence[Any]]
) -> AsyncIterator[tuple[int, Any]]:
    """The batches as they are acknowledged, counted, until the turns are over or the life is."""
    number = 0
    for turn in turns:
        while line := await asyncio.wait_for(reader.readline(), WAIT_SECONDS):
            acknowledged = msgspec.json.decode(line, type=Said).acknowledged
            if acknowledged is None:
                break
            yield number, turn[acknowledged]
            number += 1


async def until_sealed(market: Market, *, lives: int) -> None:
    """Wait for the last life's leadership to end, and for the inbox to be empty: a life may leave a
    segment behind."""
    async with asyncio.timeout(WAIT_SECONDS + lives):
        while await market.rows("event_inbox"):
            await asyncio.sleep(PAUSE_SECONDS)
            await market.try_to_seal()


async def check(journal: Journal) -> None:
    """Hold the journal against the log, and the log against the archive and its chain."""
    market = journal.market
    async with market.scope() as scope:
        found = await scope.events.query(
            f"SELECT idempotency_key, count() AS times FROM {queries.EVENTS} GROUP BY 1",
            watermark=await queries.watermark(scope),
        )
    times = {row["idempotency_key"]: row["times"] for row in found}
    assert set(times.values()) == {1}
    assert journal.acknowledged <= times.keys() <= journal.sent.keys()
    assert await market.used("tokens") == sum(journal.sent[key] for key in times)
    archived = [
        event.idempotency_key
        for content in await checked_contents(market)
        for event in unpacked(content)
    ]
    assert sorted(archived) == sorted(times)
    assert not await market.rows("event_inbox")


async def checked_contents(market: Market) -> list[bytes]:
    """The archived segments of the tenant, after a look at each link of their chain."""
    contents = []
    previous = GENESIS
    for row in await market.rows("segment", order_by="segment_id"):
        path = archive.path_of(
            market.runtime.settings.data_dir, market.tenant_id, row["segment_id"]
        )
        content = path.read_bytes()
        assert row["state"] == SegmentState.CONFIRMED
        assert row["previous_sha256"] == previous
        assert row["sha256"] == archive.digest(content)
        assert row["events"] == len(unpacked(content))
        previous = row["sha256"]
        contents.append(content)
    return contents


@dataclass(frozen=True)
class Lives:
    """The process that lives one life after the other, and their connections to us."""

    process: Process
    connections: asyncio.Queue[tuple[StreamReader, StreamWriter]]

    def spell(self, point: str = "") -> None:
        """Begin a life, which ends at this fail point if not before."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{point}\n".encode())

    async def begin(self) -> tuple[StreamReader, StreamWriter, Hello]:
        """Wait for the life to say hello."""
        reader, writer = await asyncio.wait_for(self.connections.get(), WAIT_SECONDS)
        line = await asyncio.wait_for(reader.readline(), WAIT_SECONDS)
        return reader, writer, msgspec.json.decode(line, type=Hello)

    async def exit_code(self) -> int:
        """How the life ended; below zero is a signal."""
        assert self.process.stdout is not None
        return int(await asyncio.wait_for(self.process.stdout.readline(), WAIT_SECONDS))


@asynccontextmanager
async def crashable(config: Config) -> AsyncIterator[Lives]:
    """The process, and the socket at which its lives report."""
    connections: asyncio.Queue[tuple[StreamReader, StreamWriter]] = asyncio.Queue()

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        await connections.put((reader, writer))

    server = await asyncio.start_unix_server(connected, config.socket, limit=LINE_BYTES_MAX)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.metering.crashable", msgspec.json.encode(config).decode()),
        cwd=CHECKOUT,
        env=os.environ | {"AFORO_FAILPOINTS": "1"},
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield Lives(process, connections)
    finally:
        kill_at_once(family(process.pid))
        await process.communicate()
        server.close()


def config_for(market: Market, socket: Path, **settings: Any) -> Config:
    return Config(
        socket=str(socket),
        data_dir=str(market.runtime.settings.data_dir),
        key_pepper=market.runtime.settings.key_pepper,
        now=market.runtime.clock.now(),
        tenant_id=market.tenant_id,
        **settings,
    )


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # The name in parentheses may hold anything; the parent is the second field after.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It ended while we looked.
            yield int(entry.name), int(fields[1])


def kill_at_once(pids: Sequence[int]) -> None:
    """Kill them all, and none lives long enough to see another one die."""
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
