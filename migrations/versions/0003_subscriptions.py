"""Customers, the hierarchy below them, and subscriptions."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import (
    CHANGING,
    belongs_to,
    create_tenant_table,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("customer", "team", "agent", "customer_key", "subscription", "subscription_discount")


def upgrade() -> None:
    create_tenant_table(
        "customer",
        sa.Column("external_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=True),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("time_zone", sa.String, nullable=False),
        sa.Column("country", sa.String(2), nullable=True),
        sa.Column("region", sa.String, nullable=True),
        sa.Column("postal_code", sa.String, nullable=True),
        sa.Column("tax_number", sa.String, nullable=True),
        sa.Column("segment", sa.String, nullable=True),
        sa.UniqueConstraint("tenant_id", "external_id"),
        grant=CHANGING,
    )
    op.create_index("customer_by_name", "customer", ["tenant_id", "name", "id"])
    create_tenant_table(
        "team",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "code"),
    )
    create_tenant_table(
        "agent",
        sa.Column("team_id", sa.Uuid, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        belongs_to("team", "team_id"),
        sa.UniqueConstraint("tenant_id", "team_id", "code"),
    )
    create_tenant_table(
        "customer_key",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("agent_id", sa.Uuid, nullable=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        belongs_to("agent", "agent_id"),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "key_hash"),
    )
    create_tenant_table(
        "subscription",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("offering_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("billing_mode", sa.String(32), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("anchor_day", sa.Integer, nullable=False),
        sa.Column("grace_seconds", sa.Integer, nullable=False),
        sa.Column("billed_until", sa.DateTime(timezone=True), nullable=False),
        belongs_to("customer", "customer_id"),
        belongs_to("offering", "offering_id"),
        grant=CHANGING,
    )
    op.create_index(
        "subscription_by_customer", "subscription", ["tenant_id", "customer_id", "starts_at"]
    )
    op.create_index("subscription_by_due", "subscription", ["tenant_id", "billed_until"])
    create_tenant_table(
        "subscription_discount",
        sa.Column("subscription_id", sa.Uuid, nullable=False),
        sa.Column("discount_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        belongs_to("discount", "discount_id"),
        belongs_to("subscription", "subscription_id"),
        sa.UniqueConstraint("tenant_id", "subscription_id", "position"),
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
