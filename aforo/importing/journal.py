"""What was acknowledged so far, in a file beside the one that is imported.

Each acknowledged batch is a line, so an import that is killed goes on behind the last of them; what
was sent and not yet noted is sent again, under the same keys.
"""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from aforo.importing.shapes import COUNTS, NotTaken, Taken
from aforo.sdk.errors import Conflict, Invalid

SUFFIX = ".aforo-progress"


class Header(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which import the file speaks of."""

    sha256: str
    """Of the file that is imported."""
    options: dict[str, object]
    """How it is read, and where it is sent."""
    version: int = 1


class Journal:
    """The progress of one import; only one process has it at a time."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.done: set[int] = set()
        """The batches that were acknowledged."""
        self.totals = dict.fromkeys(COUNTS, 0)
        """Their rows by verdict."""

    @classmethod
    def open(cls, path: Path, header: Header) -> Self:
        """Begin an import, or go on with one. Raises `Invalid`, `Conflict`."""
        try:
            file = path.open("a+b")
        except OSError as error:
            raise Invalid(
                f"{path} cannot be written: {error.strerror}; choose another place with --state"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise Conflict(f"another import of this file is running: it holds {path}") from error
        journal = cls(path, file)
        try:
            journal._resume(header)
        except BaseException:
            file.close()
            raise
        return journal

    def add(self, taken: Taken) -> None:
        """Note an acknowledged batch."""
        self._file.write(msgspec.json.encode(taken) + b"\n")
        self._file.flush()
        self._count(taken)

    def not_taken(self) -> Iterator[NotTaken]:
        """Every row that did not go in, in the order of the batches' answers."""
        self._file.seek(0)
        next(self._file)
        for line in self._file:
            yield from _TAKEN.decode(line).not_taken

    def close(self, *, finished: bool) -> None:
        """Leave the file for the next try, or remove it once everything was acknowledged."""
        if finished:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _resume(self, header: Header) -> None:
        self._file.seek(0)
        beginning = self._file.read(len(_BEGINNING))
        if not _BEGINNING.startswith(beginning):
            raise Invalid(f"{self.path} is no progress of an import")  # Whatever it is, it stays.
        self._file.seek(0)
        first, size = next(self._file, b""), 0
        begun = header
        try:
            if first.endswith(b"\n"):
                begun, size = msgspec.json.decode(first, type=Header), len(first)
                size += sum(map(self._resumed, self._file))
        except msgspec.DecodeError as error:
            raise Invalid(f"{self.path} is no progress of an import: {error}") from error
        self._file.truncate(size)
        if not self.done:  # Nothing was acknowledged, so nothing has to fit together.
            self._file.truncate(0)
            self._file.write(msgspec.json.encode(header) + b"\n")
            self._file.flush()
            return
        if begun != msgspec.json.decode(msgspec.json.encode(header), type=Header):
            if begun.sha256 != header.sha256:
                raise Conflict(
                    "the file has changed since its import was begun. Put it back to go on, or "
                    f"remove {self.path} to begin again: then rows that bring no key of their own "
                    "get other keys, and those that went in already count twice"
                )
            raise Conflict(
                "the options are others than those the import was begun with. Go on with those, "
                f"or remove {self.path} to begin again: rows that went in already are duplicates"
            )

    def _resumed(self, line: bytes) -> int:
        """Count a line; its length. One that a kill cut off has none: its batch is sent again."""
        if not line.endswith(b"\n"):
            return 0
        self._count(_TAKEN.decode(line))
        return len(line)

    def _count(self, taken: Taken) -> None:
        self.done.add(taken.batch)
        for name in COUNTS:
            self.totals[name] += getattr(taken, name)


_BEGINNING = b'{"sha256":'
_TAKEN = msgspec.json.Decoder(Taken)
