"""Small writes off the path of a request: few at once, and lost at worst."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import structlog

from aforo.storage.endings import end_all

WORK_MAX = 100
CLOSE_TIMEOUT_SECONDS = 5.0

log = structlog.get_logger()


class Background:
    """What a process does beside its requests. What fails or finds no room is not done."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begin the work, unless some of the same key runs, or 100 others do."""
        if key in self._running or len(self._running) >= WORK_MAX:
            return False
        self._running[key] = asyncio.create_task(self._run(key, work))
        return True

    async def settle(self) -> None:
        """Wait until nothing is left to do."""
        while running := list(self._running.values()):
            await asyncio.wait(running)

    async def close(self) -> None:
        """Wait a little for what runs, then give it up."""
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_TIMEOUT_SECONDS)
            await end_all(late)

    async def _run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 — nobody waits for it, and no bug may end here.
            log.warning("work beside a request was not done", error=repr(error))
        finally:
            del self._running[key]
