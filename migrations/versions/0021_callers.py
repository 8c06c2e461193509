"""Policies of callers, and persisted documents."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import CHANGING, REPLACED, create_tenant_table

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "api_policy",
        sa.Column("points_per_second", sa.Integer, nullable=True),
        sa.Column("events_per_second", sa.Integer, nullable=True),
        sa.Column("only_persisted", sa.Boolean, nullable=True),
        grant=CHANGING,
    )
    create_tenant_table(
        "persisted_document",
        sa.Column("document_id", sa.String(128), nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.UniqueConstraint("tenant_id", "document_id"),
        grant=REPLACED,
    )


def downgrade() -> None:
    op.drop_table("persisted_document")
    op.drop_table("api_policy")
