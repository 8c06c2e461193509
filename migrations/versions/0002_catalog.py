"""The catalogue."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import (
    belongs_to,
    create_tenant_table,
)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = (
    "product",
    "meter",
    "cost_rate",
    "rate_plan",
    "rate_plan_line",
    "entitlement",
    "offering",
    "offering_entitlement",
    "discount",
)


def upgrade() -> None:
    create_tenant_table(
        "product",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.UniqueConstraint("tenant_id", "code"),
    )
    create_tenant_table(
        "meter",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("event_type", sa.String, nullable=False),
        sa.Column("aggregation", sa.String(32), nullable=False),
        sa.Column("property", sa.String, nullable=True),
        sa.Column("filters", JSONB, nullable=False),
        sa.Column("allows_negative", sa.Boolean, nullable=False),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )
    op.create_index("meter_by_event_type", "meter", ["tenant_id", "event_type"])
    create_tenant_table(
        "cost_rate",
        sa.Column("meter_code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("unit_cost", sa.Numeric, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("effective_from", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("tenant_id", "meter_code", "version"),
    )
    op.create_index(
        "cost_rate_by_meter", "cost_rate", ["tenant_id", "meter_code", "effective_from"]
    )
    create_tenant_table(
        "rate_plan",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("interval", sa.String(32), nullable=False),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )
    create_tenant_table(
        "rate_plan_line",
        sa.Column("rate_plan_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("meter_id", sa.Uuid, nullable=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
        sa.Column("tax_category", sa.String, nullable=True),
        belongs_to("meter", "meter_id"),
        belongs_to("rate_plan", "rate_plan_id"),
        sa.UniqueConstraint("tenant_id", "rate_plan_id", "code"),
        sa.UniqueConstraint("tenant_id", "rate_plan_id", "position"),
    )
    create_tenant_table(
        "entitlement",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("meter_id", sa.Uuid, nullable=True),
        sa.Column("quota", sa.Numeric, nullable=True),
        belongs_to("meter", "meter_id"),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )
    create_tenant_table(
        "offering",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("product_id", sa.Uuid, nullable=False),
        sa.Column("rate_plan_id", sa.Uuid, nullable=False),
        belongs_to("product", "product_id"),
        belongs_to("rate_plan", "rate_plan_id"),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )
    create_tenant_table(
        "offering_entitlement",
        sa.Column("offering_id", sa.Uuid, nullable=False),
        sa.Column("entitlement_id", sa.Uuid, nullable=False),
        belongs_to("entitlement", "entitlement_id"),
        belongs_to("offering", "offering_id"),
        sa.UniqueConstraint("tenant_id", "offering_id", "entitlement_id"),
    )
    create_tenant_table(
        "discount",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("rate", sa.Numeric, nullable=True),
        sa.Column("amount", sa.Numeric, nullable=True),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.UniqueConstraint("tenant_id", "code"),
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
