"""Endpoints of webhooks, what is delivered to them, and each call."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from migrations.tenancy import belongs_to, create_tenant_table, open_to_system

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = ("webhook_endpoint", "webhook_delivery", "webhook_attempt")


def upgrade() -> None:
    create_tenant_table(
        "webhook_endpoint",
        sa.Column("url", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("event_types", ARRAY(sa.String), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("disabled_reason", sa.String(32), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("previous_secret", sa.LargeBinary, nullable=True),
        sa.Column("previous_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("exhausted", sa.Integer, nullable=False),
        sa.Column("warned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quiet_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )
    create_tenant_table(
        "webhook_delivery",
        sa.Column("endpoint_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("object_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_id", sa.Uuid, nullable=True),
        sa.Column("leases", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.String, nullable=True),
        belongs_to("webhook_endpoint", "endpoint_id"),
        belongs_to("outbox", "event_id"),
        sa.UniqueConstraint("tenant_id", "endpoint_id", "event_id"),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )
    in_order = ["tenant_id", "endpoint_id", "object_id", "position"]
    pending = sa.text("state = 'PENDING'")
    op.create_index(
        "webhook_delivery_due",
        "webhook_delivery",
        ["tenant_id", "endpoint_id", "next_at"],
        postgresql_where=pending,
    )
    op.create_index(
        "webhook_delivery_in_turn",
        "webhook_delivery",
        in_order[:3],
        unique=True,
        postgresql_where=pending,
    )
    op.create_index(
        "webhook_delivery_waiting",
        "webhook_delivery",
        in_order,
        postgresql_where=sa.text("state = 'WAITING'"),
    )
    op.create_index(
        "webhook_delivery_by_endpoint", "webhook_delivery", ["tenant_id", "endpoint_id", "id"]
    )
    op.create_index("webhook_delivery_by_event", "webhook_delivery", ["tenant_id", "event_id"])
    op.create_index("webhook_delivery_by_state", "webhook_delivery", ["tenant_id", "state", "id"])
    # Couriers find what is due in the deliveries of every tenant.
    open_to_system("webhook_delivery", grant="SELECT, UPDATE")
    create_tenant_table(
        "webhook_attempt",
        sa.Column("delivery_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("response", sa.String, nullable=True),
        sa.Column("failure", sa.String, nullable=True),
        belongs_to("webhook_delivery", "delivery_id"),
        sa.UniqueConstraint("tenant_id", "delivery_id", "number"),
        grant="SELECT, INSERT, DELETE",
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
