"""Work that many ask for at the same time, done for several of them at once.

While one round runs, whoever asks waits for the next; so rounds grow with the load, and nobody
waits longer than he has to while there is none.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aforo.sdk.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is done at once, and how much may wait, in the unit of the items' sizes."""

    round_max: int
    waiting_max: int
    rounds_at_once: int = 2


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T, R]):
    item: T
    size: int
    answer: asyncio.Future[R]


class Together(Generic[T, R]):
    """Does `work` on all items that wait, and gives each of those who asked the own result."""

    def __init__(
        self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, bounds: Bounds, name: str
    ) -> None:
        self._work = work
        self._bounds = bounds
        self._name = name
        self._waiting: deque[_Asked[T, R]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()
        """Those that run: asyncio itself would forget them."""
        self.waiting = 0
        """The sizes of all items that wait, those of the running rounds among them."""

    async def do(self, item: T, *, size: int = 1) -> R:
        """Have the item done with others. What the work raises for it alone, whoever asked gets.

        Raises: `Unavailable` where too much waits already.
        """
        if self.waiting and self.waiting + size > self._bounds.waiting_max:
            raise Unavailable(
                f"{self._name} has more to do than it can at once; nothing was changed, try again",
                code="OVERLOADED",
                retry_after_seconds=1,
            )
        asked: _Asked[T, R] = _Asked(item, size, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self.waiting += size
        if self._running < self._bounds.rounds_at_once:
            self._running += 1
            # A task of its own: whoever asked first may give up, and the others are not his.
            task = asyncio.create_task(self._go_on())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asked.answer

    async def _go_on(self) -> None:
        try:
            while several := self._taken():
                try:
                    await self._round(several)
                finally:
                    self.waiting -= sum(asked.size for asked in several)
        finally:
            # At once, and not when the task is over: whoever comes in between would wait for ever.
            self._running -= 1

    async def _round(self, several: Sequence[_Asked[T, R]]) -> None:
        try:
            results = await self._work([asked.item for asked in several])
        except Exception as error:  # noqa: BLE001 — whoever asked is told.
            if len(several) > 1 and not isinstance(error, Unavailable):
                # One of them is at fault, and the others shall not suffer for it.
                for asked in several:
                    await self._round([asked])
            else:
                for asked in several:
                    if not asked.answer.done():
                        asked.answer.set_exception(error)
        else:
            for asked, result in zip(several, results, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(result)

    def _taken(self) -> list[_Asked[T, R]]:
        taken: list[_Asked[T, R]] = []
        room = self._bounds.round_max
        while self._waiting and (not taken or self._waiting[0].size <= room):
            asked = self._waiting.popleft()
            if asked.answer.cancelled():  # Nobody waits for it any more, and nothing was begun.
                self.waiting -= asked.size
                continue
            taken.append(asked)
            room -= asked.size
        return taken
