"""Keys, inbox, segments, quarantine."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.tenancy import (
    CHANGING,
    NOW,
    create_tenant_table,
    open_to_system,
    tenant_column,
    wall,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY_PARTITIONS = 16
TABLES = (
    "event_key",
    "event_inbox",
    "segment",
    "ingest_batch",
    "event_conflict",
    "quarantined_event",
)


def upgrade() -> None:
    op.create_table(
        "event_key",
        tenant_column(),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("payload_hash", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key_hash"),
        postgresql_partition_by="HASH (tenant_id, key_hash)",
    )
    wall("event_key")
    open_to_system("event_key", grant="SELECT, DELETE")
    for part in range(KEY_PARTITIONS):
        op.execute(
            f"CREATE TABLE event_key_{part:02} PARTITION OF event_key "
            f"FOR VALUES WITH (MODULUS {KEY_PARTITIONS}, REMAINDER {part})"
        )
        op.execute(f"ALTER TABLE event_key_{part:02} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE event_key_{part:02} FORCE ROW LEVEL SECURITY")
    op.create_table(
        "event_inbox",
        tenant_column(),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column(
            "xid",
            sa.BigInteger,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("segment_id", sa.BigInteger, nullable=True),
        sa.Column("position", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "event_id"),
    )
    op.create_index(
        "event_inbox_by_segment", "event_inbox", ["tenant_id", "segment_id", "position"]
    )
    op.create_index(
        "event_inbox_unsealed",
        "event_inbox",
        ["seq"],
        postgresql_where=sa.text("segment_id IS NULL"),
    )
    wall("event_inbox")
    open_to_system("event_inbox", grant="SELECT, UPDATE, DELETE")
    op.create_table(
        "segment",
        tenant_column(),
        sa.Column("segment_id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("previous_sha256", sa.LargeBinary, nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "segment_id"),
    )
    op.create_index(
        "segment_unconfirmed",
        "segment",
        ["segment_id"],
        postgresql_where=sa.text("state = 'SEALED'"),
    )
    wall("segment", grant="SELECT")
    open_to_system("segment", grant=CHANGING)
    create_tenant_table(
        "ingest_batch",
        sa.Column("received", sa.Integer, nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column("conflicts", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("quarantined", sa.Integer, nullable=False),
    )
    create_tenant_table(
        "event_conflict",
        sa.Column("idempotency_key", sa.String, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("properties", sa.String, nullable=False),
    )
    create_tenant_table(
        "quarantined_event",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text(NOW), nullable=False
        ),
    )
    op.create_index("quarantined_event_by_code", "quarantined_event", ["tenant_id", "code"])


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
