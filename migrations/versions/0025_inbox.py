"""The inbox keeps the events of a transaction in one row, compressed, and the system role writes
it; what waits there is taken along."""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from migrations.tenancy import APP_ROLE, SYSTEM_ROLE, open_to_system, tenant_column, wall

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

PACK_EVENTS = 1_000
GENESIS = bytes(32)
CHECKED = {
    int(zstd.CompressionParameter.compression_level): 1,
    int(zstd.CompressionParameter.checksum_flag): 1,
}
WRITTEN_BY_SYSTEM = ("ingest_batch", "event_conflict", "quarantined_event")


def upgrade() -> None:
    _set_aside()
    op.create_table(
        "event_inbox",
        tenant_column(),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        _xid(),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content_bytes", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("segment_id", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "seq"),
    )
    _pack()
    op.drop_table("event_inbox_before")
    op.create_index("event_inbox_by_segment", "event_inbox", ["tenant_id", "segment_id", "seq"])
    _index_unsealed()
    wall("event_inbox", grant="SELECT")
    open_to_system("event_inbox", grant="SELECT, INSERT, UPDATE, DELETE")
    op.execute(f"REVOKE INSERT ON event_key FROM {APP_ROLE}")
    op.execute(f"GRANT INSERT ON event_key TO {SYSTEM_ROLE}")
    for name in WRITTEN_BY_SYSTEM:
        op.execute(f"REVOKE INSERT ON {name} FROM {APP_ROLE}")
        open_to_system(name, grant="INSERT")


def downgrade() -> None:
    _set_aside()
    op.create_table(
        "event_inbox",
        tenant_column(),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        _xid(),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("segment_id", sa.BigInteger, nullable=True),
        sa.Column("position", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "event_id"),
    )
    _unpack()
    op.drop_table("event_inbox_before")
    op.create_index(
        "event_inbox_by_segment", "event_inbox", ["tenant_id", "segment_id", "position"]
    )
    _index_unsealed()
    wall("event_inbox")
    open_to_system("event_inbox", grant="SELECT, UPDATE, DELETE")
    op.execute(f"REVOKE INSERT ON event_key FROM {SYSTEM_ROLE}")
    op.execute(f"GRANT INSERT ON event_key TO {APP_ROLE}")
    for name in WRITTEN_BY_SYSTEM:
        op.execute(f"GRANT INSERT ON {name} TO {APP_ROLE}")
        op.execute(f"REVOKE INSERT ON {name} FROM {SYSTEM_ROLE}")
        op.execute(f"DROP POLICY across_tenants ON {name}")


def _xid() -> sa.Column[Any]:
    default = sa.text("pg_current_xact_id()::text::bigint")
    return sa.Column("xid", sa.BigInteger, server_default=default, nullable=False)


def _index_unsealed() -> None:
    unsealed = sa.text("segment_id IS NULL")
    op.create_index("event_inbox_unsealed", "event_inbox", ["seq"], postgresql_where=unsealed)


def _set_aside() -> None:
    op.drop_index("event_inbox_by_segment", "event_inbox")
    op.drop_index("event_inbox_unsealed", "event_inbox")
    op.execute("ALTER TABLE event_inbox NO FORCE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE event_inbox RENAME TO event_inbox_before")
    op.execute("ALTER INDEX event_inbox_pkey RENAME TO event_inbox_before_pkey")


def _pack() -> None:
    rows = _rows(
        "SELECT tenant_id, segment_id, body FROM event_inbox_before "
        "ORDER BY tenant_id, segment_id NULLS LAST, position, seq"
    )
    contents: dict[tuple[UUID, int], bytes] = {}
    for (tenant_id, segment_id), several in groupby(rows, key=lambda row: (row[0], row[1])):
        for lines in _chunks([row[2] for row in several]):
            content = "".join(f"{line}\n" for line in lines).encode()
            body = zstd.compress(content, options=CHECKED)
            _insert(
                tenant_id=tenant_id,
                segment_id=segment_id,
                events=len(lines),
                received_at=datetime.fromisoformat(json.loads(lines[0])["receivedAt"]),
                content_bytes=len(content),
                body=body,
            )
            if segment_id is not None:
                key = (tenant_id, segment_id)
                contents[key] = contents.get(key, b"") + body
    _chain(contents)


def _unpack() -> None:
    rows = _rows(
        "SELECT tenant_id, segment_id, body FROM event_inbox_before "
        "ORDER BY tenant_id, segment_id NULLS LAST, seq"
    )
    contents: dict[tuple[UUID, int], bytes] = {}
    for (tenant_id, segment_id), several in groupby(rows, key=lambda row: (row[0], row[1])):
        content = zstd.decompress(b"".join(row[2] for row in several))
        for position, line in enumerate(content.decode().splitlines()):
            event = json.loads(line)
            _insert(
                tenant_id=tenant_id,
                event_id=UUID(event["eventId"]),
                key_hash=sha256(event["idempotencyKey"].encode()).digest(),
                body=line,
                segment_id=segment_id,
                position=None if segment_id is None else position,
            )
        if segment_id is not None:
            contents[tenant_id, segment_id] = content
    _chain(contents)


def _chain(contents: Mapping[tuple[UUID, int], bytes]) -> None:
    """Link the segments that are not confirmed yet anew: they consist of other bytes now."""
    op.execute("ALTER TABLE segment NO FORCE ROW LEVEL SECURITY")
    connection = op.get_bind()
    for (tenant_id, segment_id), content in sorted(contents.items()):
        previous = connection.scalar(
            sa.text(
                "SELECT sha256 FROM segment WHERE tenant_id = :tenant AND segment_id < :segment "
                "ORDER BY segment_id DESC LIMIT 1"
            ),
            {"tenant": tenant_id, "segment": segment_id},
        )
        connection.execute(
            sa.text(
                "UPDATE segment SET sha256 = :hash, previous_sha256 = :previous "
                "WHERE tenant_id = :tenant AND segment_id = :segment"
            ),
            {
                "tenant": tenant_id,
                "segment": segment_id,
                "hash": sha256(content).digest(),
                "previous": previous or GENESIS,
            },
        )
    op.execute("ALTER TABLE segment FORCE ROW LEVEL SECURITY")


def _rows(statement: str) -> Iterator[Any]:
    return iter(op.get_bind().execute(sa.text(statement)).all())


def _chunks(lines: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(lines), PACK_EVENTS):
        yield lines[start : start + PACK_EVENTS]


def _insert(**values: Any) -> None:
    columns = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    statement = sa.text(f"INSERT INTO event_inbox ({columns}) VALUES ({places})")
    op.get_bind().execute(statement, values)
