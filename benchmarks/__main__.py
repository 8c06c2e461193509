"""`make bench`: one run, each figure beside its limit, as a table.

Starts the embedded engines in a temporary folder and `aforo serve` and `aforo worker` as processes
of their own, sends them events over HTTP, and bills them.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from aforo.plugins import load_registry
from aforo.settings import RATE_MAX, Settings
from aforo.storage import clickhouse
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.migrate import migrate
from aforo.storage.scope import open_runtime
from aforo.tenants.commands import NewTenant, create_tenant
from benchmarks import gateway, ingestion, lists, streams, usage
from benchmarks.client import Client
from benchmarks.graphql import compare, open_customers
from benchmarks.limits import bare_server, copy_rows, index_events
from benchmarks.ports import free_port, wait_for_port
from benchmarks.shop import CUSTOMERS, open_shop
from benchmarks.trace_setup import METERS

COPIED_ROWS = 60_000
PEPPER = "a pepper for benchmarks, as long as it has to be"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured rate, per second, beside another of the same run."""

    name: str
    measured: float
    limit: float
    limit_name: str


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="aforo-bench-") as folder,
        EmbeddedEngines.start(Path(folder)) as engines,
    ):
        for figure in _measure(engines, Path(folder)):
            ratio = figure.measured / figure.limit
            print(
                f"{figure.name:44} {figure.measured:>10,.0f}/s   "
                f"{ratio:6.1%} of {figure.limit:,.0f}/s ({figure.limit_name})"
            )


def _measure(engines: EmbeddedEngines, folder: Path) -> Iterator[Figure]:
    settings = Settings(
        database_url=engines.database_url,
        redis_url=engines.redis_url,
        clickhouse_url=engines.clickhouse_url,
        key_pepper=PEPPER,
        owner_database_url=engines.owner_database_url,
        data_dir=folder,
        port=free_port(),
    )
    made = asyncio.run(_prepare(settings))
    key = made.key.token
    month_end = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    with _processes(settings) as serve:
        url = f"http://127.0.0.1:{settings.port}"
        with Client(url, key) as client:
            open_customers(client)
            page = asyncio.run(lists.measure(settings))
            _print_beside(
                f"page {lists.PAGE:,} of {lists.CUSTOMERS:,} customers by name",
                page.ours,
                page.bare,
                "ms (the statement alone)",
            )
            for name, ours, stock in compare(url, key):
                yield Figure(name, ours, stock, "stock Strawberry with its caches, from memory")
            run_until = open_shop(client, month_end)
            yield from _ingest(url, key, month_end, engines)
            _print_gateway(url, key)
            begun = time.perf_counter()
            run_until(client)
            elapsed = time.perf_counter() - begun
            yield Figure(
                f"events billed, {CUSTOMERS} invoices, with lineage",
                ingestion.EVENTS / elapsed,
                ingestion.EVENTS / _index_seconds(engines),
                "ClickHouse alone copying as many lineage rows",
            )
        measured = streams.measure(
            port=settings.port,
            pid=serve.pid,
            key=key,
            redis_url=settings.redis_url,
            tenant_id=made.tenant.tenant_id,
        )
        _print_streams(measured, streams.measure_bare())
    asyncio.run(usage.measure(settings))


def _print_streams(measured: streams.Streams, bare: streams.Streams) -> None:
    for name, figure, limit, unit in (
        ("told, median", measured.median_ms, bare.median_ms, "ms"),
        ("told, 99th percentile", measured.p99_ms, bare.p99_ms, "ms"),
        ("memory per stream", measured.kib_per_stream, bare.kib_per_stream, "KiB"),
        ("CPU per stream and message", measured.cpu_us, bare.cpu_us, "µs"),
        ("CPU while nothing happens", measured.idle_cpu_percent, bare.idle_cpu_percent, "%"),
    ):
        _print_beside(
            f"{streams.STREAMS:,} streams, {name}",
            figure,
            limit,
            f"{unit} (a bare server, the same bytes)",
        )


def _print_gateway(url: str, key: str) -> None:
    plain, metered = gateway.measure(url, key, customer="trace-0", meter="requests-bench")
    bare = gateway.measure_bare()
    for name, figure, limit in (
        ("decision at the gateway, median", plain.median_us, bare.median_us),
        ("decision at the gateway, 99th percentile", plain.p99_us, bare.p99_us),
        ("the same, metered, median", metered.median_us, bare.median_us),
        ("the same, metered, 99th percentile", metered.p99_us, bare.p99_us),
    ):
        _print_beside(name, figure, limit, "µs (a server that decides nothing)")


def _print_beside(name: str, figure: float, limit: float, unit: str) -> None:
    ratio = f"{figure / limit:6.1f}" if limit else "     -"
    print(f"{name:44} {figure:>10,.1f}     {ratio} times {limit:,.1f} {unit}")


async def _prepare(settings: Settings) -> NewTenant:
    assert settings.owner_database_url is not None
    await migrate(
        owner_database_url=settings.owner_database_url,
        database_url=settings.database_url,
        clickhouse_url=settings.clickhouse_url,
    )
    runtime = open_runtime(settings, load_registry())
    try:
        return await create_tenant(runtime, name="Bench")
    finally:
        await runtime.close()


@contextmanager
def _processes(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """The API, which it gives, and the worker."""
    environment = {
        **os.environ,
        "AFORO_DATABASE_URL": settings.database_url,
        "AFORO_REDIS_URL": settings.redis_url,
        "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
        "AFORO_KEY_PEPPER": settings.key_pepper,
        "AFORO_DATA_DIR": str(settings.data_dir),
        "AFORO_PORT": str(settings.port),
        "AFORO_POINTS_PER_SECOND": str(RATE_MAX),
        "AFORO_EVENTS_PER_SECOND": str(RATE_MAX),
    }
    command = [sys.executable, "-c", "from aforo.cli import main; main()"]
    started = [
        subprocess.Popen([*command, name], env=environment, stderr=subprocess.DEVNULL)
        for name in ("serve", "worker")
    ]
    try:
        wait_for_port(settings.port)
        yield started[0]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _ingest(url: str, key: str, month_end: datetime, engines: EmbeddedEngines) -> Iterator[Figure]:
    """Ingestion as fast as it goes; and how soon it answers at half of that."""
    ingestion.measure(url, key, ingestion.WARMING, month_end=month_end)
    copied = copy_rows(engines.owner_database_url, _rows(), ("bytea", "uuid", "text"))
    with bare_server() as bare:
        for load in ingestion.AS_FAST_AS_TAKEN:
            taken = ingestion.measure(url, key, load, month_end=month_end).per_second
            thrown = ingestion.measure(bare, key, load, month_end=month_end, is_bare=True)
            name = f"events acknowledged, batches of {load.size:,}"
            limit = "a bare server that throws the bodies away"
            yield Figure(name, taken, thrown.per_second, limit)
            yield Figure("the same", taken, copied, "PostgreSQL's COPY of as many rows")
        for load in ingestion.AT_A_RATE:
            asked = ingestion.measure(url, key, load, month_end=month_end)
            thrown = ingestion.measure(bare, key, load, month_end=month_end, is_bare=True)
            name = f"answers to {load.batches_per_second:,.0f} × {load.size:,} events/s"
            limit = "ms (a bare server, the same bodies)"
            _print_beside(f"{name}, median", asked.median_ms, thrown.median_ms, limit)
            _print_beside(f"{name}, p99", asked.p99_ms, thrown.p99_ms, limit)


def _rows() -> list[tuple[object, ...]]:
    return [(os.urandom(32), uuid4(), "x" * 400) for _ in range(COPIED_ROWS)]


def _index_seconds(engines: EmbeddedEngines) -> float:
    client = clickhouse.connect(engines.clickhouse_url)
    try:
        return index_events(client, times=len(METERS))
    finally:
        client.close()


if __name__ == "__main__":
    started_at = time.perf_counter()
    main()
    elapsed_seconds = timedelta(seconds=round(time.perf_counter() - started_at))
    print(f"measured in {elapsed_seconds} on {os.cpu_count()} cores")
