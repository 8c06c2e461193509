"""A client of Redis with bounds: on its connections, and on how long an answer is waited for."""

from redis.asyncio import Redis


def redis_client(
    url: str, *, answer_seconds: float, connections_max: int, connect_seconds: float | None = None
) -> Redis:
    """Not connected before its first use. Without `connect_seconds` connecting may take as long as
    an answer."""
    client: Redis = Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=answer_seconds if connect_seconds is None else connect_seconds,
        socket_timeout=answer_seconds,
        max_connections=connections_max,
    )
    return client
