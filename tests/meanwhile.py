"""Work that goes on beside a test, as long as the test needs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

PAUSE_SECONDS = 0.1


@asynccontextmanager
async def again_and_again(work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do the work over and over, as long as the block lasts."""

    async def go_on() -> None:
        while True:
            await work()
            await asyncio.sleep(PAUSE_SECONDS)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    """Wait until a condition holds. Raises: `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(PAUSE_SECONDS / 10)
