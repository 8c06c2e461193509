"""Redis: hints, counters and the bounded live log. Whatever is lost here can be made again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.telemetry.metrics import LIVE_MESSAGES_DROPPED

LIVE_LOG_MAX = 2_000
"""Messages kept per tenant and stream."""
READ_BLOCK_MS = 5_000
READ_COUNT = 10
"""Messages that a subscriber holds who takes none of them: some are 64 KB, and there may be 1,000
subscribers."""
CONNECT_TIMEOUT_SECONDS = 2
ANSWER_TIMEOUT_SECONDS = 10
"""Of a Redis that is frozen; longer than a read may wait for news."""

UNREACHABLE = (RedisError, OSError)
"""What a call raises where Redis is away or refuses; hints and counters do without it then."""

log = structlog.get_logger()
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Live:
    """The process's connections to Redis."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=ANSWER_TIMEOUT_SECONDS,
            max_connections=2_000,
        )

    def of(self, tenant_id: TenantId) -> "TenantLive":
        """What one tenant may touch."""
        return TenantLive(self._redis, tenant_id)

    async def ping(self) -> None:
        """Raise `RedisError` where Redis cannot be reached."""
        await self._redis.ping()

    async def version(self) -> str:
        """Of the server. Raises `RedisError` where it cannot be reached."""
        facts: Any = await self._redis.info("server")
        return str(facts["redis_version"])

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


class TenantLive:
    """One tenant's counters and streams; every key starts with the tenant."""

    def __init__(self, redis: Redis, tenant_id: TenantId) -> None:
        self._redis = redis
        self._prefix = f"aforo:{tenant_id}:"
        self._pending: list[tuple[str, dict[str, Any]]] = []

    def announce(self, stream: str, message: Mapping[str, Any]) -> None:
        """Tell the subscribers of a stream, once the scope's transaction has committed."""
        self._pending.append((stream, dict(message)))

    async def flush(self) -> None:
        """Send what was announced. Subscribers are a courtesy: a Redis that is down costs them
        the message, and costs the caller nothing."""
        if not self._pending:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, message in self._pending:
                    body = _ENCODER.encode(message).decode()
                    pipe.xadd(self._prefix + stream, {"m": body}, maxlen=LIVE_LOG_MAX)
                await pipe.execute()
        except UNREACHABLE as error:
            LIVE_MESSAGES_DROPPED.inc(len(self._pending))
            log.warning("live messages dropped", messages=len(self._pending), error=str(error))
        self._pending.clear()

    async def follow(
        self, stream: str, *, after: str = "$"
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield `(position, message)` of a stream, from after a position or from now on.

        Numbers are exact. Raises: `Unavailable` where Redis cannot be reached.
        """
        key = self._prefix + stream
        try:
            # `$` means "from this call on" at every call: what came between two would be lost.
            position = await self._end(key) if after == "$" else after
            while not _is_cancelled():
                found = await self._redis.xread(
                    {key: position}, count=READ_COUNT, block=READ_BLOCK_MS
                )
                for _, entries in found:
                    for position, entry in entries:
                        yield position, _DECODER.decode(entry["m"])
        except UNREACHABLE as error:
            raise Unavailable("live streams are down; try again") from error

    async def _end(self, key: str) -> str:
        last: Any = await self._redis.xrevrange(key, count=1)
        return str(last[0][0]) if last else "0-0"

    async def counters(self, name: str) -> dict[str, str]:
        """All fields of a counter hash."""
        found: Any = await cast("Awaitable[Any]", self._redis.hgetall(self._prefix + name))
        return dict(found)

    async def set_counters(self, name: str, fields: Mapping[str, str], *, ttl_seconds: int) -> None:
        """Overwrite fields of a counter hash, and let it be forgotten in time."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._prefix + name, mapping=dict(fields))
            pipe.expire(self._prefix + name, ttl_seconds)
            await pipe.execute()


def _is_cancelled() -> bool:
    # `wait_for` of Python 3.11, which the driver calls, may swallow a cancellation.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
