"""The settings of stages have versions, and quarantined events a trace."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import create_tenant_table

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "stage_version",
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("settings", JSONB, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("changed_by", sa.String, nullable=False),
        sa.UniqueConstraint("tenant_id", "stage", "version"),
    )
    op.add_column(
        "quarantined_event", sa.Column("trace", sa.String, server_default="", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("quarantined_event", "trace")
    op.drop_table("stage_version")
