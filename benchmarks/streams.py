"""A thousand live streams on one process: how soon each is told, and what they cost, beside a bare
server that sends the same bytes to as many."""

import asyncio
import json
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aforo.sdk.ids import TenantId
from aforo.storage.redis import Live
from benchmarks.ports import free_port, wait_for_port

STREAMS = 1_000
MESSAGES = 20
PAUSE_SECONDS = 1.0
IDLE_SECONDS = 10
OPENED_AT_ONCE = 50
DOCUMENT = "subscription { events { eventId type occurredAt receivedAt properties } }"

_SENT_AT = re.compile(rb"sentAt\D{1,8}(\d+)")


@dataclass(frozen=True, slots=True)
class Streams:
    """What a thousand streams of one server came to."""

    median_ms: float
    p99_ms: float
    kib_per_stream: float
    idle_cpu_percent: float
    cpu_us: float
    """Of the server, per stream and message."""


def measure(*, port: int, pid: int, key: str, redis_url: str, tenant_id: UUID) -> Streams:
    """The streams of an Aforo that runs."""
    body = json.dumps({"query": DOCUMENT}).encode()
    head = (
        "POST /graphql HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    async def run() -> Streams:
        live = Live(redis_url)

        async def publish(sent_at: int) -> None:
            of = live.of(TenantId(tenant_id))
            of.announce("events", _event(sent_at))
            await of.flush()

        try:
            return await _run(port, pid, head.encode() + body, publish, opened=b"\nid: ")
        finally:
            await live.close()

    return asyncio.run(run())


def measure_bare() -> Streams:
    """The same of a bare server."""
    with _bare_server() as (port, pid):

        async def publish(sent_at: int) -> None:
            body = json.dumps({"data": {"events": _event(sent_at)}}).encode()
            head = f"POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await reader.read()
            writer.close()

        ask = b"GET /listen HTTP/1.1\r\nHost: bench\r\n\r\n"
        return asyncio.run(_run(port, pid, ask, publish, opened=b":\n\n"))


async def _run(
    port: int,
    pid: int,
    request: bytes,
    publish: Callable[[int], Awaitable[None]],
    *,
    opened: bytes,
) -> Streams:
    before = _resident_kib(pid)
    late: list[float] = []
    listeners = [_Listener(late) for _ in range(STREAMS)]
    for start in range(0, STREAMS, OPENED_AT_ONCE):
        part = listeners[start : start + OPENED_AT_ONCE]
        await asyncio.gather(*(each.open(port, request, opened) for each in part))
    tasks = [asyncio.create_task(each.listen()) for each in listeners]
    per_stream = (_resident_kib(pid) - before) / STREAMS
    spent = _cpu_seconds(pid)
    await asyncio.sleep(IDLE_SECONDS)
    idle = (_cpu_seconds(pid) - spent) / IDLE_SECONDS
    spent = _cpu_seconds(pid)
    for _ in range(MESSAGES):
        await publish(time.time_ns() // 1_000)
        await asyncio.sleep(PAUSE_SECONDS)
    async with asyncio.timeout(60):
        while len(late) < STREAMS * MESSAGES:  # noqa: ASYNC110 — nothing tells of the last one.
            await asyncio.sleep(0.1)
    cpu_us = (_cpu_seconds(pid) - spent) / (STREAMS * MESSAGES) * 1_000_000
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in listeners:
        each.close()
    quantiles = statistics.quantiles(late, n=100)
    return Streams(
        median_ms=quantiles[49] / 1_000,
        p99_ms=quantiles[98] / 1_000,
        kib_per_stream=per_stream,
        idle_cpu_percent=idle * 100,
        cpu_us=cpu_us,
    )


class _Listener:
    """One client that notes how late it is told."""

    def __init__(self, late: list[float]) -> None:
        self._late = late
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self, port: int, request: bytes, opened: bytes) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(request)
        async with asyncio.timeout(60):
            await self._reader.readuntil(opened)

    async def listen(self) -> None:
        while chunk := await self._reader.read(65_536):
            now = time.time_ns() // 1_000
            self._late += [now - int(sent_at) for sent_at in _SENT_AT.findall(chunk)]

    def close(self) -> None:
        self._writer.close()


def _event(sent_at: int) -> dict[str, object]:
    return {
        "id": "01a214f4-86b0-71a2-a83f-e2fe719cae56",
        "segmentId": 1,
        "idempotencyKey": "req-8f3a",
        "type": "llm.request",
        "customerId": "01a214f4-86b0-71a2-a83f-e2fe719cae56",
        "occurredAt": "2026-11-20T12:00:00+00:00",
        "receivedAt": "2026-11-20T12:00:00+00:00",
        "properties": json.dumps({"sentAt": sent_at, "model": "small", "tokens": 374}),
        "cost": None,
        "costCurrency": None,
    }


@contextmanager
def _bare_server() -> Iterator[tuple[int, int]]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port,))
    process.start()
    try:
        wait_for_port(port)
        assert process.pid is not None, "it was started"
        yield port, process.pid
    finally:
        process.terminate()
        process.join()


def _serve(port: int) -> None:
    listening: set[asyncio.Queue[bytes]] = set()

    async def listen(_request: Request) -> Response:
        queue: asyncio.Queue[bytes] = asyncio.Queue()

        async def chunks() -> AsyncIterator[bytes]:
            listening.add(queue)
            try:
                yield b":\n\n"
                while True:
                    yield await queue.get()
            finally:
                listening.discard(queue)

        return StreamingResponse(chunks(), media_type="text/event-stream")

    async def publish(request: Request) -> Response:
        chunk = b"event: next\ndata: " + await request.body() + b"\n\n"
        for queue in listening:
            queue.put_nowait(chunk)
        return Response(status_code=202)

    routes = [Route("/listen", listen), Route("/publish", publish, methods=["POST"])]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
