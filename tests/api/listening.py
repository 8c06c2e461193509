"""Streams of server-sent events as tests read them: event by event, against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2

Frame = dict[str, Any]


class Reader:
    """One stream of server-sent events, event by event."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()
        self.cursor: str | None = None

    async def frame(self) -> Frame:
        """The fields of the next block: of an event, or of a sign of life."""
        found: Frame = {}
        async with asyncio.timeout(60):
            async for line in self._lines:
                if not line:
                    break
                name, _, value = line.partition(":")
                found[name] = value.strip()
        if "id" in found:
            self.cursor = found["id"]
        return found

    async def opened(self) -> Self:
        """Wait until the stream says where it begins."""
        while self.cursor is None:
            await self.frame()
        return self

    async def next(self) -> Frame:
        """The body of the next event that is one."""
        while "data" not in (frame := await self.frame()):
            pass
        body: Frame = json.loads(frame["data"]) if frame["data"] else {"event": frame["event"]}
        return body


@asynccontextmanager
async def listening(
    http: httpx2.AsyncClient, query: str, *, last: str | None = None, **variables: Any
) -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    body = {"query": query, "variables": variables}
    async with http.stream("POST", "/graphql", json=body, headers=headers) as response:
        assert response.status_code == 200
        yield Reader(response)


async def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError
