"""Signals, the settings of their detectors, and the actions of the ladder."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import (
    belongs_to,
    create_tenant_table,
)

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = ("signal", "detector_settings", "orchestration_actions")


def upgrade() -> None:
    create_tenant_table(
        "signal",
        sa.Column("detector", sa.String, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("threshold", sa.String, nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("value", sa.Numeric, nullable=True),
        sa.Column("limit", sa.Numeric, nullable=True),
        sa.Column("numbers", JSONB, nullable=False),
        sa.Column("explanation", sa.String, nullable=False),
        sa.Column("event_ids", JSONB, nullable=False),
        sa.Column("event_count", sa.Integer, nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
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
    )
    op.create_index("signal_by_customer", "signal", ["tenant_id", "customer_id", "id"])
    create_tenant_table(
        "detector_settings",
        sa.Column("detector", sa.String, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=True),
        sa.Column("settings", JSONB, nullable=False),
        belongs_to("customer", "customer_id"),
    )
    op.create_index(
        "detector_settings_by_level",
        "detector_settings",
        ["tenant_id", "detector", "customer_id", "id"],
    )
    create_tenant_table(
        "orchestration_actions",
        sa.Column("signal_id", sa.Uuid, nullable=False),
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("event_ids", JSONB, nullable=False),
        sa.Column("configuration", JSONB, nullable=False),
        sa.Column("before", JSONB, nullable=False),
        sa.Column("after", JSONB, nullable=False),
        sa.Column("result", sa.String, nullable=False),
        belongs_to("customer", "customer_id"),
        belongs_to("signal", "signal_id"),
        sa.UniqueConstraint("tenant_id", "signal_id", "tier", "sequence"),
    )
    op.create_index(
        "orchestration_actions_by_customer",
        "orchestration_actions",
        ["tenant_id", "customer_id", "id"],
    )
    op.create_index(
        "orchestration_actions_blocks",
        "orchestration_actions",
        ["tenant_id", "created_at"],
        postgresql_where=sa.text("tier = 'BLOCK'"),
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
