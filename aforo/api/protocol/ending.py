"""How tasks are ended, also where a cancellation is lost."""

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_SECONDS = 0.2


async def end_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until every one has ended; whatever they raise, nobody is there to be told.

    More than once where needed: `wait_for` of Python 3.11, which the driver of Redis calls,
    swallows a cancellation that comes at the moment of its result.
    """
    ending = list(tasks)
    waiting = set(ending)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)
    for task in ending:
        if not task.cancelled():
            task.exception()
