"""Heavy work in a few threads: the event loop stays free, and memory and queue are bounded."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aforo.sdk.errors import Unavailable

RETRY_AFTER_SECONDS = 2

T = TypeVar("T")


class FewThreads:
    """Runs functions, at most `threads` at a time, with at most `waiting_max` in the queue."""

    def __init__(self, name: str, *, threads: int, waiting_max: int) -> None:
        self._name = name
        self._room = threads + waiting_max
        self._busy = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Raises `Unavailable`, at once, where too many wait already."""
        if self._busy >= self._room:
            raise Unavailable(
                f"too many wait for {self._name}; try again",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Counted until the thread is done with it, not until whoever asked has gone.
        future.add_done_callback(lambda _: self._finish())
        return await asyncio.shield(future)

    def _finish(self) -> None:
        self._busy -= 1
