"""An event supersedes another one: written down with the key of that one, and counted."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import APP_ROLE, SYSTEM_ROLE

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

COUNTED = ("event_inbox", "segment")


def upgrade() -> None:
    op.add_column("event_key", sa.Column("superseded_by", sa.Uuid, nullable=True))
    op.execute(f"GRANT UPDATE (superseded_by) ON event_key TO {APP_ROLE}, {SYSTEM_ROLE}")
    for table in COUNTED:
        column = sa.Column("corrections", sa.Integer, server_default="0", nullable=False)
        op.add_column(table, column)
    op.create_index(
        "segment_by_corrections",
        "segment",
        ["tenant_id", "segment_id"],
        postgresql_where=sa.text("corrections > 0"),
    )


def downgrade() -> None:
    op.drop_index("segment_by_corrections", "segment")
    for table in COUNTED:
        op.drop_column(table, "corrections")
    op.execute(f"REVOKE UPDATE (superseded_by) ON event_key FROM {APP_ROLE}, {SYSTEM_ROLE}")
    op.drop_column("event_key", "superseded_by")
