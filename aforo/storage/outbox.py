"""The outbox: domain events, written in the transaction of what they tell of."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.event_types import SHAPES, EventType
from aforo.storage.tables import TenantTable, choice, moment


class OutboxEvent(TenantTable, table=True):
    """One domain event. What is sent is kept as text: the same bytes, however often."""

    __tablename__ = "outbox"
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        sa.Index("outbox_position", "tenant_id", "position", unique=True),
        sa.Index(
            "outbox_waiting",
            "tenant_id",
            "position",
            postgresql_where=sa.text("fanned_out_at IS NULL"),
        ),
        sa.Index("outbox_by_time", "tenant_id", "created_at"),
    )

    position: int = Field(
        default=None, sa_type=sa.BigInteger, sa_column_args=(sa.Identity(always=True),)
    )
    """Its place among the tenant's events. Taken when it is written, so of two events of an
    object, whose writers wait for each other, the later has the higher one; ids tell less,
    because each machine makes them by its own clock."""
    type: EventType = choice(EventType)
    object_id: UUID
    """What it is about; events of one object are delivered in order."""
    body: str
    fanned_out_at: datetime | None = moment(default=None)
    """When its deliveries were written; None as long as that is to be done."""


def event_row(
    event_id: UUID, kind: EventType, object_id: UUID, data: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """An event as columns of its row."""
    return {
        "id": event_id,
        "type": kind,
        "object_id": object_id,
        "body": body_of(event_id, kind, data, now),
    }


def body_of(event_id: UUID, kind: EventType, data: Mapping[str, Any], now: datetime) -> str:
    """What is sent about an event, as JSON text."""
    shape = SHAPES[kind]
    body = {
        "id": message_id(event_id),
        "type": kind.value,
        "version": shape.version,
        "timestamp": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": shape.rendered(data),
    }
    return msgspec.json.encode(body).decode()


def message_id(event_id: UUID) -> str:
    """The id that receivers know an event by, in every delivery of it."""
    return f"evt_{event_id.hex}"
