"""Servers on loopback that receive calls, and answer them well or badly."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heard:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None = None
    """What TLS asked for."""


Answer = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int = 200, body: bytes = b"ok", **headers: str) -> bytes:
    """A whole HTTP answer; underscores in the names of headers are hyphens."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(status: int = 200, body: bytes = b"ok", **headers: str) -> Answer:
    """Whoever asks gets this."""

    async def answer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(status, body, **headers))

    return answer


@dataclass
class Receiver:
    """A server that listens on a free port of 127.0.0.1."""

    answer: Answer = field(default_factory=answers)
    heard: list[Heard] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"
    server_name: str | None = None
    open_now: int = 0
    open_max: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.open_max = max(self.open_max, self.open_now)
        # Clients that go away are part of the tests.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                heard = await self._read(reader)
                self.heard.append(heard)
                await self.answer(heard, writer)
                await writer.drain()
            finally:
                self.open_now -= 1
                writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Heard:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Heard(method, target, headers, body, self.server_name)


@asynccontextmanager
async def receiving(
    answer: Answer | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Listen, and hang up on everybody at the end."""
    receiver = Receiver(answer or answers())
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.handle(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    if tls is not None:

        def note(_socket: object, name: str | None, _context: object) -> None:
            receiver.server_name = name

        tls.sni_callback = note
        receiver.scheme = "https"
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
