"""Heavy work in a few threads: the loop stays free, and whoever comes too late is told at once."""

import asyncio
import threading

import pytest

from aforo.sdk.errors import Unavailable
from aforo.storage.threads import FewThreads

pytestmark = pytest.mark.anyio


async def test_only_so_many_run_and_wait_and_the_loop_is_free_meanwhile() -> None:
    few = FewThreads("this", threads=2, waiting_max=3)
    go_on = threading.Event()
    running: list[int] = []
    most = 0

    def work() -> str:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        assert go_on.wait(10)
        running.pop()
        return "done"

    tasks = [asyncio.create_task(few.run(work)) for _ in range(5)]
    while len(running) < 2:  # noqa: ASYNC110 (it is threads that tell)
        await asyncio.sleep(0)  # The loop turns while both are busy.
    with pytest.raises(Unavailable) as refused:
        await few.run(work)
    assert refused.value.retry_after_seconds == 2
    assert "this" in refused.value.message
    go_on.set()
    assert await asyncio.gather(*tasks) == ["done"] * 5
    assert most == 2
    assert await few.run(work) == "done"


async def test_whoever_goes_away_leaves_his_place_only_when_the_thread_is_done() -> None:
    few = FewThreads("this", threads=1, waiting_max=0)
    go_on = threading.Event()
    task = asyncio.create_task(few.run(lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Unavailable):
        await few.run(lambda: True)
    go_on.set()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await few.run(lambda: True)
                break
            except Unavailable:
                await asyncio.sleep(0)


async def test_what_the_work_raises_is_raised() -> None:
    few = FewThreads("this", threads=1, waiting_max=0)

    def fails() -> None:
        raise KeyError("x")

    for _ in range(3):
        with pytest.raises(KeyError):
            await few.run(fails)
