"""What a process remembers of customers, until PostgreSQL tells that one of them has changed.

Whoever changes something notifies in the same transaction, so every process is told once it has
committed, and of nothing that has not. One connection listens, and is asked for a sign of life so
often that what is remembered is at most a second behind; while it is down things are remembered
for half a second only.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from aforo.storage.endings import end_all
from aforo.storage.faults import answered_within
from aforo.storage.postgres import listening

CHANNEL = "aforo_decisions"
ENTRIES_MAX = 50_000
CHANGES_MAX = 10_000
LIFE_SECONDS = 600.0
"""What nobody tells of, such as a change by hand in the database, counts after this."""
UNTOLD_SECONDS = 0.5
"""How long something is remembered while nobody listens."""
BEHIND_SECONDS_MAX = 1.0
PULSE_SECONDS = 0.3
RETRY_SECONDS = 0.5
READ_SECONDS_MAX = 10.0
"""A frozen engine must not hold up those who come once it is well again."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    about: str
    kept_at: float


@dataclass(frozen=True, slots=True)
class _Reading:
    task: asyncio.Task[Any]
    about: str


class Remembered:
    """A bounded memory; the entry that was not asked for longest goes first."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._keys: dict[str, set[Hashable]] = {}
        self._readings: dict[Hashable, _Reading] = {}
        self._entries_max = entries_max
        self._changes = 0
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._forgotten = 0
        """The last change of which it is not known any more what it was about."""
        self._heard_at = 0.0
        self._listening: asyncio.Task[None] | None = None

    def begin(self, engine: AsyncEngine) -> None:
        """Listen from now on, unless it does already."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(engine))

    def mark(self) -> int:
        """Take this before reading what is to be kept."""
        return self._changes

    def keep(self, key: Hashable, value: object, *, about: str, mark: int) -> None:
        """Remember what was read after the mark, unless it has changed since."""
        if max(self._changed.get(about, 0), self._forgotten) > mark:
            return
        self._drop(key)
        self._entries[key] = _Entry(value, about, time.monotonic())
        self._keys.setdefault(about, set()).add(key)
        if len(self._entries) > self._entries_max:
            self._drop(next(iter(self._entries)))

    def find(self, key: Hashable) -> Any:
        """What is remembered, if it is still good; else None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = time.monotonic()
        is_told = now - self._heard_at < BEHIND_SECONDS_MAX
        if now - entry.kept_at > (LIFE_SECONDS if is_told else UNTOLD_SECONDS):
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    async def recall(self, key: Hashable, read: Callable[[], Awaitable[T]], *, about: str) -> T:
        """What is remembered, else what `read` gives, which is remembered then; those who ask
        meanwhile wait for the same answer.

        Raises: what `read` raises; `Unavailable` where it takes longer than an engine may.
        """
        found: T | None = self.find(key)
        if found is not None:
            return found
        reading = self._readings.get(key)
        if reading is None:
            task = asyncio.create_task(self._read(key, read, about))
            reading = self._readings[key] = _Reading(task, about)
        # A task of its own: whoever asked first may give up, and the others are not his.
        return cast("T", await asyncio.shield(reading.task))

    def hear(self, about: str) -> None:
        """Something has changed."""
        self._changes += 1
        for key in [key for key, reading in self._readings.items() if reading.about == about]:
            del self._readings[key]  # It may have been read before the change.
        self._changed[about] = self._changes
        self._changed.move_to_end(about)
        if len(self._changed) > CHANGES_MAX:
            _, self._forgotten = self._changed.popitem(last=False)
        for key in list(self._keys.get(about, ())):
            self._drop(key)

    async def close(self) -> None:
        """Listen no longer, and read nothing any more."""
        await end_all([reading.task for reading in self._readings.values()])
        if self._listening is not None:
            await end_all([self._listening])
            self._listening = None

    async def _read(self, key: Hashable, read: Callable[[], Awaitable[T]], about: str) -> T:
        mark = self.mark()
        try:
            async with answered_within(READ_SECONDS_MAX):
                found = await read()
            self.keep(key, found, about=about, mark=mark)
            return found
        finally:
            reading = self._readings.get(key)
            if reading is not None and reading.task is asyncio.current_task():
                del self._readings[key]

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        keys = self._keys[entry.about]
        keys.discard(key)
        if not keys:
            del self._keys[entry.about]

    def _forget_all(self) -> None:
        self._changes += 1
        self._forgotten = self._changes
        self._readings.clear()
        self._changed.clear()
        self._entries.clear()
        self._keys.clear()

    async def _listen(self, engine: AsyncEngine) -> None:
        while True:
            try:
                await self._heed(engine)
            except (sa.exc.SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.info("changes are not heard of", error=str(error))
            except (OSError, TimeoutError) as error:
                log.info("changes are not heard of", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _heed(self, engine: AsyncEngine) -> None:
        try:
            async with listening(engine, CHANNEL, self.hear) as driver:
                self._forget_all()  # Nobody told what has changed meanwhile.
                while True:
                    asked_at = time.monotonic()
                    async with asyncio.timeout(BEHIND_SECONDS_MAX):
                        await driver.execute("SELECT 1")
                    self._heard_at = asked_at
                    await asyncio.sleep(PULSE_SECONDS)
        finally:
            self._heard_at = 0.0
