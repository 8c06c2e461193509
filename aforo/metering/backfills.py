"""Backfills: events that arrive over a while, and begin or cease to count all at once.

That a backfill is closed or reverted is an event of the log itself, which is nobody's: so every
watermark says which backfills count, and the archive does too.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering import queries
from aforo.metering.aggregate import CORRECTIONS, WHOLE_LOG
from aforo.metering.ingest import KEY_LENGTH_MAX, REASON_LENGTH_MAX, wrong_text
from aforo.metering.models import (
    Backfill,
    BackfillState,
    EventInbox,
    EventKey,
    IngestBatch,
    Segment,
)
from aforo.metering.prepare import change_of_backfill
from aforo.metering.rounds import Batch
from aforo.metering.stored import packed
from aforo.metering.verdicts import Stage, rejected
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.storage.jobs import JobName
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id

LOOK_AGAIN = timedelta(seconds=2)
KEYS_AT_ONCE = 10_000


async def start(scope: Scope, *, name: str, reason: str) -> Backfill:
    """Begin a backfill. Raises: `Invalid`, or `Conflict` where there is one of that name."""
    _demand_text(name, KEY_LENGTH_MAX, field="name")
    _demand_text(reason, REASON_LENGTH_MAX, field="reason")
    if await _named(scope, name) is not None:
        raise Conflict(f"there is a backfill {name} already", code="BACKFILL_EXISTS", field="name")
    row = Backfill(name=name, reason=reason)
    scope.db.add(row)
    await scope.db.flush()
    return row


async def close(scope: Scope, backfill_id: UUID) -> Backfill:
    """Let the events of a backfill count; none is added to it any more.

    Raises: `NotFound`, or `Conflict` where it is not open.
    """
    row = await _locked(scope, backfill_id)
    if row.state is not BackfillState.OPEN:
        raise _settled(row)
    row.state, row.closed_at = BackfillState.CLOSED, scope.now
    await _write_down(scope, row, is_shown=True)
    return row


async def revert(scope: Scope, backfill_id: UUID, *, reason: str) -> Backfill:
    """Let the events of a backfill count no more, whether it is open or closed; for good.

    Their keys are free again once the log has it. Raises: `Invalid`, `NotFound`, or `Conflict`
    where it was reverted before.
    """
    _demand_text(reason, REASON_LENGTH_MAX, field="reason")
    row = await _locked(scope, backfill_id)
    if row.state is BackfillState.REVERTED:
        raise _settled(row)
    row.state, row.reverted_at = BackfillState.REVERTED, scope.now
    row.revert_reason = reason
    await _write_down(scope, row, is_shown=False)
    await scope.enqueue(JobName.FREE_KEYS, backfill_id=str(row.id))
    return row


async def open_backfill(scope: Scope, name: str) -> UUID:
    """The open backfill of a name. Raises: `NotFound`, or `Conflict` where it is not open."""
    row = await _named(scope, name)
    if row is None:
        raise NotFound(f"there is no backfill {name[:70]!r}", field="backfill")
    if row.state is not BackfillState.OPEN:
        raise _settled(row)
    return row.id


async def still_open(db: AsyncSession, batches: Sequence[Batch]) -> list[Batch]:
    """The batches, those without events whose backfill was closed meanwhile. The others hold theirs
    open until the transaction ends."""
    wanted = {(batch.tenant_id, batch.backfill_id) for batch in batches if batch.backfill_id}
    connection = await db.connection()
    found = await connection.exec_driver_sql(
        _HOLD_OPEN, ([tenant_id for tenant_id, _ in wanted], [one for _, one in wanted])
    )
    is_open = {row.id for row in found}
    return [
        batch if batch.backfill_id is None or batch.backfill_id in is_open else _closed(batch)
        for batch in batches
    ]


def listed(
    *, state: BackfillState | None = None, order: AgeOrder = AgeOrder.OLDEST_FIRST
) -> Listing[Backfill]:
    """The backfills, or those in a state."""
    return Listing(Backfill, equal(Backfill.state, state), order)


async def backfills_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Backfill]:
    return await rows_by_id(scope, Backfill, ids)


async def events_in(scope: Scope, backfill_ids: Collection[UUID]) -> dict[UUID, int]:
    """How many events of each backfill have reached the log; those without any are absent."""
    rows = await scope.events.query(
        f"SELECT backfill_id, count() AS events FROM {WHOLE_LOG} "
        "WHERE backfill_id IN {ids:Array(String)} AND type != '' GROUP BY backfill_id",
        watermark=await queries.watermark(scope),
        ids=[str(each) for each in backfill_ids],
    )
    return {UUID(row["backfill_id"]): row["events"] for row in rows}


async def free_keys(scope: Scope, backfill_id: str) -> None:
    """Give back the keys of a reverted backfill: a job, which comes again until the log says that
    it is reverted. An event that gets one of the keys is behind that, so the two never count at the
    same watermark."""
    watermark = await queries.watermark(scope)
    [reverted] = await scope.events.query(
        f"SELECT count() AS changes FROM {CORRECTIONS} "
        "WHERE backfill_id = {backfill:String} AND NOT is_shown",
        watermark=watermark,
        backfill=backfill_id,
    )
    if not reverted["changes"]:
        run_at = scope.now + LOOK_AGAIN
        await scope.enqueue(JobName.FREE_KEYS, run_at=run_at, backfill_id=backfill_id)
        return
    segments = await scope.db.scalars(
        sa.select(col(Segment.segment_id))
        .where(col(Segment.backfilled) > 0, col(Segment.segment_id) <= watermark)
        .order_by(col(Segment.segment_id))
    )
    for segment_id in segments:
        rows = await scope.events.query(
            f"SELECT lower(hex(key_hash)) AS key_hash, event_id FROM {WHOLE_LOG} "
            "WHERE segment_id = {segment:UInt64} AND backfill_id = {backfill:String}",
            watermark=watermark,
            segment=segment_id,
            backfill=backfill_id,
        )
        for at in range(0, len(rows), KEYS_AT_ONCE):
            some = rows[at : at + KEYS_AT_ONCE]
            await scope.db.execute(
                sa.delete(EventKey).where(
                    col(EventKey.key_hash).in_([bytes.fromhex(row["key_hash"]) for row in some]),
                    col(EventKey.event_id).in_([row["event_id"] for row in some]),
                )
            )
    row = await _locked(scope, UUID(backfill_id))
    row.keys_freed_at = scope.now


def _closed(batch: Batch) -> Batch:
    refused = [_CLOSED.at(one.item.index, one.item.event.key) for one in batch.prepared]
    return batch._replace(prepared=[], verdicts=[*batch.verdicts, *refused])


async def _write_down(scope: Scope, row: Backfill, *, is_shown: bool) -> None:
    """Put the event into the inbox that says so, and count it."""
    await scope.db.flush()
    event = change_of_backfill(new_id(), row.id, scope.now, is_shown=is_shown)
    await scope.db.execute(sa.insert(EventInbox), [packed([event])._asdict()])
    scope.db.add(
        IngestBatch(
            created_at=scope.now,
            received=1,
            accepted=1,
            duplicates=0,
            conflicts=0,
            rejected=0,
            quarantined=0,
        )
    )
    await scope.db.flush()


async def _named(scope: Scope, name: str) -> Backfill | None:
    found: Backfill | None = await scope.db.scalar(
        sa.select(Backfill).where(col(Backfill.name) == name)
    )
    return found


async def _locked(scope: Scope, backfill_id: UUID) -> Backfill:
    row = await scope.db.scalar(
        sa.select(Backfill)
        .where(col(Backfill.id) == backfill_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound("there is no backfill with this id", field="backfillId")
    return row


def _settled(row: Backfill) -> Conflict:
    return Conflict(
        f"the backfill {row.name} was {row.state.lower()} already; start another one",
        code="BACKFILL_SETTLED",
        field="backfillId",
    )


def _demand_text(value: str, length_max: int, *, field: str) -> None:
    if wrong := wrong_text(value, length_max):
        raise Invalid(f"{field} {wrong}", field=field)


_CLOSED = rejected(
    Stage.INGESTION, "BACKFILL_SETTLED", "the backfill was closed or reverted meanwhile"
)
_HOLD_OPEN = """
SELECT backfill.id
FROM backfill JOIN unnest($1::uuid[], $2::uuid[]) AS asked (tenant_id, id) USING (tenant_id, id)
WHERE state = 'OPEN' ORDER BY tenant_id, id FOR SHARE OF backfill
"""
