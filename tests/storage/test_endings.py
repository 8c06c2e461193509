"""Tasks end, also those that a cancellation missed."""

import asyncio

import pytest

from aforo.storage.endings import end_all, run_all


async def _deaf(times: int) -> None:
    """Goes on for ever, and swallows so many cancellations."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


async def test_a_task_that_swallows_cancellations_ends() -> None:
    tasks = [asyncio.create_task(_deaf(times)) for times in (0, 1, 3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end_all(tasks, again_seconds=0.01)
    assert all(task.cancelled() for task in tasks)


async def test_what_an_ending_task_raises_is_not_raised() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("gone")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end_all([task])
    assert isinstance(task.exception(), OSError)


async def test_nothing_to_end_is_no_fault() -> None:
    await end_all([])


async def test_one_that_fails_ends_the_others() -> None:
    ended = []

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await run_all(goes_on(), fails(), finish_seconds=1)
    assert ended == [True]


async def test_whoever_is_cancelled_ends_all_and_lets_them_finish() -> None:
    finished = []

    async def finishes() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            finished.append(True)

    running = asyncio.create_task(run_all(finishes(), _deaf(1), finish_seconds=0.2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end_all([running], again_seconds=60)
    assert finished == [True]
