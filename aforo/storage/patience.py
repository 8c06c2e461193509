"""Work that goes on for good: started again whenever it ends, also by a fault."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from aforo.sdk.errors import AforoError

log = structlog.get_logger()


async def patiently(
    name: str, work: Callable[[], Awaitable[None]], *, retry_seconds: float
) -> None:
    """Start the work again whenever it ends; an engine that is away is waited for."""
    while True:
        try:
            await work()
        except (AforoError, RedisError, OSError) as error:
            log.warning("waiting for an engine", work=name, error=str(error))
            await asyncio.sleep(retry_seconds)
        except Exception:
            if (task := asyncio.current_task()) and task.cancelling():
                raise  # A fault while stopping: there is nothing to start again.
            log.exception("started again after a fault", work=name)
            await asyncio.sleep(retry_seconds)
