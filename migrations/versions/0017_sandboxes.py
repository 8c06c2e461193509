"""Sandboxes: which tenant one belongs to, and what that tenant knows of it."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import create_tenant_table

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tenant", sa.Column("live_tenant_id", sa.Uuid, nullable=True))
    create_tenant_table(
        "sandbox",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sandbox_tenant_id", sa.Uuid, nullable=False),
        sa.UniqueConstraint("tenant_id", "name"),
    )


def downgrade() -> None:
    op.drop_table("sandbox")
    op.drop_column("tenant", "live_tenant_id")
