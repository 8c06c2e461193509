"""Calls a plugin's code so that it comes back: a watchdog stops what computes for too long.

Nothing in Python can end a function that another thread runs. What can be done, and is cheap, is
to raise an exception in it: that ends every loop written in Python. It does not end one call of
C code that does not return, such as a decimal to a huge power; then the process stands still,
its health check fails, and whoever runs it starts it anew.
"""

import asyncio
import ctypes
import re
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

import structlog

COMPUTING_SECONDS_MAX = 10.0
"""How long a plugin may compute at a stretch; a tax engine, between two waits."""
FAILURES = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
"""All that a plugin's code can raise where nothing is awaited: none of them may end a worker."""

_PAUSE_SECONDS = 0.2
_TOLD_CHARACTERS_MAX = 500
# Control characters, line ends and halves of a surrogate pair: PostgreSQL stores not all of them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

R = TypeVar("R")

log = structlog.get_logger()


class TookTooLong(Exception):
    """A plugin's code was stopped, because it did not come back in time."""


def bounded(
    call: Callable[..., R],
    *arguments: Any,
    what: str,
    seconds: float | None = None,
) -> R:
    """What a plugin's function gives for these arguments, if it comes back in time.

    `what` names the plugin in the log; `seconds` are COMPUTING_SECONDS_MAX unless given.
    Raises: `TookTooLong`, and whatever the function raises.
    """
    seconds = COMPUTING_SECONDS_MAX if seconds is None else seconds
    watch = _Watch(what, seconds)
    try:
        try:
            _begin(watch)
            answer = call(*arguments)
        finally:
            _end(watch)
    except _Stop:
        _end(watch)
        raise _too_long(what, seconds) from None
    if watch.is_late:  # It was stopped, and went on as if nothing had been.
        raise _too_long(what, seconds)
    return answer


@coroutine
def bounded_steps(
    work: Coroutine[Any, Any, R], *, what: str, seconds: float | None = None
) -> Generator[Any, Any, R]:
    """Await a plugin's coroutine; what it computes between two waits is bounded each time.

    Raises: `TookTooLong`, and whatever it raises.
    """
    step: Callable[[Any], Any] = work.send
    argument: Any = None
    while True:
        try:
            waited_for = bounded(step, argument, what=what, seconds=seconds)
        except StopIteration as end:
            return cast("R", end.value)
        try:
            argument = yield waited_for
            step = work.send
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 (it belongs to the one who waits)
            argument, step = error, work.throw


def told(error: BaseException) -> str:
    """The kind of an error and what it says: one line that can be stored, of bounded length."""
    try:
        said = str(error)[:_TOLD_CHARACTERS_MAX]
    except Exception:  # noqa: BLE001 (a plugin's error may fail even at this)
        said = ""
    said = UNPRINTABLE.sub(" ", said).strip()
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _Stop(BaseException):
    """Raised in the midst of a plugin's code; no `except Exception` of it keeps it."""


class _Watch:
    """One call that is under way."""

    __slots__ = ("deadline", "is_late", "seconds", "thread", "what")

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self.seconds = seconds
        self.thread = threading.get_ident()
        self.deadline = time.monotonic() + seconds
        self.is_late = False


_under_way: set[_Watch] = set()
_lock = threading.Lock()
_watchdog: threading.Thread | None = None


def _begin(watch: _Watch) -> None:
    global _watchdog  # noqa: PLW0603 (one per process, as threads are)
    with _lock:
        _under_way.add(watch)
        if _watchdog is None or not _watchdog.is_alive():
            _watchdog = threading.Thread(target=_watch_all, name="plugin watchdog", daemon=True)
            _watchdog.start()


def _end(watch: _Watch) -> None:
    """Nothing is raised for this call any more once this has returned."""
    while True:
        try:
            with _lock:
                _under_way.discard(watch)
            if watch.is_late:
                _raise_in(watch.thread, None)  # It may be on its way still.
        except _Stop:
            continue
        return


def _watch_all() -> None:
    while True:
        time.sleep(_PAUSE_SECONDS)
        now = time.monotonic()
        with _lock:
            late = [watch for watch in _under_way if watch.deadline <= now]
            for watch in late:
                # Again and again: a bare `except:` in a loop keeps it the first time.
                _raise_in(watch.thread, _Stop)
            fresh = [watch for watch in late if not watch.is_late]
            for watch in fresh:
                watch.is_late = True
        for watch in fresh:
            log.error("a plugin computes for too long", plugin=watch.what, seconds=watch.seconds)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


def _too_long(what: str, seconds: float) -> TookTooLong:
    return TookTooLong(f"{what} was stopped: it had computed for more than {seconds:g} s")
