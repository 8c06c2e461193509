"""Redis: hints, counters and the bounded live log. Whatever is lost here can be made again."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from redis.asyncio import Redis

from aforo.sdk.ids import TenantId
from aforo.storage.live_hub import Hub
from aforo.storage.live_log import UNREACHABLE, LiveLog, Position
from aforo.storage.live_topic import Follower, Wants
from aforo.storage.live_watch import Watched
from aforo.storage.live_windows import Say, Windows
from aforo.storage.redis_client import redis_client
from aforo.storage.tallies import Tallies, TenantTallies

__all__ = ["UNREACHABLE", "Live", "TenantLive"]

CONNECT_TIMEOUT_SECONDS = 2
ANSWER_TIMEOUT_SECONDS = 10
"""Of a Redis that is frozen."""
APPEND_TIMEOUT_SECONDS = 1
"""Whoever announces has work to do: what it has to say is not worth a longer wait."""
FOLLOW_TIMEOUT_SECONDS = 5
CONNECTIONS_MAX = 100


class Live:
    """The process's connections to Redis."""

    def __init__(self, url: str) -> None:
        self._redis = _client(url, answer_seconds=ANSWER_TIMEOUT_SECONDS)
        self._writer = _client(url, answer_seconds=APPEND_TIMEOUT_SECONDS)
        self._reader = _client(url, answer_seconds=FOLLOW_TIMEOUT_SECONDS)
        self._log = LiveLog(self._writer, self._reader)
        self.hub = Hub(self._log, self._reader)
        self._watched = Watched(self._writer)
        self._windows = Windows(self._log, self._watched)
        self._tallies = Tallies(url)

    def of(self, tenant_id: TenantId) -> "TenantLive":
        """What one tenant may touch."""
        return TenantLive(
            self._log,
            self.hub,
            self._tallies.of(tenant_id),
            tenant_id,
            watched=self._watched,
            windows=self._windows,
        )

    async def ping(self) -> None:
        """Raise `RedisError` where Redis cannot be reached."""
        await self._redis.ping()

    async def version(self) -> str:
        """Of the server. Raises `RedisError` where it cannot be reached."""
        facts: Any = await self._redis.info("server")
        return str(facts["redis_version"])

    async def close(self) -> None:
        """Give the connections back."""
        await self._windows.close()
        await self._watched.close()
        await self.hub.close()
        await self._tallies.close()
        for client in (self._redis, self._writer, self._reader):
            await client.aclose()


class TenantLive:
    """One tenant's tallies and streams; every key starts with the tenant."""

    def __init__(
        self,
        live_log: LiveLog,
        hub: Hub,
        tallies: TenantTallies,
        tenant_id: TenantId,
        *,
        watched: Watched,
        windows: Windows,
    ) -> None:
        self._log = live_log
        self._hub = hub
        self._watched = watched
        self._windows = windows
        self.tallies = tallies
        self._prefix = f"aforo:{tenant_id}:"
        self._pending: list[tuple[str, dict[str, Any]]] = []

    def announce(self, stream: str, message: Mapping[str, Any]) -> None:
        """Tell the subscribers of a stream, once the scope's transaction has committed."""
        self._pending.append((self._prefix + stream, dict(message)))

    async def flush(self) -> None:
        """Send what was announced. Subscribers are a courtesy: a Redis that is down costs them
        the message, and costs the caller nothing."""
        if self._pending:
            announced, self._pending = self._pending, []
            await self._log.append(announced)

    async def follow(
        self, stream: str, *, after: Position | None = None, wants: Wants | None = None
    ) -> Follower:
        """Begin to follow a stream, from after a position or from now on; close it in the end.

        Numbers in its messages are exact. Raises: `Unavailable` where Redis cannot be reached.
        """
        return await self._hub.open(self._prefix + stream, after=after, wants=wants)

    def tell(self, stream: str, things: int, say: Say) -> None:
        """Tell of so many things at once, if somebody watches the stream: `say` adds them to a
        window a moment later. Waits for nothing, and costs next to nothing where nobody does."""
        self._windows.tell(self._prefix + stream, things, say)

    def watching(self, stream: str) -> AbstractAsyncContextManager[None]:
        """Watch a stream of windows for as long as the context lasts, so that it is told.

        Raises: `Unavailable` where Redis cannot be reached.
        """
        return self._watched.watching(self._prefix + stream)


def _client(url: str, *, answer_seconds: float) -> Redis:
    return redis_client(
        url,
        answer_seconds=answer_seconds,
        connect_seconds=CONNECT_TIMEOUT_SECONDS,
        connections_max=CONNECTIONS_MAX,
    )
