"""The spool: a folder of segments in which events wait until their verdicts are known.

Every process appends to a segment of its own and sends what is in it. What a process leaves behind
when it ends is taken over by another one, or by the next. A lock over the folder is held only to
open, take over or count segments, never to append.
"""

import bisect
import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aforo_client.errors import ClientClosed, SpoolError, SpoolFull
from aforo_client.events import new_key
from aforo_client.options import Options
from aforo_client.segment import Line, Segment, line_bytes

SUFFIX = ".segment"
DEAD_LETTERS = "dead-letter.ndjson"
OWNER = "spool.json"
LOCK = "lock"
ADOPTED_MAX = 64
"""Segments that are taken over at a time; each is an open file."""
_LOOK_AGAIN_SECONDS = 0.1
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one segment that are sent together."""

    segment: Segment
    lines: Sequence[Line]

    @property
    def end(self) -> int:
        """Up to where the segment is done when every line has its verdict."""
        return self.lines[-1].end


class Spool:
    """One process's part of the folder. Every method may be called from any thread."""

    def __init__(self, folder: Path, owner: Mapping[str, str], options: Options) -> None:
        """Open the folder, or make it. Raises `SpoolError`; so does a spool of another server."""
        self.changed = threading.Condition()
        """Notified when events come or go; held while the figures below change."""
        self.tracked = self.adopted = self.waiting = 0
        self._folder = folder
        self._options = options
        self._segments: list[Segment] = []
        self._writing: Segment | None = None
        self._closed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with self._locked():
                    _check_owner(folder / OWNER, owner)
                self.adopt()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise SpoolError(f"the spool {folder} cannot be used: {error}") from error

    @property
    def waiting_bytes(self) -> int:
        """What waits, in bytes of the segments."""
        return sum(each.events_end - each.done for each in self._segments if not each.finished)

    def append(self, event: bytes) -> None:
        """Keep an event, as durably as the options say. Raises `SpoolFull` or `SpoolError`."""
        try:
            with self.changed:
                if self._closed:
                    raise ClientClosed("the client is closed: the event was not kept")
                segment = self._with_room(line_bytes(event))
                segment.append(event)
                self.tracked, self.waiting = self.tracked + 1, self.waiting + 1
                if self.waiting == 1 or self._is_batch():
                    self.changed.notify_all()
            if self._options.fsync == "always":
                segment.sync()
        except OSError as error:
            raise SpoolError(f"the spool {self._folder} cannot be written: {error}") from error

    def next_batch(self, *, events_max: int, bytes_max: int) -> Batch | None:
        """What has waited longest, at least one event; None where nothing waits. Raises OSError."""
        with self.changed:
            segment = next((each for each in self._segments if not each.finished), None)
            if segment is None:
                return None
            end = segment.events_end
        lines = list(segment.read(end=end, events_max=events_max, bytes_max=bytes_max))
        return Batch(segment, lines)

    def settle(self, batch: Batch) -> None:
        """Every verdict of the batch is known: it is never sent again."""
        with self.changed:
            batch.segment.mark_done(batch.end)
            self.waiting -= len(batch.lines)
            if batch.segment.finished and batch.segment is not self._writing:
                self._segments.remove(batch.segment)
                batch.segment.remove()
            self.changed.notify_all()

    def adopt(self) -> None:
        """Take over what others left behind. Raises OSError."""
        with self.changed, self._locked():
            mine = {each.path for each in self._segments}
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                if len(self._segments) >= ADOPTED_MAX:
                    break
                taken = Segment.take(path) if path not in mine else None
                if taken is None:
                    continue
                segment, waiting = taken
                if segment.finished:
                    segment.remove()
                    continue
                bisect.insort(self._segments, segment, key=lambda each: each.path.name)
                self.adopted, self.waiting = self.adopted + waiting, self.waiting + waiting
            self.changed.notify_all()

    def is_batch(self) -> bool:
        """Whether enough waits to be sent at once."""
        with self.changed:
            return self._is_batch()

    def marks(self) -> Mapping[Segment, int]:
        """How far every segment reaches now, for `passed`."""
        with self.changed:
            return {each: each.events_end for each in self._segments if not each.finished}

    def passed(self, marks: Mapping[Segment, int]) -> bool:
        """Whether everything that waited when the marks were taken has its verdict."""
        return all(each.done >= end for each, end in marks.items())

    def bury(self, dead: Sequence[Mapping[str, object]]) -> None:
        """Add to the file of dead letters, durably. Raises OSError."""
        text = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in dead).encode()
        descriptor = os.open(
            self._folder / DEAD_LETTERS,
            os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )
        try:
            with self.changed, self._locked():
                _take_half_a_line_back(descriptor)
                while text:
                    text = text[os.write(descriptor, text) :]
            if self._options.fsync != "never":
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Make safe from a power cut what this process has appended. Raises OSError."""
        writing = self._writing
        if writing is not None:
            writing.sync()

    def close(self) -> None:
        """Let go of every segment; one that is finished goes."""
        with self.changed:
            if self._closed:
                return
            self._closed = True
            for segment in self._segments:
                if segment.finished:
                    segment.remove()
                else:
                    segment.close()
            os.close(self._lock)

    def abandon(self) -> None:
        """In the child of a fork: close what is the parent's, whose locks stay the parent's."""
        for segment in self._segments:
            with contextlib.suppress(OSError):
                segment.abandon()
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _is_batch(self) -> bool:
        options = self._options
        return self.waiting >= options.batch_events or self.waiting_bytes >= options.batch_bytes

    def _with_room(self, size: int) -> Segment:
        """The segment to append to, a new one where the last is full. Raises SpoolFull, OSError."""
        deadline = time.monotonic() + self._options.full_wait_seconds
        while True:
            writing = self._writing
            if writing is not None and self._fits(writing, size):
                return writing
            if self._opened(size):
                continue
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise SpoolFull(
                    f"the spool {self._folder} holds {self.waiting:,} events of this process that "
                    f"could not be sent yet, and may not exceed "
                    f"{self._options.spool_bytes_max:,} bytes"
                )
            self.changed.wait(min(rest, _LOOK_AGAIN_SECONDS))  # Others may make room, too.

    def _fits(self, segment: Segment, size: int) -> bool:
        """Whether it may take a line of that size; an empty one takes any."""
        is_roomy = segment.size == 0 or segment.size + size <= self._options.segment_bytes
        return is_roomy and not segment.torn

    def _opened(self, size: int) -> bool:
        """Open a new segment, if the folder may have one more of that size."""
        sealed = self._writing
        with self._locked():
            room = self._options.spool_bytes_max - self._taken()
            if room < max(size, self._options.segment_bytes):
                return False
            if sealed is not None and self._options.fsync != "never":
                sealed.sync()
            self._writing = Segment.create(self._folder / f"{new_key()}{SUFFIX}")
            self._segments.append(self._writing)
            if self._options.fsync != "never":
                _sync_folder(self._folder)
        if sealed is not None and sealed.finished:
            self._segments.remove(sealed)
            sealed.remove()
        return True

    def _taken(self) -> int:
        """The bytes of the folder; a segment that is open elsewhere counts as full."""
        mine = {each.path.name for each in self._segments}
        taken = 0
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):
                size = entry.stat().st_size
                if entry.name.endswith(SUFFIX) and entry.name not in mine and _in_use(entry.path):
                    size = max(size, self._options.segment_bytes)
                taken += size
        return taken

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else opens, takes over or counts meanwhile."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


def _check_owner(path: Path, owner: Mapping[str, str]) -> None:
    """See to it that events of one server are never sent to another."""
    if not path.exists():
        unfinished = path.with_suffix(".new")
        unfinished.write_text(f"{json.dumps(owner)}\n")
        unfinished.replace(path)
        return
    known = path.read_text().strip()
    if known != json.dumps(owner):
        raise SpoolError(
            f"the spool {path.parent} belongs to {known}, not to {json.dumps(owner)}: "
            f"give each its own folder, or delete {path} if its events are meant for this one"
        )


def _in_use(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _take_half_a_line_back(descriptor: int) -> None:
    """Half a line is left where its writer was killed; its event is still in the spool."""
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(end - _READ_BYTES, 0)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + found + 1
        if found >= 0:
            break
    if end < size:
        os.ftruncate(descriptor, end)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
