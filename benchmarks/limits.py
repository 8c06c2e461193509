"""The limits that figures stand beside: the bare server, and the bare engines."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import uvicorn
from clickhouse_connect.driver.client import Client as ClickHouse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.ports import free_port, wait_for_port


@contextmanager
def bare_server() -> Iterator[str]:
    """A server that reads a body, throws it away, and answers 202; its origin."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,))
    process.start()
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def copy_rows(database_url: str, rows: Sequence[tuple[Any, ...]], types: Sequence[str]) -> float:
    """Rows per second of PostgreSQL's COPY into a logged table of those column types."""
    return asyncio.run(_copy(database_url.replace("+asyncpg", ""), rows, types))


def index_events(client: ClickHouse, *, times: int) -> float:
    """Seconds in which ClickHouse alone copies every event `times` times into a lineage table."""
    client.command("CREATE TABLE bench_index AS bill_run_event_index")
    try:
        begun = time.perf_counter()
        for _ in range(times):
            client.command(
                "INSERT INTO bench_index SELECT tenant_id, tenant_id, subscription_id, event_id, "
                "key_hash, occurred_at FROM events"
            )
        return time.perf_counter() - begun
    finally:
        client.command("DROP TABLE bench_index SYNC")


def _serve(port: int) -> None:
    async def discard(request: Request) -> Response:
        await request.body()
        return Response(b"{}", status_code=202, media_type="application/json")

    app = Starlette(routes=[Route("/v1/events", discard, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


async def _copy(url: str, rows: Sequence[tuple[Any, ...]], types: Sequence[str]) -> float:
    connection = await asyncpg.connect(url)
    try:
        columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
        await connection.execute(f"CREATE TABLE bench_copy ({columns})")
        begun = time.perf_counter()
        await connection.copy_records_to_table("bench_copy", records=rows)
        elapsed = time.perf_counter() - begun
        await connection.execute("DROP TABLE bench_copy")
        return len(rows) / elapsed
    finally:
        await connection.close()
