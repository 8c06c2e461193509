"""The outbox of domain events."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import create_tenant_table

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "outbox",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("object_id", sa.Uuid, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("fanned_out_at", sa.DateTime(timezone=True), nullable=True),
        grant="SELECT, INSERT, UPDATE, DELETE",  # To mark it, and to forget it.
    )
    op.create_index("outbox_position", "outbox", ["tenant_id", "position"], unique=True)
    op.create_index(
        "outbox_waiting",
        "outbox",
        ["tenant_id", "position"],
        postgresql_where=sa.text("fanned_out_at IS NULL"),
    )
    op.create_index("outbox_by_time", "outbox", ["tenant_id", "created_at"])


def downgrade() -> None:
    op.drop_table("outbox")
