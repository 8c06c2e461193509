"""Something between a client and Aforo that goes wrong as told, as networks and proxies do."""

import asyncio
import contextlib
import gzip
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

READ_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in place of Aforo, which never sees the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class CutOff:
    """Close the connection, before or after Aforo has taken the request."""

    after_bytes: int | None = None
    """None: Aforo never sees it. Else Aforo's answer is cut after so many bytes of its body."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """The batch in it."""
        is_packed = self.headers.get("content-encoding") == "gzip"
        events: list[dict[str, Any]] = json.loads(
            gzip.decompress(self.body) if is_packed else self.body
        )
        return events


class Between:
    """A server that passes requests on to Aforo, except for the faults that it is given."""

    def __init__(self, upstream: str) -> None:
        self.faults: deque[Answer | CutOff] = deque()
        """One for each of the next requests; without any they are passed on."""
        self.always: Answer | CutOff | None = None
        """For every request, where there is no other."""
        self.asked: list[Asked] = []
        self.port = 0
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Listen; after `down` on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse every connection, and close those that are open."""
        if self._server is not None:
            self._server.close()
            for writer in self._connections:
                writer.close()
            await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        self._connections.discard(writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.partition(": ") for line in head[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(headers, body))
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, CutOff) and fault.after_bytes is None:
            return False
        answer = fault if isinstance(fault, Answer) else await self._pass_on(method, path)
        lines = [f"HTTP/1.1 {answer.status} Said", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        sent = answer.body[: fault.after_bytes] if isinstance(fault, CutOff) else answer.body
        writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
        await writer.drain()
        return not isinstance(fault, CutOff)

    async def _pass_on(self, method: str, path: str) -> Answer:
        asked = self.asked[-1]
        passed = {
            name: value
            for name, value in asked.headers.items()
            if name in {"authorization", "content-type", "content-encoding"}
        }
        async with httpx2.AsyncClient(timeout=READ_SECONDS) as client:
            answer = await client.request(
                method, f"{self._upstream}{path}", headers=passed, content=asked.body
            )
        return Answer(answer.status_code, {"Content-Type": "application/json"}, answer.content)


@asynccontextmanager
async def standing_between(upstream: str) -> AsyncIterator[Between]:
    """Something between that passes everything on until it is told otherwise."""
    between = Between(upstream)
    await between.up()
    try:
        yield between
    finally:
        await between.down()
