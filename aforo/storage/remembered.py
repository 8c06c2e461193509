"""What a process remembers of customers, until PostgreSQL tells that one of them has changed.

Whoever changes something notifies in the same transaction, so every process is told once it has
committed, and of nothing that has not. One connection listens, and is asked for a sign of life so
often that what is remembered is at most a second behind; while it is down things are remembered
for half a second only.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from aforo.storage.endings import end_all
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

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    about: str
    kept_at: float


class Remembered:
    """A bounded memory; the entry that was not asked for longest goes first."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._keys: dict[str, set[Hashable]] = {}
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

    def hear(self, about: str) -> None:
        """Something has changed."""
        self._changes += 1
        self._changed[about] = self._changes
        self._changed.move_to_end(about)
        if len(self._changed) > CHANGES_MAX:
            _, self._forgotten = self._changed.popitem(last=False)
        for key in list(self._keys.get(about, ())):
            self._drop(key)

    async def close(self) -> None:
        """Listen no longer."""
        if self._listening is not None:
            await end_all([self._listening])
            self._listening = None

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
