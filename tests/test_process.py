"""How a process ends: one signal cancels its work, which cleans up whatever else comes."""

import asyncio
import os
import signal

import pytest

from aforo import process


@pytest.mark.parametrize("how", process.STOP_SIGNALS)
def test_a_signal_cancels_the_work_and_further_ones_do_not_cut_its_cleaning_up_short(
    how: signal.Signals,
) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), how)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), how)
            await asyncio.sleep(0)
            done.append("cleaned up")

    usual = signal.default_int_handler if how is signal.SIGINT else signal.SIG_DFL
    # Whoever started the suite may have chosen to ignore a hang-up.
    outside = signal.signal(how, usual)
    try:
        process.run(work)
        assert done == ["cleaned up"]
        assert signal.getsignal(how) == usual
    finally:
        signal.signal(how, outside)


def test_work_that_ends_by_itself_ends_the_process() -> None:
    async def work() -> None:
        done.append("worked")

    done: list[str] = []
    process.run(work)
    assert done == ["worked"]


def test_a_fault_comes_out_as_it_is() -> None:
    async def work() -> None:
        raise LookupError("what went wrong")

    with pytest.raises(LookupError, match="what went wrong"):
        process.run(work)


def test_a_hang_up_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in process.stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
