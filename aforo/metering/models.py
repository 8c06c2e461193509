"""Tables of the ingestion path: keys, inbox, segments, quarantine."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from aforo.storage.tables import (
    NOW_DEFAULT,
    SHARED,
    TenantRow,
    TenantTable,
    belongs_to,
    choice,
    json,
    moment,
)


class KeyState(StrEnum):
    """What became of the event that holds an idempotency key."""

    ACCEPTED = "ACCEPTED"
    QUARANTINED = "QUARANTINED"
    VOID = "VOID"
    """It was accepted, and is a void itself."""


class QuarantineState(StrEnum):
    """What became of a quarantined event."""

    QUARANTINED = "QUARANTINED"
    RELEASED = "RELEASED"
    """It counts: it went the way of accepted events."""
    DISCARDED = "DISCARDED"
    """It never counts, and has given its key back."""


class BackfillState(StrEnum):
    """Whether the events of a backfill count."""

    OPEN = "OPEN"
    """Not yet; events are added."""
    CLOSED = "CLOSED"
    REVERTED = "REVERTED"
    """Not any more, for good."""


class SegmentState(StrEnum):
    """How far a sealed segment has come."""

    SEALED = "SEALED"
    CONFIRMED = "CONFIRMED"


class EventKey(TenantRow, table=True):
    """An idempotency key and the first event that used it: permanent deduplication."""

    __tablename__ = "event_key"
    is_audited: ClassVar[bool] = False
    __table_args__ = ({"postgresql_partition_by": "HASH (tenant_id, key_hash)"},)

    key_hash: bytes = Field(primary_key=True)
    """SHA-256 of the key."""
    payload_hash: bytes
    """SHA-256 of the canonical body: equal bodies have equal hashes."""
    event_id: UUID
    state: KeyState = choice(KeyState)
    superseded_by: UUID | None = None
    """The one event that takes its place, or voids it; it may be quarantined."""
    received_at: datetime = moment()


class EventInbox(TenantRow, table=True):
    """Accepted events on their way into a segment, as many as one transaction took of a tenant. A
    row here is the acknowledgement."""

    __tablename__ = "event_inbox"
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        sa.Index("event_inbox_by_segment", "tenant_id", "segment_id", "seq"),
        sa.Index("event_inbox_unsealed", "seq", postgresql_where=sa.text("segment_id IS NULL")),
    )

    seq: int = Field(
        default=None,
        primary_key=True,
        sa_type=sa.BigInteger,
        sa_column_args=(sa.Identity(always=True),),
    )
    """Order of insertion. Gaps are normal: only the transaction horizon says what is complete."""
    xid: int = Field(
        default=None,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("pg_current_xact_id()::text::bigint")},
    )
    """The transaction that wrote the row; sealed once no older transaction is still open."""
    events: int
    received_at: datetime = moment()
    """When the first of them was."""
    content_bytes: int
    """How long the events are once they are unpacked."""
    corrections: int = 0
    """How many of the events supersede another one, or close or revert a backfill."""
    backfilled: int = 0
    """How many belong to a backfill."""
    body: bytes
    """The enriched events, packed: a part of the archive file."""
    segment_id: int | None = Field(default=None, sa_type=sa.BigInteger)


class Segment(TenantRow, table=True):
    """A sealed run of one tenant's events. It never changes; the last confirmed one is the
    watermark that bills read up to."""

    __tablename__ = "segment"
    __portal__ = SHARED  # How far the event log has come; nothing of what is in it.
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        sa.Index("segment_unconfirmed", "segment_id", postgresql_where=sa.text("state = 'SEALED'")),
        sa.Index(
            "segment_by_corrections",
            "tenant_id",
            "segment_id",
            postgresql_where=sa.text("corrections > 0"),
        ),
        sa.Index(
            "segment_by_backfills",
            "tenant_id",
            "segment_id",
            postgresql_where=sa.text("backfilled > 0"),
        ),
    )

    segment_id: int = Field(
        default=None,
        primary_key=True,
        sa_type=sa.BigInteger,
        sa_column_args=(sa.Identity(always=True),),
    )
    """Rising over all tenants."""
    state: SegmentState = choice(SegmentState, default=SegmentState.SEALED)
    events: int
    corrections: int = 0
    """How many of its events supersede another one, or close or revert a backfill."""
    backfilled: int = 0
    """How many belong to a backfill."""
    sha256: bytes
    """Of the archive file's content."""
    previous_sha256: bytes
    """Of this tenant's segment before it; zeros for the first."""
    sealed_at: datetime = moment()
    confirmed_at: datetime | None = moment(default=None)


class TopicPlace(SQLModel, table=True):
    """How far a partition of a topic has been read: the truth about it, moved on in the transaction
    that keeps the events."""

    __tablename__ = "topic_place"

    topic: str = Field(primary_key=True, max_length=249)
    partition: int = Field(primary_key=True)
    next_offset: int = Field(sa_type=sa.BigInteger)
    read_until: datetime = moment()
    """Whatever was sent before it has been read."""


class Backfill(TenantTable, table=True):
    """Events that arrive over a while, and begin or cease to count all at once."""

    __tablename__ = "backfill"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"),)

    name: str
    reason: str
    state: BackfillState = choice(BackfillState, default=BackfillState.OPEN)
    closed_at: datetime | None = moment(default=None)
    reverted_at: datetime | None = moment(default=None)
    revert_reason: str | None = None
    keys_freed_at: datetime | None = moment(default=None)
    """When the keys of its events were given back, of one that was reverted."""


class UsageSpan(TenantTable, table=True):
    """A run of whole confirmed segments that is rolled up for a meter in ClickHouse.

    The spans of a meter follow each other without a gap. Only rows of spans that stand here count.
    """

    __tablename__ = "usage_span"
    __portal__ = SHARED  # How far roll-ups have come; nothing of what is in them.
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        belongs_to("meter", "meter_id"),
        sa.UniqueConstraint("tenant_id", "meter_id", "after_segment_id"),
    )

    meter_id: UUID
    after_segment_id: int = Field(sa_type=sa.BigInteger)
    """The segment before its first; 0 where it begins with the log."""
    segment_id: int = Field(sa_type=sa.BigInteger)
    """Its last segment."""
    span_id: int = Field(sa_type=sa.BigInteger)
    """What its rows in ClickHouse carry: a number of the attempt that made them."""
    events: int = Field(sa_type=sa.BigInteger)
    """How many events the meter counts in it."""


class IngestBatch(TenantTable, table=True):
    """What the requests that one transaction took brought: the numbers behind the conservation
    identity."""

    __tablename__ = "ingest_batch"
    is_audited: ClassVar[bool] = False
    __table_args__ = (sa.Index("ingest_batch_by_time", "tenant_id", "created_at"),)

    received: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    quarantined: int


class EventConflict(TenantTable, table=True):
    """A second body under a used key: recorded and visible, never counted."""

    __tablename__ = "event_conflict"
    is_audited: ClassVar[bool] = False
    __table_args__ = (sa.Index("event_conflict_by_event", "tenant_id", "event_id"),)

    idempotency_key: str
    event_id: UUID
    """The first event, which stands."""
    properties: str
    """What was sent this time, as canonical JSON."""


class QuarantinedEvent(TenantTable, table=True):
    """A well-formed event whose customer, meter, key or subscription is, or was, unknown. Its id
    is the event's."""

    __tablename__ = "quarantined_event"
    __table_args__ = tuple(
        sa.Index(f"quarantined_event_by_{column}", "tenant_id", column, "id")
        for column in ("state", "code", "event_type", "customer", "received_at")
    )

    state: QuarantineState = choice(QuarantineState, default=QuarantineState.QUARANTINED)
    code: str
    """Why, when it was last looked at."""
    message: str
    trace: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """How it passed the stages when it came, as `aforo.metering.trace` writes it."""
    key_hash: bytes
    body: dict[str, Any] = json()
    """The event as it was sent; `properties` is canonical JSON, and of an API key there is only the
    hash."""
    corrected: dict[str, Any] | None = json(default=None)
    """What was corrected since: those members of `body` that are others now."""
    event_type: str
    """As it stands: as sent, unless it was corrected."""
    customer: str | None = None
    """Likewise."""
    received_at: datetime = moment(sa_column_kwargs={"server_default": NOW_DEFAULT})
    settled_at: datetime | None = moment(default=None)
    """When it was released or discarded."""
    settled_by: str | None = None
    """By whom, as the audit log names him."""
