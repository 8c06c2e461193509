"""Other processes on this machine: who runs an engine on our folder without us."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PROC = Path("/proc")
POLL_SECONDS = 0.02
ORPHAN_STOP_SECONDS = 10.0


def stop_orphans(program: str, marks: Sequence[str], *, stop_signal: signal.Signals) -> None:
    """End the processes of a killed Aforo that still hold our data, and wait until they are gone.

    The caller holds the lock of the folder, so whoever runs there belongs to nobody. A process is
    recognised by what it was started as, never by a remembered number, which may be another's now.
    """
    for how, seconds in ((stop_signal, ORPHAN_STOP_SECONDS), (signal.SIGKILL, 5.0)):
        living = orphans(program, marks)
        if not living:
            return
        for pid in living:
            _send(pid, how)
        wait_until(lambda: not orphans(program, marks), seconds=seconds)


def orphans(program: str, marks: Sequence[str]) -> list[int]:
    """Processes whose program is named so and whose command line has one of the marks."""
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # It ended while we looked.
        started_as = " ".join(arguments[:6])
        if program in started_as and any(
            mark in arguments or arguments[0].startswith(f"{program}: {mark}: ") for mark in marks
        ):
            found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Ask until the answer is yes; False where it was not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _send(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
