"""The audit log, which nobody but the sealer changes, and he only to give an entry its place."""

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import (
    APP_ROLE,
    NOW,
    SYSTEM_ROLE,
    TENANT,
    create_tenant_table,
    open_to_system,
    tenant_column,
    wall,
)

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        "audit_entry",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column(
            "xid",
            sa.BigInteger,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("reason", sa.String, nullable=True),
        sa.Column("actor_kind", sa.String(32), nullable=False),
        sa.Column("actor_id", sa.Uuid, nullable=True),
        sa.Column("actor_label", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=True),
        sa.Column("address", sa.String, nullable=True),
        sa.Column("user_agent", sa.String, nullable=True),
        sa.Column("changes", sa.String, nullable=False),
        sa.Column("omitted", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=True),
        sa.Column("previous_hash", sa.LargeBinary, nullable=True),
        sa.Column("hash", sa.LargeBinary, nullable=True),
    )
    # The application writes entries, and no place in the chain.
    op.execute("DROP POLICY tenant ON audit_entry")
    op.execute(
        f"CREATE POLICY tenant ON audit_entry TO {APP_ROLE} USING (tenant_id = {TENANT}) "
        f"WITH CHECK (tenant_id = {TENANT} AND position IS NULL AND hash IS NULL)"
    )
    open_to_system("audit_entry", grant="SELECT")
    op.execute(f"GRANT UPDATE (position, previous_hash, hash) ON audit_entry TO {SYSTEM_ROLE}")
    op.create_index("audit_entry_by_time", "audit_entry", ["tenant_id", "created_at", "id"])
    op.create_index(
        "audit_entry_by_actor", "audit_entry", ["tenant_id", "actor_id", "created_at", "id"]
    )
    op.create_index(
        "audit_entry_by_action", "audit_entry", ["tenant_id", "action", "created_at", "id"]
    )
    op.create_index("audit_entry_position", "audit_entry", ["tenant_id", "position"], unique=True)
    op.create_index(
        "audit_entry_unsealed",
        "audit_entry",
        ["seq"],
        postgresql_where=sa.text("position IS NULL"),
    )
    op.create_table(
        "audit_object",
        tenant_column(),
        sa.Column("object_id", sa.Uuid, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text(NOW), nullable=False
        ),
        sa.Column("entry_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "object_id", "created_at", "entry_id"),
    )
    wall("audit_object")


def downgrade() -> None:
    op.drop_table("audit_object")
    op.drop_table("audit_entry")
