"""Several processes that do the same, and the one that started them, which only watches them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from aforo.process import stop_signals

RESTART_SECONDS = 1.0
"""Between the end of a process and the start of the one in its place."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fork:
    """What a process knows of the one that started it."""

    number: int
    """From 0; whoever takes its place has the same."""
    parent: int
    """A pipe that is closed once the parent is gone."""
    ready_pipe: int

    def follow_parent(self) -> None:
        """Be told to stop where the parent is gone, however it went; in a running loop."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(self.parent)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(self.parent, stop)

    def ready(self) -> None:
        """Tell the parent that the work has begun: from now on a fault is no wrong setting."""
        os.write(self.ready_pipe, b"!")


def run_several(
    work: Callable[[Fork], None], *, count: int, on_stop: Callable[[], None]
) -> int | None:
    """Do the work in so many processes until a signal ends all of them; the exit code.

    One that dies is replaced. One that ends before it was ever ready ends them all, with its exit
    code. `on_stop` is called once they are told to stop. In the processes themselves it returns
    None once their work is done, and whatever the work raises comes out.
    """
    watch = _Watch(work, count, on_stop)
    return watch.run()


class _Watch:
    """The parent, as long as it lives."""

    def __init__(self, work: Callable[[Fork], None], count: int, on_stop: Callable[[], None]):
        self._work = work
        self._count = count
        self._on_stop = on_stop
        self._numbers: dict[int, int] = {}
        """By pid, those that live."""
        self._was_ready: set[int] = set()
        self._ready_pipes: dict[int, int] = {}
        self._code: int | None = None
        """Set once all are told to stop."""
        self._alive = os.pipe()

    def run(self) -> int | None:
        signals = stop_signals()
        usual = {each: signal.signal(each, self._stop) for each in signals}
        try:
            for number in range(self._count):
                if self._code is None and self._fork(number):
                    return None
            while self._numbers:
                if self._replace(*os.wait()):
                    return None
        finally:
            for each, handler in usual.items():
                signal.signal(each, handler)
        assert self._code is not None, "they end only once they are told to"
        return self._code

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop_all(0)

    def _stop_all(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._on_stop()
            for pid in self._numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _fork(self, number: int) -> bool:
        """Start a process; whether this is the one, and its work is done."""
        ready, ready_pipe = os.pipe()
        # Until each side has its own handlers: ours would end the others from within this one.
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
        if pid := os.fork():
            os.close(ready_pipe)
            os.set_blocking(ready, False)
            self._numbers[pid], self._ready_pipes[pid] = number, ready
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
            if self._code is not None:
                os.kill(pid, signal.SIGTERM)
            return False
        signals = stop_signals()
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        os.close(self._alive[1])
        for other in (ready, *self._ready_pipes.values()):
            os.close(other)
        self._work(Fork(number, self._alive[0], ready_pipe))
        return True

    def _replace(self, pid: int, status: int) -> bool:
        """Start one in the place of one that has ended; whether this is the new one, once done."""
        number = self._numbers.pop(pid)
        if _has_said_something(self._ready_pipes.pop(pid)):
            self._was_ready.add(number)
        if self._code is not None:
            return False
        code = os.waitstatus_to_exitcode(status)
        if number not in self._was_ready:
            self._stop_all(code if code > 0 else 1)
            return False
        log.warning("a process has ended; another one takes its place", number=number, code=code)
        time.sleep(RESTART_SECONDS)
        return self._code is None and self._fork(number)


def _has_said_something(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False
    finally:
        os.close(pipe)
