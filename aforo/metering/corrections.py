"""Events that take the place of others, or void them: kept with what they supersede, for readers.

Which one supersedes which was decided when it was taken. Here ClickHouse is told, before the
segment that brings it is confirmed; `events_of` leaves out what is superseded as of a watermark.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.metering.aggregate import CORRECTIONS, WHOLE_LOG
from aforo.metering.ingest import KEY_LENGTH_MAX
from aforo.metering.models import EventKey
from aforo.metering.queries import watermark
from aforo.metering.stored import hash_of_key
from aforo.storage.clickhouse import EVERY_PAYER, Events
from aforo.storage.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The event that supersedes another one."""

    event_id: UUID
    idempotency_key: str
    is_void: bool
    """Whether it only voids that one; else it takes its place."""
    reason: str
    """Why, for people; empty where nobody said so."""
    received_at: datetime


async def correct(events: Events, tenant_id: UUID, segment_id: int) -> None:
    """Write down what the events of a projected segment supersede. What stands there already is
    replaced by the same."""
    await events.command(
        f"INSERT INTO event_correction ({', '.join(_COLUMNS)}) {_OF_SEGMENT}",
        _of(tenant_id, segment_id),
    )


async def forget(events: Events, tenant_id: UUID, segment_ids: Collection[int]) -> None:
    """Delete what some segments superseded."""
    await events.command(
        "ALTER TABLE event_correction DELETE WHERE tenant_id = {tenant:UUID} "
        "AND has({segments:Array(UInt64)}, segment_id) SETTINGS mutations_sync = 1",
        {"tenant": str(tenant_id), "segments": list(segment_ids)},
    )


async def in_segments(
    events: Events, tenant_id: UUID, first: int, last: int
) -> dict[int, tuple[int, int]]:
    """How much some neighbouring segments supersede as it is written down, and its fingerprint, by
    segment; those that supersede nothing are absent."""
    rows = await events.query(
        f"SELECT segment_id, {_FINGERPRINT} FROM {CORRECTIONS} "
        "WHERE segment_id >= {first:UInt64} GROUP BY segment_id",
        {**_of(tenant_id, last), "payer": EVERY_PAYER, "watermark": last, "first": first},
    )
    return {row["segment_id"]: (row["corrections"], row["content"]) for row in rows}


async def by_the_log(events: Events, tenant_id: UUID, segment_id: int) -> tuple[int, int]:
    """The same of one segment as the log has it."""
    [row] = await events.query(
        f"SELECT {_FINGERPRINT} FROM ({_OF_SEGMENT})", _of(tenant_id, segment_id)
    )
    return row["corrections"], row["content"]


async def corrected_customers(events: Events, tenant_id: UUID, segment_id: int) -> frozenset[UUID]:
    """Whose events a segment supersedes, or lets begin or cease to count with their backfill."""
    rows = await events.query(
        f"SELECT DISTINCT customer_id FROM {CORRECTIONS} "
        "WHERE segment_id = {segment:UInt64} AND backfill_id = '' UNION DISTINCT "
        f"SELECT DISTINCT customer_id FROM {WHOLE_LOG} WHERE type != '' AND backfill_id IN ("
        f"SELECT backfill_id FROM {CORRECTIONS} "
        "WHERE segment_id = {segment:UInt64} AND backfill_id != '')",
        {**_of(tenant_id, segment_id), "payer": EVERY_PAYER, "watermark": segment_id},
    )
    return frozenset(row["customer_id"] for row in rows)


async def superseding(scope: Scope, event_ids: Collection[UUID]) -> dict[UUID, Correction]:
    """What supersedes some events of the log by now, by their ids; those that count are absent."""
    rows = await scope.events.query(
        "SELECT superseded_id, event_id, idempotency_key, is_void, reason, received_at "
        f"FROM {CORRECTIONS} WHERE superseded_id IN {{ids:Array(UUID)}}",
        watermark=await watermark(scope),
        ids=[str(each) for each in event_ids],
    )
    return {row.pop("superseded_id"): Correction(**row) for row in rows}


async def superseded(scope: Scope, keys: Sequence[str]) -> dict[str, tuple[UUID, UUID]]:
    """The ids of the superseded events among those with these keys, and of what supersedes each,
    by key; what supersedes one may be quarantined."""
    by_hash = {hash_of_key(key): key for key in keys}
    rows = await scope.db.execute(
        sa.select(col(EventKey.key_hash), col(EventKey.event_id), col(EventKey.superseded_by))
        .where(col(EventKey.key_hash).in_(by_hash), col(EventKey.superseded_by).is_not(None))
        .order_by(col(EventKey.key_hash))
    )
    return {by_hash[key_hash]: (event_id, by) for key_hash, event_id, by in rows if by}


def void_key(key: str) -> str:
    """The key under which an event is voided by nobody else than who names it by its key."""
    name = f"void {key}"
    return name if len(name) <= KEY_LENGTH_MAX else f"void sha256:{hash_of_key(key).hex()}"


def _of(tenant_id: UUID, segment_id: int) -> dict[str, Any]:
    return {"tenant": str(tenant_id), "segment": segment_id}


_COLUMNS = (
    "tenant_id",
    "segment_id",
    "position",
    "event_id",
    "idempotency_key",
    "is_void",
    "reason",
    "received_at",
    "superseded_id",
    "superseded_segment",
    "superseded_position",
    "customer_id",
    "type",
    "occurred_at",
    "backfill_id",
    "is_shown",
)
# A key is given to another event once it is forgotten, or free again: the last one is meant.
_OF_SEGMENT = """
    SELECT
        correcting.tenant_id AS tenant_id, correcting.segment_id AS segment_id,
        correcting.position AS position, correcting.event_id AS event_id,
        correcting.idempotency_key AS idempotency_key, correcting.type = '' AS is_void,
        correcting.reason AS reason, correcting.received_at AS received_at,
        place.1 AS superseded_id, place.2 AS superseded_segment, place.3 AS superseded_position,
        place.4 AS customer_id, place.5 AS type, place.6 AS occurred_at,
        '' AS backfill_id, false AS is_shown
    FROM (
        SELECT *, SHA256(supersedes) AS superseded
        FROM log_of(tenant = {tenant:UUID}, payer = toUUID('EVERYONE'),
            watermark = {segment:UInt64})
        WHERE segment_id = {segment:UInt64} AND supersedes != ''
    ) AS correcting
    INNER JOIN (
        SELECT key_hash,
            argMax((event_id, segment_id, position, customer_id, type, occurred_at), segment_id)
                AS place
        FROM log_of(tenant = {tenant:UUID}, payer = toUUID('EVERYONE'),
            watermark = {segment:UInt64})
        WHERE key_hash IN (
            SELECT SHA256(supersedes)
            FROM log_of(tenant = {tenant:UUID}, payer = toUUID('EVERYONE'),
                watermark = {segment:UInt64})
            WHERE segment_id = {segment:UInt64} AND supersedes != ''
        )
        GROUP BY key_hash
    ) AS target ON target.key_hash = correcting.superseded
    UNION ALL
    SELECT
        tenant_id, segment_id, position, event_id, idempotency_key, false, reason, received_at,
        toUUID('EVERYONE'), toUInt64(0), toUInt32(0), customer_id, type, occurred_at,
        backfill_id, property_texts['shown'] = 'true'
    FROM log_of(tenant = {tenant:UUID}, payer = toUUID('EVERYONE'), watermark = {segment:UInt64})
    WHERE segment_id = {segment:UInt64} AND type = '' AND supersedes = ''
    SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
""".replace("EVERYONE", EVERY_PAYER)
_FINGERPRINT = (
    "count() AS corrections, groupBitXor(cityHash64(" + ", ".join(_COLUMNS) + ")) AS content"
)
