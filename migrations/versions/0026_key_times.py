"""A key is forgotten by when it was received; when its event happened is with the event."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("event_key", "occurred_at")


def downgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("event_key", sa.Column("occurred_at", moment, nullable=True))
    op.execute("ALTER TABLE event_key NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE event_key SET occurred_at = received_at")
    op.execute("ALTER TABLE event_key FORCE ROW LEVEL SECURITY")
    op.alter_column("event_key", "occurred_at", nullable=False)
