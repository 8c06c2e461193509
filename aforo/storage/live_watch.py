"""Who watches what happens at this moment: known in every process, through marks that expire.

Whoever watches renews his mark in Redis. Whoever could tell something looks at all the marks about
once a second, and only while there is something to tell.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.asyncio import Redis

from aforo.sdk.errors import Unavailable
from aforo.storage.endings import end_all
from aforo.storage.live_log import DOWN, UNREACHABLE

MARK_SECONDS = 30
"""Who comes back within this time, without those until a mark is renewed, has missed nothing."""
RENEW_SECONDS = 3.0
LOOK_SECONDS = 1.0
"""What is known of the marks is good for so long,"""
OUTAGE_SECONDS = 10.0
"""and for this long where Redis does not answer."""

_MARKS = "aforo:live:watched"
# By the clock of Redis: those of the processes differ.
_RENEW = f"""
local now = tonumber(redis.call('TIME')[1])
for at = 1, #ARGV do redis.call('ZADD', KEYS[1], now + {MARK_SECONDS}, ARGV[at]) end
"""
_LOOK = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""

log = structlog.get_logger()


class Watched:
    """The keys that somebody watches."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._here: Counter[str] = Counter()
        """Those who watch in this process, by key."""
        self._elsewhere: frozenset[str] = frozenset()
        self._looked_at = self._answered_at = float("-inf")
        self._renewing: asyncio.Task[None] | None = None

    def may_be(self, key: str) -> bool:
        """Whether somebody may watch a key: true as well where that has to be looked up first."""
        return key in self._here or key in self._elsewhere or not self._is_fresh

    async def look(self) -> None:
        """Look at the marks, unless that was done a moment ago. Does not raise for a Redis that is
        away: what was known holds for a while, and then nobody watches."""
        if self._is_fresh:
            return
        try:
            found: Any = await self._redis.eval(_LOOK, 1, _MARKS)  # type: ignore[misc]
        except UNREACHABLE:
            if time.monotonic() - self._answered_at > OUTAGE_SECONDS:
                self._elsewhere = frozenset()
        else:
            self._elsewhere = frozenset(found)
            self._answered_at = time.monotonic()
        self._looked_at = time.monotonic()

    @asynccontextmanager
    async def watching(self, key: str) -> AsyncIterator[None]:
        """Watch a key: it is told at once in this process, within about a second in every other,
        and for a while after the last watcher has gone, who may come back.

        Raises: `Unavailable` where Redis cannot be reached.
        """
        self._here[key] += 1
        try:
            try:
                await self._renew(key)
            except UNREACHABLE as error:
                raise Unavailable(DOWN) from error
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew_all())
            yield
        finally:
            self._here[key] -= 1
            if not self._here[key]:
                del self._here[key]
                self._elsewhere |= {key}  # The mark still stands: the next look will show it.

    async def close(self) -> None:
        """Renew nothing any more."""
        if self._renewing is not None:
            await end_all([self._renewing])
            self._renewing = None

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() - self._looked_at < LOOK_SECONDS

    async def _renew(self, *keys: str) -> None:
        await self._redis.eval(_RENEW, 1, _MARKS, *keys)  # type: ignore[misc]

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if self._here:
                    await self._renew(*self._here)
            except UNREACHABLE as error:
                log.info("marks of live views were not renewed", error=str(error))
