"""A process that takes batches and seals them, until a fail point or the test kills it.

`python -m tests.metering.crashable CONFIG`, where CONFIG is the JSON of `Config`. Each line on
stdin begins a life in a fork of the process, so that the imports are paid for once, and may name
a fail point; the life's exit code goes to stdout.

A life connects to the test's socket and says hello. Each line that it gets is a list of batches,
taken all at once; each is acknowledged by its number. After a line a life seals. With a folder a
life runs engines of its own there, and seals all the while.
"""

import asyncio
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.orm import configure_mappers

from aforo import worker
from aforo.metering import quarantine
from aforo.metering.commands import ingest
from aforo.plugins import Registry, load_registry
from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage.clock import MovableClock
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.migrate import migrate
from aforo.storage.scope import Runtime, open_runtime

LINE_BYTES_MAX = 1 << 22
PAUSE_SECONDS = 0.002


class Urls(msgspec.Struct, frozen=True, kw_only=True):
    """Where the engines are."""

    database_url: str
    redis_url: str
    clickhouse_url: str


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the test tells the process."""

    socket: str
    data_dir: str
    key_pepper: str
    now: datetime
    tenant_id: UUID
    urls: Urls | None = None
    folder: str = ""
    """Of engines of its own, where there are no URLs."""
    releases: bool = False
    """Whether a life releases after each line what is quarantined."""


class Hello(msgspec.Struct, frozen=True):
    """What a life says first."""

    pid: int
    urls: Urls


class Said(msgspec.Struct, frozen=True):
    """What a life says later: the number of a batch that is durable, or None: all is sealed."""

    acknowledged: int | None


def main() -> None:
    """Live as long as the test wants."""
    # Standard output is for exit codes.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    config = msgspec.json.decode(sys.argv[1], type=Config)
    plugins = load_registry()
    configure_mappers()
    # An insert would import it, for a second of every life, to see that its data is no frame.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            os.environ["AFORO_FAILPOINT"] = line.strip()
            _begin(config, plugins)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def opened(config: Config, urls: Urls, plugins: Registry) -> Runtime:
    """The pools of a process, under a clock that stands."""
    settings = Settings(
        database_url=urls.database_url,
        redis_url=urls.redis_url,
        clickhouse_url=urls.clickhouse_url,
        key_pepper=config.key_pepper,
        data_dir=Path(config.data_dir),
    )
    return open_runtime(settings, plugins, MovableClock(config.now))


def _begin(config: Config, plugins: Registry) -> None:
    if config.urls is None:
        with EmbeddedEngines.start(Path(config.folder)) as engines:
            asyncio.run(_live_on(engines, config, plugins))
    else:
        asyncio.run(_live(opened(config, config.urls, plugins), config, config.urls))


async def _live_on(engines: EmbeddedEngines, config: Config, plugins: Registry) -> None:
    urls = Urls(
        database_url=engines.database_url,
        redis_url=engines.redis_url,
        clickhouse_url=engines.clickhouse_url,
    )
    await migrate(
        owner_database_url=engines.owner_database_url,
        database_url=urls.database_url,
        clickhouse_url=urls.clickhouse_url,
    )
    runtime = opened(config, urls, plugins)
    sealing = asyncio.create_task(_seal(runtime))
    await _live(runtime, config, urls, seals=False)
    sealing.cancel()


async def _live(runtime: Runtime, config: Config, urls: Urls, *, seals: bool = True) -> None:
    reader, writer = await asyncio.open_unix_connection(config.socket, limit=LINE_BYTES_MAX)

    async def say(what: object) -> None:
        writer.write(msgspec.json.encode(what) + b"\n")
        await writer.drain()

    async def take(number: int, batch: list[Any]) -> None:
        await ingest(runtime, TenantId(config.tenant_id), batch)
        await say(Said(number))

    await say(Hello(os.getpid(), urls))
    while line := await reader.readline():
        batches = msgspec.json.decode(line, type=list[list[Any]])
        await asyncio.gather(*(take(number, batch) for number, batch in enumerate(batches)))
        if config.releases:
            async with runtime.scope(TenantId(config.tenant_id)) as scope:
                wanted = quarantine.Wanted(code="UNKNOWN_CUSTOMER")
                await quarantine.release(scope, wanted)
        if seals:
            await worker.seal_once(runtime)
        await say(Said(None))


async def _seal(runtime: Runtime) -> None:
    while True:
        await worker.seal_once(runtime)
        await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
