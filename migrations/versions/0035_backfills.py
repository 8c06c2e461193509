"""Events that arrive together, and count once their backfill is closed."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import APP_ROLE, CHANGING, SYSTEM_ROLE, create_tenant_table, open_to_system

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

COUNTED = ("event_inbox", "segment")


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    create_tenant_table(
        "backfill",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("closed_at", moment, nullable=True),
        sa.Column("reverted_at", moment, nullable=True),
        sa.Column("revert_reason", sa.String, nullable=True),
        sa.Column("keys_freed_at", moment, nullable=True),
        sa.UniqueConstraint("tenant_id", "name"),
        grant=CHANGING,
    )
    # The right to update is that to lock: ingestion holds a backfill open while it adds to it.
    open_to_system("backfill", grant="SELECT")
    op.execute(f"GRANT UPDATE (keys_freed_at) ON backfill TO {SYSTEM_ROLE}")
    for table in COUNTED:
        column = sa.Column("backfilled", sa.Integer, server_default="0", nullable=False)
        op.add_column(table, column)
    op.create_index(
        "segment_by_backfills",
        "segment",
        ["tenant_id", "segment_id"],
        postgresql_where=sa.text("backfilled > 0"),
    )
    # What closes or reverts a backfill is an event, and counted among those that were received.
    op.execute(f"GRANT INSERT ON ingest_batch TO {APP_ROLE}")


def downgrade() -> None:
    op.execute(f"REVOKE INSERT ON ingest_batch FROM {APP_ROLE}")
    op.drop_index("segment_by_backfills", "segment")
    for table in COUNTED:
        op.drop_column(table, "backfilled")
    op.drop_table("backfill")
