"""Stored events as columns of the ClickHouse table `events`, and the hash that checks them."""

from collections.abc import Sequence
from functools import reduce
from operator import xor
from typing import Any
from uuid import UUID

import msgspec

from aforo.metering.stored import StoredEvent

COLUMNS = (
    "tenant_id",
    "segment_id",
    "position",
    "event_id",
    "key_hash",
    "idempotency_key",
    "type",
    "customer_id",
    "team_id",
    "agent_id",
    "customer_key_id",
    "subscription_id",
    "product_id",
    "occurred_at",
    "received_at",
    "properties",
    "property_texts",
    "cost",
    "cost_currency",
    "cost_rates",
    "trace",
    "supersedes",
    "reason",
)


def columns_of(
    tenant_id: UUID, segment_id: int, events: Sequence[StoredEvent], keys: Sequence[bytes]
) -> list[Sequence[Any]]:
    """The columns of one segment, in the order of `COLUMNS`."""
    count = len(events)
    return [
        [tenant_id] * count,
        [segment_id] * count,
        range(count),
        [event.event_id for event in events],
        keys,
        [event.idempotency_key for event in events],
        [event.type for event in events],
        [event.customer_id for event in events],
        [event.team_id for event in events],
        [event.agent_id for event in events],
        [event.customer_key_id for event in events],
        [event.subscription_id for event in events],
        [event.product_id for event in events],
        [event.occurred_at for event in events],
        [event.received_at for event in events],
        [event.properties for event in events],
        [texts_of(event.properties) for event in events],
        [event.cost for event in events],
        [event.cost_currency for event in events],
        [list(event.cost_rates) for event in events],
        [event.trace for event in events],
        [event.supersedes for event in events],
        [event.reason for event in events],
    ]


def texts_of(properties: str) -> dict[str, str]:
    """Each property as one text: a string behind a quotation mark, the rest as it stands.

    Meters read these and not the JSON, because ClickHouse takes a JSON number for a double: it
    would lose digits, and one number out of a double's range would hide the whole event.
    """
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


def _stored(raw: bytes) -> str:
    return '"' + _string.decode(raw) if raw.startswith(b'"') else raw.decode()


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
