"""Fingerprints of events, over all that is kept: alike from an archive file and ClickHouse."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from aforo.metering.canonical import number
from aforo.metering.projection import texts_of, xor_of
from aforo.metering.stored import StoredEvent, hash_of_key


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two copies of a segment agree on if, and only if, they hold the same events."""

    events: int
    keys: int
    """XOR of the key hashes."""
    content: int
    """XOR of a hash over every column of each event, its place among them."""


def fingerprint(events: Sequence[StoredEvent]) -> Fingerprint:
    """Of the events of a segment, in order."""
    content = 0
    for position, event in enumerate(events):
        digest = sha256(_UNIT.join(_texts(event, position)).encode()).digest()
        content ^= int.from_bytes(digest[:8], "little")
    keys = [hash_of_key(event.idempotency_key) for event in events]
    return Fingerprint(len(events), xor_of(keys), content)


def _texts(event: StoredEvent, position: int) -> list[str]:
    """Each column as a text, as `FINGERPRINT` writes them."""
    texts = [f"{name}{_PAIR}{text}" for name, text in texts_of(event.properties).items()]
    return [
        str(event.event_id),
        event.idempotency_key,
        event.type,
        str(event.customer_id),
        _id(event.team_id),
        _id(event.agent_id),
        _id(event.customer_key_id),
        str(event.subscription_id),
        str(event.product_id),
        _micros(event.occurred_at),
        _micros(event.received_at),
        event.properties,
        _RECORD.join(sorted(texts, key=str.encode)),
        "" if event.cost is None else number(event.cost),
        event.cost_currency,
        _RECORD.join(map(str, event.cost_rates)),
        event.trace,
        event.supersedes,
        event.reason,
        event.backfill,
        str(position),
    ]


_PAIR, _RECORD, _UNIT = "\x1d", "\x1e", "\x1f"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FINGERPRINT = """
    count() AS events, groupBitXor(key_xor) AS keys,
    groupBitXor(reinterpretAsUInt64(substring(SHA256(arrayStringConcat([
        toString(event_id), idempotency_key, type, toString(customer_id),
        ifNull(toString(team_id), ''), ifNull(toString(agent_id), ''),
        ifNull(toString(customer_key_id), ''), toString(subscription_id), toString(product_id),
        toString(toUnixTimestamp64Micro(occurred_at)),
        toString(toUnixTimestamp64Micro(received_at)), properties,
        arrayStringConcat(arraySort(arrayMap((name, text) -> concat(name, char(29), text),
            mapKeys(property_texts), mapValues(property_texts))), char(30)),
        ifNull(toString(cost), ''), cost_currency,
        arrayStringConcat(arrayMap(one -> toString(one), cost_rates), char(30)), trace,
        supersedes, reason, backfill_id,
        toString(position)
    ], char(31))), 1, 8))) AS content
"""
"""The columns of a fingerprint, over the columns of `events_of`."""


def _id(value: UUID | None) -> str:
    return "" if value is None else str(value)


def _micros(at: datetime) -> str:
    return str((at - _EPOCH) // timedelta(microseconds=1))
