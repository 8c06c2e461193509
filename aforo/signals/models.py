"""Tables of the signals, and of the settings that their detectors go by."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field

from aforo.sdk.detection import Level
from aforo.storage.tables import TenantTable, belongs_to, choice, exact, json, moment


class Signal(TenantTable, table=True):
    """A detection. Its identity is a unique key, so it fires once per period."""

    __tablename__ = "signal"
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint(
            "tenant_id",
            "detector",
            "customer_id",
            "subject",
            "threshold",
            "period_start",
            name="signal_identity",
        ),
        sa.Index("signal_by_customer", "tenant_id", "customer_id", "id"),
        sa.Index("signal_by_detector", "tenant_id", "detector", "id"),
        sa.Index("signal_by_level", "tenant_id", "level", "id"),
    )

    detector: str
    customer_id: UUID
    subject: str
    """The meter or product it is about, as `product:<code>`; `*` for the customer as a whole."""
    threshold: str
    period_start: datetime = moment()
    period_end: datetime = moment()
    level: Level = choice(Level)
    value: Decimal | None = exact(default=None)
    limit: Decimal | None = exact(default=None)
    numbers: dict[str, Any] = json(default_factory=dict)
    """The detection's numbers by name, as decimal strings or null."""
    explanation: str
    event_ids: list[str] = json(default_factory=list)
    """Events behind it: those that weigh most, at most 100."""
    event_count: int = 0
    watermark: int = Field(default=0, sa_type=sa.BigInteger)
    """The last confirmed segment that was looked at."""
    settings: dict[str, Any] = json(default_factory=dict)
    """The detector's settings at that moment."""


class DetectorSettings(TenantTable, table=True):
    """Settings that a tenant chose for a detector; the latest row of each level is in force."""

    __tablename__ = "detector_settings"
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.Index("detector_settings_by_level", "tenant_id", "detector", "customer_id", "id"),
    )

    detector: str
    customer_id: UUID | None = None
    """None: for all customers of the tenant."""
    settings: dict[str, Any] = json(default_factory=dict)
    """Only what differs from the level above; an empty one takes everything from there."""
