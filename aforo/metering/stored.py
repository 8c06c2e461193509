"""Accepted events as they are kept, in the inbox and in the archive: one line of JSON for each,
compressed by the batch. What is compressed can be put one behind the other."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

import msgspec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VOID = ""
"""The type of a void, which no meter selects: an event has at least one character there."""
NOBODY = UUID(int=0)
"""Whose a void is."""
COMPRESSION_LEVEL = 1
"""Of zstd: what waits a second or two for its segment is not worth more time."""


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Everything about an accepted event, fixed at ingestion."""

    event_id: UUID
    idempotency_key: str
    type: str
    customer_id: UUID
    team_id: UUID | None
    agent_id: UUID | None
    customer_key_id: UUID | None
    subscription_id: UUID
    """The subscription that its cost is attributed to."""
    product_id: UUID
    occurred_at: datetime
    received_at: datetime
    properties: str
    """Canonical JSON."""
    cost: Decimal | None
    """COGS in `cost_currency`; None is UNKNOWN_COST."""
    cost_currency: str
    cost_rates: tuple[UUID, ...]
    trace: str = ""
    """How it passed the first four stages, as `aforo.metering.trace` writes it; empty for events of
    before it was kept."""
    supersedes: str = ""
    """The key of the event that it takes the place of, or voids."""
    reason: str = ""
    """Why it does, for people."""
    backfill: str = ""
    """The id of the backfill that it belongs to; or, if it is nobody's, that it closes or reverts:
    then its properties say whether that one is `shown`."""
    texts: dict[str, str] | None = None
    """The properties as `aforo.metering.canonical.texts` gives them; None in what was kept before
    they were written out."""

    @property
    def is_void(self) -> bool:
        """Whether it counts for nobody, and only says something of other events."""
        return self.type == VOID

    @property
    def is_correction(self) -> bool:
        """Whether it changes what of other events counts."""
        return self.is_void or self.supersedes != ""


_encoder = msgspec.json.Encoder(decimal_format="string")
_decoder = msgspec.json.Decoder(StoredEvent)
_options = {
    int(zstd.CompressionParameter.compression_level): COMPRESSION_LEVEL,
    int(zstd.CompressionParameter.checksum_flag): 1,
}


class Pack(NamedTuple):
    """Some events, compressed."""

    body: bytes
    received_at: datetime
    """When the first of them was."""
    events: int
    content_bytes: int
    """How long they are once they are unpacked."""
    corrections: int
    """How many of them change what of other events counts."""
    backfilled: int
    """How many belong to a backfill."""


def packed(events: Sequence[StoredEvent]) -> Pack:
    """The events as compressed lines, one frame."""
    lines = _encoder.encode_lines(events)
    received_at = min(event.received_at for event in events)
    return Pack(
        compressed(lines),
        received_at,
        len(events),
        len(lines),
        sum(1 for event in events if event.is_correction),
        sum(1 for event in events if event.backfill),
    )


def packed_by_hour(events: Iterable[StoredEvent]) -> list[Pack]:
    """The events in a pack for each hour in which they were received, the earliest first:
    conservation counts by it."""
    by_hour: dict[datetime, list[StoredEvent]] = {}
    for event in events:
        by_hour.setdefault(hour_of(event.received_at), []).append(event)
    return [packed(several) for _, several in sorted(by_hour.items())]


def hour_of(at: datetime) -> datetime:
    """The beginning of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def compressed(lines: bytes) -> bytes:
    """Lines as one frame."""
    return zstd.compress(lines, options=_options)


def lines_of(content: bytes) -> bytes:
    """The lines of one or more frames, in order; or plain ones, as they were kept before.

    Raises: `zstd.ZstdError` for what was not packed here.
    """
    return content if content.startswith(b"{") else zstd.decompress(content)


def unpacked(content: bytes) -> list[StoredEvent]:
    """The events of one or more frames, in order; or of plain lines, as they were kept before.

    Raises: `msgspec.DecodeError` or `zstd.ZstdError` for what was not packed here.
    """
    return _decoder.decode_lines(lines_of(content))


def hash_of_key(idempotency_key: str) -> bytes:
    """What stands for a key in the table of keys and in the log: its SHA-256."""
    return sha256(idempotency_key.encode()).digest()
