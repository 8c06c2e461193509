"""Entitlements: the terms of quotas, and customers that are throttled or blocked."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import belongs_to, create_tenant_table

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_TERMS = (
    sa.Column("policy", sa.String(32), nullable=True),
    sa.Column("rate_per_second", sa.Numeric, nullable=True),
    sa.Column("reset", sa.String(32), nullable=True),
    sa.Column("reset_unit", sa.String(32), nullable=True),
    sa.Column("reset_seconds", sa.Integer, nullable=True),
    sa.Column("rollover_periods", sa.Integer, nullable=True),
    sa.Column("rollover_cap", sa.Numeric, nullable=True),
)


def upgrade() -> None:
    op.add_column(
        "entitlement",
        sa.Column("when_unavailable", sa.String(32), nullable=False, server_default="OPEN"),
    )
    op.alter_column("entitlement", "when_unavailable", server_default=None)
    for column in _TERMS:
        op.add_column("entitlement", column)
    # The owner is walled as well, and sees no tenant's rows until he is let through.
    op.execute("ALTER TABLE entitlement NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE entitlement SET policy = 'OVERAGE', reset = 'BILLING_PERIOD' WHERE kind = 'QUOTA'"
    )
    op.execute("ALTER TABLE entitlement FORCE ROW LEVEL SECURITY")
    create_tenant_table(
        "restraint",
        sa.Column("customer_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("percent", sa.Integer, nullable=True),
        sa.Column("rates", JSONB, nullable=False),
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "kind"),
        grant="SELECT, INSERT, UPDATE, DELETE",
    )


def downgrade() -> None:
    op.drop_table("restraint")
    for column in reversed(_TERMS):
        op.drop_column("entitlement", column.name)
    op.drop_column("entitlement", "when_unavailable")
