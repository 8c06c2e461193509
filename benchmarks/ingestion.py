"""How many events a second are acknowledged, and how soon: over HTTP, from a process of its own.

The bodies are written before the clock starts, and every answer is looked at: one event that was
not accepted stops the run.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

from benchmarks.shop import batches

CONNECTIONS = 8
RECEIVE_BYTES = 64 * 1024
ANSWER_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: batches of one size, as fast as they are taken or at a rate."""

    size: int
    events: int
    batches_per_second: float | None = None
    """None: each connection sends its next batch once the one before is answered."""
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a load."""

    per_second: float
    """Events."""
    median_ms: float
    p99_ms: float
    """From the moment at which a batch was due to its answer."""


WARMING = Load(1_000, 20_000)
AS_FAST_AS_TAKEN = (Load(1_000, 200_000), Load(100, 100_000))
AT_A_RATE = (
    Load(1_000, 100_000, batches_per_second=20),
    Load(100, 62_500, batches_per_second=125),
    Load(1, 10_000, batches_per_second=2_000, connections=32),
)
EVENTS = sum(load.events for load in (WARMING, *AS_FAST_AS_TAKEN, *AT_A_RATE))
"""Of all of them together."""


def measure(url: str, key: str, load: Load, *, month_end: datetime, is_bare: bool = False) -> Taken:
    """Send the load, of new events, from a process of its own.

    A bare server's answers say nothing and are not looked at.
    """
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_send, (url, key, load, month_end), {"is_bare": is_bare})


def _send(url: str, key: str, load: Load, month_end: datetime, *, is_bare: bool) -> Taken:
    parts = urlsplit(url)
    requests = [
        _request(parts.netloc, key, json.dumps(batch).encode())
        for batch in batches(load.events, load.size, month_end, run=uuid4().hex)
    ]
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    told = b"" if is_bare else b'"accepted":%d,' % load.size
    return uvloop.run(_paced(address, requests, load, told))


def _request(host: str, key: str, body: bytes) -> bytes:
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _paced(
    address: tuple[str, int], requests: Sequence[bytes], load: Load, told: bytes
) -> Taken:
    due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
    late: list[float] = []

    async def send() -> None:
        reader, writer = await asyncio.open_connection(*address)
        while (item := await due.get()) is not None:
            at, request = item
            begun = time.perf_counter() if load.batches_per_second is None else at
            writer.write(request)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await _read_answer(reader, told)
            late.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(load.connections):
            tasks.create_task(send())
        for number, request in enumerate(requests):
            at = begun
            if load.batches_per_second is not None:
                at += number / load.batches_per_second
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
            due.put_nowait((at, request))
        for _ in range(load.connections):
            due.put_nowait(None)
    elapsed = time.perf_counter() - begun
    cuts = statistics.quantiles(late, n=100)
    return Taken(load.events / elapsed, cuts[49] * 1000, cuts[98] * 1000)


async def _read_answer(reader: asyncio.StreamReader, told: bytes) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, length = head.partition(b"content-length:")
    body = await reader.readexactly(int(length.split(b"\r\n", 1)[0]))
    if not head.startswith(b"http/1.1 202") or told not in body:
        sys.exit(f"not all were accepted: {head.decode()}{body[:500].decode()}")
