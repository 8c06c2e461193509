"""The chain of the audit log: each sealed entry carries the hash of the one before it.

An entry is sealed once every older transaction has ended, one sealer at a time, so the order is
final. The head of each chain is then published outside of the database: whoever can write to the
database could make a new chain, but not one that ends where the published heads say.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.storage.audit import AuditEntry
from aforo.storage.failpoints import reached
from aforo.storage.scope import Runtime

GENESIS = bytes(32)
SEALED_AT_ONCE = 5_000
SEAL_LOCK = 4_613_004
PAUSE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a tenant's chain ended at some time."""

    tenant_id: UUID
    position: int
    hash: bytes


def hash_of(entry: AuditEntry, *, position: int, previous: bytes) -> bytes:
    """SHA-256 of the hash before, and of the entry in one fixed form: JSON of its values in this
    order, in UTF-8, without spaces."""
    values = [
        str(entry.tenant_id),
        position,
        str(entry.id),
        entry.created_at.astimezone(UTC).isoformat(),
        entry.action,
        entry.outcome.name,
        entry.reason,
        entry.actor_kind.name,
        None if entry.actor_id is None else str(entry.actor_id),
        entry.actor_label,
        entry.request_id,
        entry.address,
        entry.user_agent,
        entry.changes,
        entry.omitted,
    ]
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return sha256(previous + text.encode()).digest()


async def run(runtime: Runtime) -> None:
    """Publish every head, and seal from then on."""
    await publish_all(runtime)
    while True:
        await seal(runtime)
        await asyncio.sleep(PAUSE_SECONDS)


async def seal(runtime: Runtime) -> list[Head]:
    """Chain the entries that are waiting, and publish the new heads; empty where nothing waits or
    another process seals just now."""
    async with runtime.system("seal the audit log") as db:
        is_alone = await db.scalar(sa.text(f"SELECT pg_try_advisory_xact_lock({SEAL_LOCK})"))
        heads = await _chain(db) if is_alone else []
        reached("audit.chained")
    reached("audit.committed")
    publish(runtime.settings.data_dir, heads, runtime.clock.now())
    return heads


async def publish_all(runtime: Runtime) -> None:
    """Publish the heads that a process sealed which died before it could publish them."""
    known = {head.tenant_id: head for head in published(runtime.settings.data_dir)}
    async with runtime.system("read the heads of the audit log") as db:
        rows = await db.scalars(
            sa.select(AuditEntry)
            .ext(distinct_on(col(AuditEntry.tenant_id)))
            .where(col(AuditEntry.position).is_not(None))
            .order_by(col(AuditEntry.tenant_id), col(AuditEntry.position).desc())
        )
        heads = [_head(row) for row in rows]
    late = [head for head in heads if known.get(head.tenant_id) != head]
    publish(runtime.settings.data_dir, late, runtime.clock.now())


def publish(data_dir: Path, heads: list[Head], now: datetime) -> None:
    """Append heads to the month's file, durably, and to the log."""
    if not heads:
        return
    folder = data_dir / "audit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {
                "tenant": str(head.tenant_id),
                "position": head.position,
                "hash": head.hash.hex(),
                "at": now.isoformat(),
            }
        )
        for head in heads
    ]
    path = folder / f"heads-{now:%Y-%m}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for head in heads:
        log.info(
            "audit log sealed",
            tenant_id=str(head.tenant_id),
            position=head.position,
            hash=head.hash.hex(),
        )


def published(data_dir: Path) -> Iterator[Head]:
    """Every head that was published, the oldest first; a line that a crash cut off is no head."""
    for path in sorted((data_dir / "audit").glob("heads-*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    said = json.loads(line)
                    yield Head(UUID(said["tenant"]), said["position"], bytes.fromhex(said["hash"]))


async def _chain(db: AsyncSession) -> list[Head]:
    waiting = await db.scalars(
        sa.select(AuditEntry)
        .where(col(AuditEntry.position).is_(None), _IS_FINAL)
        .order_by(col(AuditEntry.seq))
        .limit(SEALED_AT_ONCE)
    )
    by_tenant: dict[UUID, list[AuditEntry]] = defaultdict(list)
    for entry in waiting:
        by_tenant[entry.tenant_id].append(entry)
    return [await _extend(db, tenant_id, entries) for tenant_id, entries in by_tenant.items()]


async def _extend(db: AsyncSession, tenant_id: UUID, entries: list[AuditEntry]) -> Head:
    last = await db.scalar(
        sa.select(AuditEntry)
        .where(col(AuditEntry.tenant_id) == tenant_id, col(AuditEntry.position).is_not(None))
        .order_by(col(AuditEntry.position).desc())
        .limit(1)
    )
    head = Head(tenant_id, 0, GENESIS) if last is None else _head(last)
    places: list[Mapping[str, Any]] = []
    for entry in entries:
        position, previous = head.position + 1, head.hash
        head = Head(tenant_id, position, hash_of(entry, position=position, previous=previous))
        places.append(
            {
                "its_id": entry.id,
                "its_position": position,
                "its_previous": previous,
                "its_hash": head.hash,
            }
        )
    connection = await db.connection()
    await connection.execute(_PLACE, [{"its_tenant": tenant_id, **place} for place in places])
    return head


def _head(row: AuditEntry) -> Head:
    assert row.position is not None, "the entry is sealed"
    assert row.hash is not None, "the entry is sealed"
    return Head(row.tenant_id, row.position, row.hash)


# An id past the snapshot is of a server from which this database was restored.
_IS_FINAL = sa.text(
    "(xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint "
    "OR xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
)
_ENTRIES: sa.Table = AuditEntry.__table__  # type: ignore[attr-defined]
_PLACE = (
    sa.update(_ENTRIES)
    .where(
        _ENTRIES.c.tenant_id == sa.bindparam("its_tenant"),
        _ENTRIES.c.id == sa.bindparam("its_id"),
    )
    .values(
        position=sa.bindparam("its_position"),
        previous_hash=sa.bindparam("its_previous"),
        hash=sa.bindparam("its_hash"),
    )
)
