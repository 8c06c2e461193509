"""Data keys: under one per tenant its secrets are stored."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import NOW, tenant_column, wall

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_key",
        tenant_column(),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text(NOW), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id"),
    )
    wall("data_key")


def downgrade() -> None:
    op.drop_table("data_key")
