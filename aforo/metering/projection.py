"""Stored events as columns of the ClickHouse table `events`, and the hash that checks them."""

from collections.abc import Sequence
from functools import reduce
from operator import xor
from typing import Any
from uuid import UUID

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
    "cost",
    "cost_currency",
    "cost_rates",
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
        [event.cost for event in events],
        [event.cost_currency for event in events],
        [list(event.cost_rates) for event in events],
    ]


def xor_of(keys: Sequence[bytes]) -> int:
    """XOR of the first eight bytes of each key hash, as ClickHouse reads them: little-endian."""
    return reduce(xor, (int.from_bytes(key[:8], "little") for key in keys), 0)
