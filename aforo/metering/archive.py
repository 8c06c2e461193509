"""The archive: each sealed segment as one file, from which everything else can be rebuilt."""

import os
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from uuid import UUID

from aforo.storage.failpoints import reached


def digest(content: bytes) -> bytes:
    """SHA-256 of a segment's bytes."""
    return sha256(content).digest()


def path_of(folder: Path, tenant_id: UUID, segment_id: int) -> Path:
    """Where the segment's file is to stand."""
    return folder / "archive" / str(tenant_id) / f"{segment_id:015}.ndjson.zst"


def find(folder: Path, tenant_id: UUID, segment_id: int) -> Path:
    """Where the segment's file stands: without a second suffix if it was written before files
    were packed. `aforo.metering.stored.unpacked` reads both."""
    packed = path_of(folder, tenant_id, segment_id)
    plain = packed.with_suffix("")
    return plain if plain.exists() and not packed.exists() else packed


def write(path: Path, content: bytes) -> None:
    """Put a file there that is whole or absent, whatever dies meanwhile, and outlives the power."""
    _make(path.parent)
    # A name of our own: a leader that was cut off may still be writing the same segment.
    temporary = path.with_suffix(f".{token_hex(4)}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    reached("archive.written")
    try:
        temporary.rename(path)
    except FileNotFoundError:
        if not path.exists():  # Else that leader was faster, and cleaned up behind both of us.
            raise
    for leftover in path.parent.glob(f"{path.stem}.*.tmp"):
        leftover.unlink(missing_ok=True)
    _sync(path.parent)


def read(path: Path) -> bytes | None:
    """The bytes of a segment's file; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _make(folder: Path) -> None:
    """Make a folder and those above it, each durable in the one that holds it."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
