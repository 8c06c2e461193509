"""The command `aforo` as processes of their own, run as the owner of a machine runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aforo.storage.embedded.processes import wait_until

COMMAND = Path(sys.executable).with_name("aforo")
PROC = Path("/proc")
END_SECONDS = 60


class Running:
    """A command that goes on until it is told to stop; what it says goes to a file."""

    def __init__(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [COMMAND, *arguments],
                env={"PATH": os.defpath, **environment},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All it has said so far."""
        return self.log.read_text()

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(END_SECONDS)

    def family(self) -> set[tuple[int, int]]:
        """Itself and all that it has started, each as process id and start time."""
        parents = {}
        for entry in PROC.iterdir():
            if entry.name.isdecimal() and (found := _parent_and_start(int(entry.name))):
                parents[int(entry.name)] = found
        family = {self.process.pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
            family |= more
        return {(pid, parents[pid][1]) for pid in family if pid in parents}


def run(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        env={"PATH": os.defpath, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def gone(family: set[tuple[int, int]]) -> bool:
    """Whether all of these end, now or within a moment."""

    def are_gone() -> bool:
        return not any(
            (found := _parent_and_start(pid)) and found[1] == start for pid, start in family
        )

    return wait_until(are_gone, seconds=60)


def _parent_and_start(pid: int) -> tuple[int, int] | None:
    """None where there is no such process, or only what nobody has buried yet."""
    try:
        # The name in parentheses may hold anything, spaces too.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(fields[1]), int(fields[19]))
