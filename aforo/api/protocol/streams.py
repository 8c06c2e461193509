"""The streams that are open in this process: whose they are, and when each has to end."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

import structlog

from aforo.api.auth.callers import recognised
from aforo.api.auth.requests import Credential
from aforo.sdk.errors import Unavailable
from aforo.storage.scope import Runtime
from aforo.tenants.queries import Caller

RECHECK_SECONDS = 3.0
"""Who opened a stream is looked up again this often; the promise is 5 s."""

log = structlog.get_logger()


class End(Enum):
    """Why a stream has to end, whatever it shows."""

    UNAUTHENTICATED = "the API key or session that opened this stream was revoked or has expired"
    STOPPING = "this server is shutting down; subscribe again, after the last cursor that you have"


class Streams:
    """Every open stream of a process.

    Their callers are looked up again all at once, however many streams each has.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._open: set[Watch] = set()
        self._rechecks: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._none_left = asyncio.Event()

    def watch(self, credential: Credential | None = None) -> "Watch":
        """Watch over a stream: use it as a context, for as long as the stream lasts."""
        return Watch(self, credential)

    async def stop(self, *, seconds: float) -> None:
        """Tell every stream to end, and wait until they have, or for so long."""
        self._is_stopping = True
        for watch in self._open:
            watch.end(End.STOPPING)
        if self._open:
            self._none_left.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none_left.wait()

    def add(self, watch: "Watch") -> None:
        """A stream is open."""
        self._open.add(watch)
        if self._is_stopping:
            watch.end(End.STOPPING)
        if self._rechecks is None:
            self._rechecks = asyncio.create_task(self._recheck())

    def remove(self, watch: "Watch") -> None:
        """A stream has ended."""
        self._open.discard(watch)
        if not self._open:
            self._none_left.set()
            if self._rechecks is not None:
                self._rechecks.cancel()
                self._rechecks = None

    async def _recheck(self) -> None:
        while self._rechecks is asyncio.current_task():  # A cancellation can be lost.
            await asyncio.sleep(RECHECK_SECONDS)
            known = {
                watch: watch.credential for watch in self._open if watch.credential is not None
            }
            try:
                callers = await recognised(self._runtime, known.values())
            except Unavailable:
                continue  # While PostgreSQL is away nothing can have been revoked there.
            except Exception:
                log.exception("the callers of open streams were not looked up")
                continue
            for watch, credential in known.items():
                if not _may_go_on(credential, callers):
                    watch.end(End.UNAUTHENTICATED)


class Watch:
    """One open stream."""

    def __init__(self, streams: Streams, credential: Credential | None) -> None:
        self._streams = streams
        self.credential = credential
        """Whoever opened it; None as long as that is not known."""
        self.over: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        """Done once the stream has to end."""

    def __enter__(self) -> Self:
        self._streams.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._streams.remove(self)

    def end(self, reason: End) -> None:
        """Let the stream end; the first reason stands."""
        if not self.over.done():
            self.over.set_result(reason)


def _may_go_on(credential: Credential, callers: Mapping[str, Caller]) -> bool:
    """Whether the caller would be let in again, and may still do as much."""
    caller = callers.get(credential.token)
    return caller is not None and credential.caller.permissions <= caller.permissions
