"""Other processes on this machine: who runs an engine on our folder without us."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from aforo.storage.embedded.errors import EngineError

PROC = Path("/proc")
POLL_SECONDS = 0.02
ORPHAN_STOP_SECONDS = 15.0
STRAY_STOP_SECONDS = 1.0
KILLED_SECONDS = 5.0
PROGRAM_ARGUMENTS_MAX = 6


def stop_orphans(
    program: str, folder: Path, *, family: str | None = None, stop_signal: signal.Signals
) -> None:
    """End the processes of a killed Aforo that still hold our data, and wait until they are gone.

    The caller holds the lock of the folder, so whoever runs there belongs to nobody. A process is
    recognised by what it was started as, never by a remembered number, which may be another's now.
    Raises: `EngineError` where they do not end.
    """

    def gone() -> bool:
        return not orphans(program, folder, family=family)

    leaders = orphans(program, folder)
    for pid in leaders:
        _send(pid, stop_signal)
    if wait_until(gone, seconds=ORPHAN_STOP_SECONDS if leaders else STRAY_STOP_SECONDS):
        return
    for pid in orphans(program, folder, family=family):
        _send(pid, signal.SIGKILL)
    if not wait_until(gone, seconds=KILLED_SECONDS):
        left = ", ".join(str(pid) for pid in orphans(program, folder, family=family))
        raise EngineError(
            f"an earlier {program} still works on {folder} and does not end: kill process {left}"
        )


def orphans(program: str, folder: Path, *, family: str | None = None) -> list[int]:
    """Processes that run the program on the folder, and those that call themselves its family."""
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if not entry.name.isdecimal():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # It ended while we looked.
        started_as = {Path(arguments[0]).name, *arguments[1:PROGRAM_ARGUMENTS_MAX]}
        is_leader = program in started_as and str(folder) in arguments
        if is_leader or (family and arguments[0].startswith(f"{program}: {family}: ")):
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
