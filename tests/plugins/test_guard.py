"""What computes for too long is stopped, and everything else goes on as before."""

import asyncio
import threading
import time
from decimal import Decimal, localcontext

import pytest
from structlog.testing import capture_logs

from aforo.plugins import TookTooLong, bounded, bounded_steps

pytestmark = pytest.mark.anyio


def spin() -> None:
    while True:
        pass


def spin_against_everything() -> str:
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        try:
            spin()
        except BaseException:  # noqa: BLE001
            continue
    return "as if nothing had been"


def test_a_loop_without_end_is_stopped_and_named() -> None:
    with capture_logs() as logs, pytest.raises(TookTooLong) as stopped:
        bounded(spin, what="acme.spin", seconds=0.1)
    assert str(stopped.value) == "acme.spin was stopped: it had computed for more than 0.1 s"
    assert [(each["event"], each["plugin"]) for each in logs] == [
        ("a plugin computes for too long", "acme.spin")
    ]


def test_one_that_catches_all_is_stopped_again_and_its_answer_is_not_taken() -> None:
    with pytest.raises(TookTooLong):
        bounded(spin_against_everything, what="acme.stubborn", seconds=0.1)


def test_what_comes_back_in_time_gives_its_answer_and_its_errors() -> None:
    assert bounded(max, 1, 2, what="acme.max") == 2
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, what="acme.zero")


def test_nothing_is_raised_after_the_call() -> None:
    def just_too_long() -> None:
        until = time.monotonic() + 0.35
        while time.monotonic() < until:
            pass

    late = 0
    for _ in range(8):
        try:
            # Around the moment at which the watchdog looks.
            bounded(just_too_long, what="acme.late", seconds=0.2)
        except TookTooLong:
            late += 1
        sum(range(200_000))  # Here a stop that came too late would strike.
    assert late > 0


def test_a_thread_is_stopped_alone() -> None:
    outcome: list[str] = []

    def work() -> None:
        try:
            bounded(spin, what="acme.thread", seconds=0.1)
        except TookTooLong as error:
            outcome.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert outcome == ["acme.thread was stopped: it had computed for more than 0.1 s"]


def test_the_decimal_context_is_that_of_the_caller() -> None:
    with localcontext() as context:
        context.prec = 7
        seen = bounded(lambda: Decimal(1) / 3, what="acme.third")
    assert seen == Decimal("0.3333333")


async def test_a_coroutine_may_wait_and_not_compute_without_end() -> None:
    async def waits() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    async def waits_then_spins() -> None:
        await asyncio.sleep(0)
        spin()

    assert await bounded_steps(waits(), what="acme.waits", seconds=0.1) == "done"
    with pytest.raises(TookTooLong):
        await bounded_steps(waits_then_spins(), what="acme.spins", seconds=0.1)


async def test_what_it_waits_for_reaches_it_as_if_it_were_not_watched() -> None:
    said = []

    async def careful() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise
        return "never"

    task = asyncio.ensure_future(_awaited(careful()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["cancelled"]

    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "gave up"
        return "never"

    assert await _awaited(impatient()) == "gave up"


async def _awaited(work: object) -> object:
    return await bounded_steps(work, what="acme")  # type: ignore[arg-type]
