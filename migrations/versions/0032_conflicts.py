"""Conflicts are found by the event that stands."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("event_conflict_by_event", "event_conflict", ["tenant_id", "event_id"])


def downgrade() -> None:
    op.drop_index("event_conflict_by_event", "event_conflict")
