"""Stored events as rows of the ClickHouse table `events`, and the hash that checks them."""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import xor

import msgspec

from aforo.metering.stored import StoredEvent, compressed

ROWS_MAX = 1_000_000
"""Of one block, which is more than a segment has: what is inserted at once appears at once."""

INSERT_EVENTS = f"""
    INSERT INTO events (
        tenant_id, segment_id, position, event_id, key_hash, idempotency_key, type, customer_id,
        team_id, agent_id, customer_key_id, subscription_id, product_id, occurred_at, received_at,
        properties, property_texts, cost, cost_currency, cost_rates, trace, supersedes, reason,
        backfill_id
    )
    SELECT
        {{tenant:UUID}}, {{segment:UInt64}}, rowNumberInAllBlocks(), eventId,
        SHA256(idempotencyKey), idempotencyKey, type, customerId, teamId, agentId, customerKeyId,
        subscriptionId, productId, occurredAt, receivedAt, properties, texts, cost, costCurrency,
        costRates, trace, supersedes, reason, backfill
    FROM input('
        eventId UUID, idempotencyKey String, type String, customerId UUID,
        teamId Nullable(UUID), agentId Nullable(UUID), customerKeyId Nullable(UUID),
        subscriptionId UUID, productId UUID,
        occurredAt DateTime64(6, \\'UTC\\'), receivedAt DateTime64(6, \\'UTC\\'),
        properties String, texts Map(String, String),
        cost Nullable(Decimal(76, 30)), costCurrency String, costRates Array(UUID),
        trace String, supersedes String, reason String, backfill String
    ')
    SETTINGS date_time_input_format = 'best_effort', max_threads = 1, max_insert_threads = 1,
        input_format_parallel_parsing = 0, input_format_skip_unknown_fields = 1,
        max_insert_block_size = {ROWS_MAX}, min_insert_block_size_rows = {ROWS_MAX},
        min_insert_block_size_bytes = 0
    FORMAT JSONEachRow
"""
"""The rows of one segment out of its packed lines, in their order: by one thread in one block."""


def repacked(events: Iterable[StoredEvent]) -> bytes:
    """The lines that `INSERT_EVENTS` reads, packed; also of events that were kept without texts."""
    encoder = msgspec.json.Encoder(decimal_format="string")
    return compressed(encoder.encode_lines([_with_texts(event) for event in events]))


def texts_of(properties: str) -> dict[str, str]:
    """What `aforo.metering.canonical.texts` gives of the same properties, out of their JSON."""
    return {name: _stored(bytes(raw)) for name, raw in _members.decode(properties).items()}


def stored_texts(text: str) -> set[str]:
    """How a property may be stored that reads as `text`: as a string, or as something else.

    A missing property reads as no text, and so does null.
    """
    could_be_other = text not in {"", "null"} and not text.startswith('"')
    return {'"' + text, text} if could_be_other else {'"' + text}


def xor_of(keys: Sequence[bytes]) -> int:
    """XOR of the first eight bytes of each key hash, as ClickHouse reads them: little-endian."""
    return reduce(xor, (int.from_bytes(key[:8], "little") for key in keys), 0)


def _with_texts(event: StoredEvent) -> StoredEvent:
    if event.texts is not None:
        return event
    return msgspec.structs.replace(event, texts=texts_of(event.properties))


def _stored(raw: bytes) -> str:
    return '"' + _string.decode(raw) if raw.startswith(b'"') else raw.decode()


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
