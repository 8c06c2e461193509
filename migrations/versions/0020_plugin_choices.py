"""What a tenant chose of the plugins: its payment gateway, and its notifiers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import create_tenant_table

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "payment_gateway_settings",
        sa.Column("gateway", sa.String, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
    )
    create_tenant_table(
        "notifier_settings",
        sa.Column("notifier", sa.String, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
    )
    op.create_index(
        "notifier_settings_by_notifier", "notifier_settings", ["tenant_id", "notifier", "id"]
    )


def downgrade() -> None:
    op.drop_table("notifier_settings")
    op.drop_table("payment_gateway_settings")
