"""The archive: each sealed segment as one file, from which everything else can be rebuilt."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from uuid import UUID


def content_of(lines: Sequence[str]) -> bytes:
    """The bytes of a segment: its events, one JSON line each, in order."""
    return "".join(f"{line}\n" for line in lines).encode()


def digest(content: bytes) -> bytes:
    """SHA-256 of a segment's bytes."""
    return sha256(content).digest()


def path_of(folder: Path, tenant_id: UUID, segment_id: int) -> Path:
    """Where the segment's file stands."""
    return folder / "archive" / str(tenant_id) / f"{segment_id:015}.ndjson"


def write(path: Path, content: bytes) -> None:
    """Put a file there that is whole or absent, whatever dies meanwhile, and outlives the power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
