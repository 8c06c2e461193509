"""Tables of the actions."""

from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from aforo.sdk.detection import Level
from aforo.storage.tables import TenantTable, belongs_to, choice, json


class ActionMode(StrEnum):
    """Whether the ladder may act, or only says what it would do."""

    SHADOW = "SHADOW"
    AUTO = "AUTO"


class ActionState(StrEnum):
    """Where an action stands."""

    STANDBY = "STANDBY"
    QUEUED = "QUEUED"
    TRIGGERED = "TRIGGERED"
    RELEASED = "RELEASED"
    OVERRIDDEN = "OVERRIDDEN"
    EXPIRED = "EXPIRED"


class NotifierSettings(TenantTable, table=True):
    """Whether a tenant is told by a notifier, and its settings; the latest row of each counts."""

    __tablename__ = "notifier_settings"
    __table_args__ = (sa.Index("notifier_settings_by_notifier", "tenant_id", "notifier", "id"),)

    notifier: str
    enabled: bool
    settings: dict[str, Any] = json(default_factory=dict)


class OrchestrationAction(TenantTable, table=True):
    """One decision of the ladder, also the decision not to act. Append-only."""

    __tablename__ = "orchestration_actions"
    __table_args__ = (
        belongs_to("signal", "signal_id"),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "signal_id", "tier", "sequence"),
        sa.Index("orchestration_actions_by_customer", "tenant_id", "customer_id", "id"),
        sa.Index("orchestration_actions_by_signal", "tenant_id", "signal_id", "id"),
        sa.Index("orchestration_actions_by_tier", "tenant_id", "tier", "id"),
        sa.Index(
            "orchestration_actions_blocks",
            "tenant_id",
            "created_at",
            postgresql_where=sa.text("tier = 'BLOCK'"),
        ),
    )

    signal_id: UUID
    customer_id: UUID
    tier: Level = choice(Level)
    sequence: int = 0
    """Later decisions about the same signal and tier follow as rows of their own."""
    mode: ActionMode = choice(ActionMode)
    state: ActionState = choice(ActionState)
    actor: str
    """Who decided: `ladder`, or the API key of an operator."""
    reason: str
    event_ids: list[str] = json(default_factory=list)
    configuration: dict[str, Any] = json(default_factory=dict)
    """What the decision went by, as it was at that moment."""
    before: dict[str, Any] = json(default_factory=dict)
    after: dict[str, Any] = json(default_factory=dict)
    """What would have been so, or is so, after the action."""
    result: str
