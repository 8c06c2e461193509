"""Answers that are kept under the keys of their callers."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import CHANGING, open_to_system, tenant_column, wall

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotent_answer",
        tenant_column(),
        sa.Column("caller_id", sa.Uuid, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("body", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "caller_id", "key_hash"),
    )
    op.create_index("idempotent_answer_age", "idempotent_answer", ["created_at"])
    wall("idempotent_answer", grant=CHANGING)
    open_to_system("idempotent_answer", grant="SELECT, DELETE")


def downgrade() -> None:
    op.drop_table("idempotent_answer")
