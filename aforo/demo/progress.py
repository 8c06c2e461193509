"""What the demo shows while it gets ready: moving on a terminal, else a line per step."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


class _Console(Console):
    """A console whose reader may go away: what runs goes on, unseen."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # What is still buffered must go somewhere when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Display:
    """Shows steps, one after the other; a context manager that leaves the terminal as it was."""

    def __init__(self) -> None:
        self._console = console = _Console()
        self._moving = (
            Progress(
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )

    def __enter__(self) -> "Display":
        if self._moving:
            self._moving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The steps are done: nothing moves any more."""
        if self._moving:
            self._moving.stop()

    def say(self, text: str) -> None:
        """A line of its own, as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a step as long as it lasts; call what is given with what has been done of it."""
        if self._moving is None:
            begun = time.monotonic()
            yield _ignore
            self.say(f"{title}: {time.monotonic() - begun:.1f} s")
            return
        moving = self._moving
        task = moving.add_task(title, total=total)
        yield lambda done: moving.advance(task, done)
        moving.update(task, total=total or 1, completed=total or 1)


def _ignore(_done: int) -> None:
    return None
