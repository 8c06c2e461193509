"""What came in is found by its hour."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ingest_batch_by_time", "ingest_batch", ["tenant_id", "created_at"])


def downgrade() -> None:
    op.drop_index("ingest_batch_by_time", "ingest_batch")
