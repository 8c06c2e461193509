"""An accepted event as it is kept: one line of JSON in the inbox and in the archive."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
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


_encoder = msgspec.json.Encoder(decimal_format="string")
_decoder = msgspec.json.Decoder(StoredEvent)


def to_line(event: StoredEvent) -> str:
    """The event as one line of JSON, without its end."""
    return _encoder.encode(event).decode()


def from_line(line: str | bytes) -> StoredEvent:
    """The event of one line."""
    return _decoder.decode(line)
