"""How tasks are ended, also where a cancellation is lost.

`wait_for` of Python 3.11, which the drivers of Redis and PostgreSQL call, swallows a cancellation
that comes at the moment of its result: a loop that was cancelled once may go on for ever.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

CANCEL_AGAIN_SECONDS = 0.2


async def end_all(
    tasks: Iterable["asyncio.Task[Any]"], *, again_seconds: float = CANCEL_AGAIN_SECONDS
) -> None:
    """Cancel tasks until every one has ended; whatever they raise, nobody is there to be told.

    Those that finish something in their own time are cancelled again after a longer one.
    """
    ending = list(tasks)
    waiting = set(ending)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=again_seconds)
    for task in ending:
        if not task.cancelled():
            task.exception()


async def run_all(*parts: Coroutine[Any, Any, None], finish_seconds: float) -> None:
    """Run them beside each other until cancelled, or until one fails, which is raised; each then
    has so long to finish."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await end_all(tasks, again_seconds=finish_seconds)
