"""One file of the spool: lines that are only ever added, each with a checksum, of one owner.

A line is `<crc32> e<event>` or `<crc32> d<offset>`: an event, or a note that every event before the
offset has its verdict. A line that does not fit its checksum is damaged and costs no other line; a
last line without its end was being written when its process was killed, and nobody was told that it
is kept.
"""

import contextlib
import errno
import fcntl
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EVENT, DONE = b"e", b"d"
_MARK_BYTES = len(b"00000000 e\n")
_READ_BYTES = 256 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a segment, without its end."""

    kind: bytes
    """EVENT, DONE, or nothing where the line is damaged."""
    content: bytes
    """Of a damaged line all that is there."""
    end: int
    """Where the next line starts, in bytes."""


class Segment:
    """An open segment; whoever has it open holds its lock, and nobody else reads or writes it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path = path
        self.size = self.done = self.events_end = 0
        self.torn = False
        """Whether half a line stands at the end, after which no other may come."""
        self._synced = 0
        self._syncing = threading.Lock()
        self._closed = False
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path) -> "Segment":
        """A new, empty one. Raises OSError."""
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, path)

    @classmethod
    def take(cls, path: Path) -> "tuple[Segment, int] | None":
        """One that somebody left behind, and how many of its lines wait; None if it is in use.

        Raises OSError.
        """
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        segment = cls(descriptor, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Without a name it was finished, and deleted between the two lines above.
            waiting = segment._recover() if os.fstat(descriptor).st_nlink else None
        except BlockingIOError:
            waiting = None
        except OSError:
            os.close(descriptor)
            raise
        if waiting is None:
            os.close(descriptor)
            return None
        return segment, waiting

    @property
    def finished(self) -> bool:
        """Whether every event in it has its verdict."""
        return self.done >= self.events_end

    def append(self, event: bytes) -> None:
        """Add an event. Raises OSError, and then it is not there."""
        self._write(_line(EVENT, event))
        self.events_end = self.size

    def mark_done(self, offset: int) -> None:
        """Note that every event before the offset has its verdict."""
        self.done = offset
        # A disk that is full cannot take the note: then they are sent again, which does no harm.
        with contextlib.suppress(OSError):
            self._write(_line(DONE, b"%d" % offset))

    def read(self, *, end: int, events_max: int, bytes_max: int) -> Iterator[Line]:
        """What waits before `end`, in order: one line at least, as many as the limits allow."""
        events = taken = 0
        for line in self._lines(self.done, end):
            if line.kind == DONE:
                continue
            events, taken = events + 1, taken + len(line.content) + 1
            if events > 1 and (events > events_max or taken > bytes_max):
                return
            yield line
        if not events:  # Not even the end of a line is left of what was written.
            yield Line(b"", b"", end)

    def sync(self) -> None:
        """Wait until all that was written so far is safe from a power cut. Raises OSError."""
        size = self.size
        with self._syncing:  # Who waited here finds that it was done for him as well.
            if self._synced < size and not self._closed:
                size = self.size
                os.fsync(self._descriptor)
                self._synced = size

    def remove(self) -> None:
        """Delete the file, and with it the lock."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of it: the next who comes may take it."""
        with self._syncing:
            self._closed = True
            os.close(self._descriptor)

    def abandon(self) -> None:
        """In the child of a fork: close it, while the parent goes on with it."""
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        if self.torn:
            raise OSError(errno.EIO, "the segment ends in half a line", str(self.path))
        done = 0
        try:
            while done < len(line):
                done += os.write(self._descriptor, line[done:])
        except OSError:
            if done:
                self.torn = True
                os.ftruncate(self._descriptor, self.size)
                self.torn = False
            raise
        self.size += len(line)

    def _recover(self) -> int:
        """Find out what waits, after its owner was killed."""
        self.size = os.fstat(self._descriptor).st_size
        waiting: list[int] = []
        end = 0
        for line in self._lines(0, self.size):
            end = line.end
            if line.kind == DONE:
                self.done = max(self.done, int(line.content))
            else:
                self.events_end = line.end
                waiting.append(line.end)
        if end < self.size:  # The tail is torn: it must not become one line with the next.
            os.ftruncate(self._descriptor, end)
            self.size = end
        return sum(each > self.done for each in waiting)

    def _lines(self, start: int, end: int) -> Iterator[Line]:
        """The whole lines between two offsets."""
        held = b""
        while start + len(held) < end:
            position = start + len(held)
            read = os.pread(self._descriptor, min(_READ_BYTES, end - position), position)
            if not read:
                raise OSError(errno.EIO, "shorter than what was written to it", str(self.path))
            held += read
            *lines, held = held.split(b"\n")
            for line in lines:
                start += len(line) + 1
                yield _parsed(line, start)


def line_bytes(event: bytes) -> int:
    """What an event takes up in a segment."""
    return len(event) + _MARK_BYTES


def _line(kind: bytes, content: bytes) -> bytes:
    marked = kind + content
    return b"%08x %b\n" % (zlib.crc32(marked), marked)


def _parsed(line: bytes, end: int) -> Line:
    marked = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(marked) or marked[:1] not in {EVENT, DONE}:
        return Line(b"", line, end)
    return Line(marked[:1], marked[1:], end)
