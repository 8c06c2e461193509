"""Quarantined events can be released, discarded and corrected."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import APP_ROLE

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

TABLE = "quarantined_event"
INDEXED = ("state", "event_type", "customer", "received_at")


def upgrade() -> None:
    op.add_column(TABLE, sa.Column("state", sa.String(32), nullable=True))
    op.add_column(TABLE, sa.Column("event_type", sa.String, nullable=True))
    op.add_column(TABLE, sa.Column("customer", sa.String, nullable=True))
    op.add_column(TABLE, sa.Column("corrected", JSONB(none_as_null=True), nullable=True))
    op.add_column(TABLE, sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(TABLE, sa.Column("settled_by", sa.String, nullable=True))
    op.execute(f"ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY")
    op.execute(
        f"UPDATE {TABLE} SET state = 'QUARANTINED', event_type = body ->> 'type', "
        "customer = body ->> 'customer'"
    )
    op.execute(f"ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY")
    op.alter_column(TABLE, "state", nullable=False)
    op.alter_column(TABLE, "event_type", nullable=False)
    for column in INDEXED:
        op.create_index(f"{TABLE}_by_{column}", TABLE, ["tenant_id", column, "id"])
    # Together with its event the key changes its state, or goes; nothing else of it ever changes.
    op.execute(f"GRANT UPDATE ON {TABLE} TO {APP_ROLE}")
    op.execute(f"GRANT UPDATE (state), DELETE ON event_key TO {APP_ROLE}")
    op.execute(f"GRANT INSERT ON event_inbox TO {APP_ROLE}")


def downgrade() -> None:
    op.execute(f"REVOKE INSERT ON event_inbox FROM {APP_ROLE}")
    op.execute(f"REVOKE UPDATE (state), DELETE ON event_key FROM {APP_ROLE}")
    op.execute(f"REVOKE UPDATE ON {TABLE} FROM {APP_ROLE}")
    for column in INDEXED:
        op.drop_index(f"{TABLE}_by_{column}", TABLE)
    for column in ("settled_by", "settled_at", "corrected", "customer", "event_type", "state"):
        op.drop_column(TABLE, column)
