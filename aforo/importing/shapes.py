"""What an import passes along: the batches of a file, and what became of their rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

EVENTS_MAX = 1_000
"""Of a batch, as the API takes it."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Of a batch before it is packed: below what the API takes."""

COUNTS = ("accepted", "duplicates", "conflicts", "rejected", "quarantined")


class Format(StrEnum):
    """How a file holds its rows."""

    CSV = "csv"
    NDJSON = "ndjson"
    PARQUET = "parquet"


class NotTaken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A row that did not go in, and why."""

    line: int
    """Where it begins in the file, from 1; in Parquet, which has no lines, the number of the row,
    from 1."""
    idempotency_key: str | None
    verdict: str
    code: str
    message: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """An event, written as one line of JSON."""

    line: int
    text: bytes


@dataclass(slots=True)
class Batch:
    """Consecutive rows of a file."""

    number: int
    """From 0. The same file read with the same options always has the same batches."""
    rows: list[Row] = field(default_factory=list)
    refused: list[NotTaken] = field(default_factory=list)
    """Rows that can be no event, so they are not sent."""
    size: int = 0
    """Bytes of the body."""

    @property
    def body(self) -> bytes:
        """The rows as `application/x-ndjson`."""
        return b"\n".join(row.text for row in self.rows)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch."""

    batch: int
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    quarantined: int = 0
    not_taken: Sequence[NotTaken] = ()

    @property
    def rows(self) -> int:
        """How many rows it had, those that were not sent included."""
        return sum(getattr(self, name) for name in COUNTS)


def refused(line: int, message: str, key: str | None = None) -> NotTaken:
    """A row that is not worth sending."""
    return NotTaken(
        line=line, idempotency_key=key, verdict="REJECTED", code="BAD_VALUE", message=message
    )
