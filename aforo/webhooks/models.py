"""Tables of the endpoints, and of what is delivered to them."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from aforo.storage.event_types import EventType
from aforo.storage.tables import TenantTable, belongs_to, choice, hidden, moment


class EndpointState(StrEnum):
    """Whether an endpoint is told of events."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DisabledReason(StrEnum):
    """Why an endpoint is not told of events any more."""

    OWNER = "OWNER"
    GONE = "GONE"
    FAILING = "FAILING"


class DeliveryState(StrEnum):
    """Where a delivery stands. Of one object at most one is PENDING at an endpoint."""

    WAITING = "WAITING"
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    EXHAUSTED = "EXHAUSTED"
    CANCELLED = "CANCELLED"


OPEN = (DeliveryState.WAITING, DeliveryState.PENDING)
"""Still to be delivered."""


class WebhookEndpoint(TenantTable, table=True):
    """A URL of the tenant's that is told of events, and how it has been doing."""

    __tablename__ = "webhook_endpoint"

    url: str
    description: str
    event_types: list[str] = Field(sa_type=ARRAY(sa.String))
    """Only events of these types; of every type where it is empty."""
    state: EndpointState = choice(EndpointState, default=EndpointState.ENABLED)
    disabled_reason: DisabledReason | None = choice(DisabledReason, default=None)
    disabled_at: datetime | None = moment(default=None)
    secret: bytes = hidden()
    """Sealed; empty once the endpoint is deleted."""
    previous_secret: bytes | None = hidden(default=None)
    """Sealed; signs beside the new one until `previous_until`."""
    previous_until: datetime | None = moment(default=None)
    failing_since: datetime | None = moment(default=None)
    """The first failure after the last success."""
    exhausted: int = 0
    """Deliveries that were given up since the last success."""
    warned_at: datetime | None = moment(default=None)
    quiet_until: datetime | None = moment(default=None)
    """When the endpoint, by its `Retry-After`, wants to be called again."""
    deleted_at: datetime | None = moment(default=None)

    @property
    def is_enabled(self) -> bool:
        """Whether it may be called."""
        return self.state is EndpointState.ENABLED and self.deleted_at is None


class WebhookDelivery(TenantTable, table=True):
    """One event on its way to one endpoint; sent again, it is the same row."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        belongs_to("webhook_endpoint", "endpoint_id"),
        belongs_to("outbox", "event_id"),
        sa.UniqueConstraint("tenant_id", "endpoint_id", "event_id"),
        sa.Index(
            "webhook_delivery_due",
            "tenant_id",
            "endpoint_id",
            "next_at",
            postgresql_where=sa.text("state = 'PENDING'"),
        ),
        sa.Index(
            "webhook_delivery_in_turn",
            "tenant_id",
            "endpoint_id",
            "object_id",
            unique=True,
            postgresql_where=sa.text("state = 'PENDING'"),
        ),
        sa.Index(
            "webhook_delivery_waiting",
            "tenant_id",
            "endpoint_id",
            "object_id",
            "position",
            postgresql_where=sa.text("state = 'WAITING'"),
        ),
        sa.Index("webhook_delivery_by_endpoint", "tenant_id", "endpoint_id", "id"),
        sa.Index("webhook_delivery_by_event", "tenant_id", "event_id"),
        sa.Index("webhook_delivery_by_state", "tenant_id", "state", "id"),
        sa.Index("webhook_delivery_by_type", "tenant_id", "type", "id"),
    )

    endpoint_id: UUID
    event_id: UUID
    type: EventType = choice(EventType)
    object_id: UUID
    position: int = Field(sa_type=sa.BigInteger)
    """Those of the event, beside it: they say whose turn it is."""
    state: DeliveryState = choice(DeliveryState, default=DeliveryState.WAITING)
    tries: int = 0
    """Calls that came to an end, since it was last asked for."""
    attempts: int = 0
    """All calls that came to an end."""
    next_at: datetime = moment()
    lease_until: datetime | None = moment(default=None)
    lease_id: UUID | None = None
    """Tells this lease from a later one: who lost it records nothing."""
    leases: int = 0
    """How often it was taken, since it was last asked for."""
    finished_at: datetime | None = moment(default=None)
    failure: str | None = None
    """Why the last call failed, or the delivery was given up."""


class WebhookAttempt(TenantTable, table=True):
    """One call that came to an end, and what was answered."""

    __tablename__ = "webhook_attempt"
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        belongs_to("webhook_delivery", "delivery_id"),
        sa.UniqueConstraint("tenant_id", "delivery_id", "number"),
    )

    delivery_id: UUID
    number: int
    """From 1 on."""
    started_at: datetime = moment()
    duration_ms: int
    status: int | None = None
    response: str | None = None
    """The beginning of the body that came back."""
    failure: str | None = None
