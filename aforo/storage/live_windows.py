"""What happens so often that it is told in windows: exact counts of all, and some of it in full.

Nothing here is waited for by whoever tells: what is told is added up a moment later, sent by a task
of its own, and only where somebody watches.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from aforo.storage.endings import end_all
from aforo.storage.live_log import Limits, LiveLog
from aforo.storage.live_watch import Watched

WINDOW_SECONDS = 0.05
SHOWN_MAX = 500
"""Of one window in full,"""
SHOWN_BYTES_MAX = 256 * 1024
"""and no more than this."""
GROUPS_MAX = 20_000
"""Groups that are counted apart while they cannot be sent; what is of further ones counts for the
first member of its group alone."""
WAITING_MAX = 20_000
"""Things that were told and are not added up yet: beyond that they are at once."""
LIMITS = Limits(messages_max=2_000, bytes_max=8 * 1024 * 1024, seconds_max=600)
"""What is kept of a stream of windows."""

Group = tuple[str | None, ...]

_encode = msgspec.json.Encoder().encode

log = structlog.get_logger()


@dataclass(slots=True)
class Window:
    """What happened in a moment: counted by groups, and as far as there is room shown in full."""

    counts: Counter[Group] = field(default_factory=Counter)
    shown: list[msgspec.Raw] = field(default_factory=list)
    shown_bytes: int = 0
    shows: bool = True
    """Whether anything is shown in full."""

    def add(self, group: Group, full: Callable[[], Mapping[str, Any]]) -> None:
        """Count one thing, and show it if there is room; `full` is asked only then."""
        if group not in self.counts and len(self.counts) >= GROUPS_MAX:
            group = (group[0], *[None] * (len(group) - 1))
        self.counts[group] += 1
        if self.shows and len(self.shown) < SHOWN_MAX and self.shown_bytes < SHOWN_BYTES_MAX:
            body = _encode(full())
            self.shown_bytes += len(body)
            if self.shown_bytes <= SHOWN_BYTES_MAX:
                self.shown.append(msgspec.Raw(body))


Say = Callable[[Window], None]
"""Adds to a window all that one batch has to tell."""


@dataclass(slots=True)
class _Pending:
    """What is still to be told of one key."""

    said: deque[tuple[int, Say]] = field(default_factory=deque)
    waiting: int = 0
    window: Window = field(default_factory=Window)
    unsure: bytes | None = None
    """The last one, where it is not known to have arrived: it is sent again as it is."""

    def say(self, things: int, say: Say) -> None:
        self.said.append((things, say))
        self.waiting += things
        while self.waiting > WAITING_MAX:
            self.window.shows = False
            self._add_one()

    def next_window(self) -> Window | None:
        """What is to be sent next; None if nothing is."""
        while self.said:
            self._add_one()
        if not self.window.counts:
            return None
        window, self.window = self.window, Window()
        return window

    def _add_one(self) -> None:
        things, say = self.said.popleft()
        self.waiting -= things
        try:
            say(self.window)
        except Exception:  # Whoever told is long gone, and others have more to tell.
            log.exception("something was not told live")


class Windows:
    """Tells what happens in this process, by the key of the stream."""

    def __init__(self, live_log: LiveLog, watched: Watched) -> None:
        self._log = live_log
        self._watched = watched
        self._writer = uuid4().hex
        self._numbers = itertools.count(1)
        self._pending: dict[str, _Pending] = {}
        self._sending: asyncio.Task[None] | None = None

    def tell(self, key: str, things: int, say: Say) -> None:
        """Have `say` add so many things to a window of the stream, if somebody watches it."""
        if not self._watched.may_be(key):
            return
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending()
        pending.say(things, say)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Give up what is not sent."""
        if self._sending is not None:
            await end_all([self._sending])

    async def _send_all(self) -> None:
        """Send what is pending, window by window, until there is nothing more for a while."""
        while self._pending:
            begun = time.monotonic()
            await self._watched.look()
            for key in list(self._pending):
                await self._send(key)
            await asyncio.sleep(max(0.0, WINDOW_SECONDS - (time.monotonic() - begun)))

    async def _send(self, key: str) -> None:
        pending = self._pending[key]
        if pending.unsure is None and (window := pending.next_window()):
            pending.unsure = _message(window, self._writer, next(self._numbers))
        if pending.unsure is None or not self._watched.may_be(key):
            del self._pending[key]
        elif await self._log.sent(key, pending.unsure, limits=LIMITS):
            pending.unsure = None


def _message(window: Window, writer: str, number: int) -> bytes:
    return _encode(
        {
            "writer": writer,
            "number": number,
            "counts": [[*group, count] for group, count in window.counts.items()],
            "shown": window.shown,
        }
    )
