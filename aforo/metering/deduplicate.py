"""Stage 3, deduplication: first writer wins, by key, for good."""

from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import msgspec

from aforo.metering.canonical import canonical_object
from aforo.metering.ingest import SentEvent
from aforo.metering.stored import hash_of_key
from aforo.metering.verdicts import Stage, Verdict, VerdictKind


class KeyedEvent(msgspec.Struct, frozen=True):
    """An event in its batch, with the two hashes that say whether it was seen before."""

    index: int
    event: SentEvent
    properties: str
    """As canonical JSON."""
    key_hash: bytes
    payload_hash: bytes

    @property
    def corrects(self) -> bool:
        """Whether it supersedes another event."""
        return self.event.supersedes is not None


@dataclass(frozen=True, slots=True)
class KnownKey:
    """The first event that used a key."""

    event_id: UUID
    payload_hash: bytes


def keyed(index: int, event: SentEvent) -> KeyedEvent:
    """Hash the key, and the body in its canonical form.

    Bodies are equal if type, customer and apiKey as sent, the instant of `occurredAt` (absent
    equals only absent) and the properties are equal after parsing; of a correction also what it
    supersedes, and why.
    """
    instant = None if event.occurred_at is None else event.occurred_at.isoformat()
    properties = canonical_object(event.properties)
    said: tuple[str | None, ...] = (event.type, event.customer, event.api_key, instant)
    if event.supersedes is not None:
        said += (event.supersedes, event.reason)
    head = _encode(said)
    # The canonical form of all of them in one list.
    body = head[:-1] + b"," + properties.encode() + b"]"
    return KeyedEvent(index, event, properties, hash_of_key(event.key), sha256(body).digest())


def seen_before(item: KeyedEvent, first: KnownKey) -> Verdict:
    """The verdict on an event whose key another one holds."""
    if item.payload_hash == first.payload_hash:
        kind, message = VerdictKind.DUPLICATE, "this event was taken before; it counts once"
    else:
        kind, message = (
            VerdictKind.CONFLICT,
            "another body was sent under this idempotencyKey before; the first one stands",
        )
    return Verdict(
        index=item.index,
        idempotency_key=item.event.key,
        kind=kind,
        stage=Stage.DEDUPLICATION,
        code=kind.value,
        message=message,
        event_id=first.event_id,
    )


_encode = msgspec.json.Encoder().encode
