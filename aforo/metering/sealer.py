"""The sealer: from the inbox to a confirmed segment in ClickHouse, one step after the other.

Every step can be cut off and done again. A sealed segment never changes; it is confirmed, and
its inbox rows go, only after ClickHouse has given back the same events that were sealed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering import archive, corrections
from aforo.metering.aggregate import NEWEST_ALONE, WHOLE_LOG
from aforo.metering.models import EventInbox, Segment, SegmentState
from aforo.metering.projection import INSERT_EVENTS, repacked, xor_of
from aforo.metering.stored import NOBODY, StoredEvent, hash_of_key, lines_of, unpacked
from aforo.sdk.ids import TenantId
from aforo.storage.clickhouse import EVERY_PAYER
from aforo.storage.failpoints import reached
from aforo.storage.faults import engine_faults
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

SEGMENT_EVENTS_MAX = 50_000
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""Of events that are unpacked: what is in memory while a segment is confirmed."""
SEAL_LOCK = 4_613_003
LIVE_EVENTS_MAX = 500
"""Events of one segment that are shown live; the count of all of them is always told."""
GENESIS = bytes(32)

log = structlog.get_logger()


class _Head(msgspec.Struct, rename="camel"):
    """What the sealer itself has to know of an event."""

    idempotency_key: str
    customer_id: UUID
    texts: msgspec.Raw = msgspec.Raw()


_heads = msgspec.json.Decoder(_Head)


class SegmentMismatchError(Exception):
    """ClickHouse gave back other events than were sealed: the segment stays unconfirmed."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A segment that has become part of the log."""

    tenant_id: TenantId
    segment_id: int
    previous_id: int
    """The tenant's segment before it; 0 for the first."""
    count: int
    """Of its events."""
    customer_ids: frozenset[UUID]
    """Whose they are."""
    corrected: frozenset[UUID]
    """Customers of whom it supersedes events."""
    lines: bytes = field(repr=False)

    def events(self) -> list[StoredEvent]:
        """All of them, which takes its time: for those who need each one."""
        return unpacked(self.lines)


async def seal_and_confirm(runtime: Runtime) -> list[Confirmed]:
    """Seal what the inbox holds, and bring every sealed segment into the log, the oldest first.

    For the leader only. A tenant whose segment fails keeps its later ones waiting, so that the
    watermark never passes a gap; the failure is raised once the other tenants are done.
    """
    await _seal(runtime)
    async with runtime.system("list the segments to confirm") as db:
        segments = await db.scalars(
            sa.select(Segment)
            .where(col(Segment.state) == SegmentState.SEALED)
            .order_by(col(Segment.segment_id))
        )
        waiting = list(segments)
    confirmed: list[Confirmed] = []
    failures: dict[UUID, Exception] = {}
    for segment in waiting:
        if segment.tenant_id in failures:
            continue
        try:
            with engine_faults():
                done = await _confirm(runtime, segment)
        except Exception as error:  # noqa: BLE001 (one tenant's segment must not stop the others)
            failures[segment.tenant_id] = error
            log.warning("segment not confirmed", segment=segment.segment_id, error=str(error))
        else:
            confirmed += [] if done is None else [done]
    if failures:
        raise next(iter(failures.values()))
    return confirmed


async def _seal(runtime: Runtime) -> None:
    """Step 4. A row is complete once every transaction that is older than its own has ended:
    an order by id alone would pass over the rows of a transaction that commits late."""
    async with runtime.system("seal the inbox") as db:
        # Segments are committed in the order of their ids, or the watermark would pass over one:
        # a leader that was cut off and does not know it yet is waited for.
        await db.execute(sa.text(f"SELECT pg_advisory_xact_lock({SEAL_LOCK})"))
        rows = await db.execute(
            _UNSEALED, {"events": SEGMENT_EVENTS_MAX, "bytes": SEGMENT_BYTES_MAX}
        )
        by_tenant: dict[UUID, list[Any]] = defaultdict(list)
        for row in rows:
            by_tenant[row.tenant_id].append(row)
        for tenant_id, packs in by_tenant.items():
            await _seal_segment(db, tenant_id, packs, runtime)
        reached("seal.assigned")
    reached("seal.committed")


async def _seal_segment(
    db: AsyncSession, tenant_id: UUID, packs: Sequence[Any], runtime: Runtime
) -> None:
    previous = await db.scalar(
        sa.select(col(Segment.sha256))
        .where(col(Segment.tenant_id) == tenant_id)
        .order_by(col(Segment.segment_id).desc())
        .limit(1)
    )
    segment = Segment(
        tenant_id=tenant_id,
        events=sum(pack.events for pack in packs),
        corrections=sum(pack.corrections for pack in packs),
        backfilled=sum(pack.backfilled for pack in packs),
        sha256=archive.digest(b"".join(pack.body for pack in packs)),
        previous_sha256=previous or GENESIS,
        sealed_at=runtime.clock.now(),
    )
    db.add(segment)
    await db.flush()
    await db.execute(
        sa.update(EventInbox)
        .where(
            col(EventInbox.tenant_id) == tenant_id,
            col(EventInbox.seq).in_([pack.seq for pack in packs]),
        )
        .values(segment_id=segment.segment_id)
    )


async def _confirm(runtime: Runtime, segment: Segment) -> Confirmed | None:
    """Steps 5 to 8 for one segment; None where a leader before us has just done it."""
    async with runtime.system("read a sealed segment") as db:
        found = await db.scalars(
            sa.select(col(EventInbox.body))
            .where(
                col(EventInbox.tenant_id) == segment.tenant_id,
                col(EventInbox.segment_id) == segment.segment_id,
            )
            .order_by(col(EventInbox.seq))
        )
        content = b"".join(found)
        if not content and await _is_confirmed(db, segment):
            return None
    if archive.digest(content) != segment.sha256:
        raise SegmentMismatchError(
            f"the inbox no longer holds what segment {segment.segment_id} sealed"
        )
    path = archive.path_of(runtime.settings.data_dir, segment.tenant_id, segment.segment_id)
    await asyncio.to_thread(archive.write, path, content)
    reached("confirm.archived")
    lines = lines_of(content)
    heads = _heads.decode_lines(lines)
    await _project(runtime, segment, content, heads)
    corrected = await _correct(runtime, segment) if segment.corrections else frozenset()
    reached("confirm.projected")
    customer_ids = frozenset(head.customer_id for head in heads) - {NOBODY}
    previous_id = await _finish(runtime, segment, customer_ids | corrected)
    reached("confirm.finished")
    if previous_id is None:
        return None
    tenant_id = TenantId(segment.tenant_id)
    done = Confirmed(
        tenant_id, segment.segment_id, previous_id, len(heads), customer_ids, corrected, lines
    )
    await _announce(runtime, done)
    return done


async def _is_confirmed(db: AsyncSession, segment: Segment) -> bool:
    state = await db.scalar(
        sa.select(col(Segment.state)).where(
            col(Segment.tenant_id) == segment.tenant_id,
            col(Segment.segment_id) == segment.segment_id,
        )
    )
    return state is SegmentState.CONFIRMED


async def _project(
    runtime: Runtime, segment: Segment, content: bytes, heads: Sequence["_Head"]
) -> None:
    """Steps 6 and 7: insert once, and believe only what is read back."""
    sealed = (len(heads), xor_of([hash_of_key(head.idempotency_key) for head in heads]))
    found = await _projected(runtime, segment)
    if found != sealed:
        if not all(head.texts for head in heads):
            content = repacked(unpacked(content))
        await runtime.events.insert_packed(
            INSERT_EVENTS,
            {"tenant": str(segment.tenant_id), "segment": segment.segment_id},
            content,
        )
        reached("confirm.inserted")
        found = await _projected(runtime, segment)
    if found != sealed:
        raise SegmentMismatchError(
            f"segment {segment.segment_id} sealed {sealed[0]} events, ClickHouse has {found[0]}"
        )


async def _projected(runtime: Runtime, segment: Segment) -> tuple[int, int]:
    """What bills would read of the segment: without events that an earlier segment has too."""
    rows = await runtime.events.query(
        _PROJECTED,
        {"tenant": str(segment.tenant_id), "payer": EVERY_PAYER, "segment": segment.segment_id},
    )
    return rows[0]["events"], rows[0]["xor"]


async def _correct(runtime: Runtime, segment: Segment) -> frozenset[UUID]:
    """The same two steps for what the segment supersedes; whose events that were."""
    which = (runtime.events, segment.tenant_id, segment.segment_id)
    sealed = await corrections.by_the_log(*which)
    if sealed[0] != segment.corrections:
        raise SegmentMismatchError(
            f"segment {segment.segment_id} sealed {segment.corrections} events that supersede "
            f"others, ClickHouse finds {sealed[0]} of those"
        )
    if await _corrections(runtime, segment) != sealed:
        await corrections.correct(*which)
        reached("confirm.corrected")
        if await _corrections(runtime, segment) != sealed:
            raise SegmentMismatchError(
                f"ClickHouse has not written down what segment {segment.segment_id} supersedes"
            )
    return await corrections.corrected_customers(*which)


async def _corrections(runtime: Runtime, segment: Segment) -> tuple[int, int] | None:
    number = segment.segment_id
    found = await corrections.in_segments(runtime.events, segment.tenant_id, number, number)
    return found.get(number)


async def _finish(runtime: Runtime, segment: Segment, customers: Collection[UUID]) -> int | None:
    """Step 8, one transaction: confirmed, out of the inbox, and the detectors asked to look at
    some customers.

    Returns the id of the tenant's segment before this one; None where another leader has done it
    meanwhile, whose word stands.
    """
    now = runtime.clock.now()
    async with runtime.system("confirm a segment") as db:
        ours = await db.scalar(
            sa.update(Segment)
            .where(
                col(Segment.tenant_id) == segment.tenant_id,
                col(Segment.segment_id) == segment.segment_id,
                col(Segment.state) == SegmentState.SEALED,
            )
            .values(state=SegmentState.CONFIRMED, confirmed_at=now)
            .returning(col(Segment.segment_id))
        )
        if ours is None:
            return None
        await db.execute(
            sa.delete(EventInbox).where(
                col(EventInbox.tenant_id) == segment.tenant_id,
                col(EventInbox.segment_id) == segment.segment_id,
            )
        )
        await db.execute(
            _ASK_DETECTORS,
            {
                "tenant_id": segment.tenant_id,
                "id": new_id(),
                "now": now,
                "arguments": {
                    "customer_ids": sorted(map(str, customers)),
                    "watermark": segment.segment_id,
                },
            },
        )
        previous = await db.scalar(
            sa.select(sa.func.max(col(Segment.segment_id))).where(
                col(Segment.tenant_id) == segment.tenant_id,
                col(Segment.segment_id) < segment.segment_id,
            )
        )
        reached("confirm.finishing")
    return int(previous or 0)


async def _announce(runtime: Runtime, done: Confirmed) -> None:
    live = runtime.live.of(done.tenant_id)
    last = done.lines.rstrip().rsplit(b"\n", LIVE_EVENTS_MAX)[-LIVE_EVENTS_MAX:]
    for event in unpacked(b"\n".join(last)):
        if not event.is_void and not event.backfill:
            live.announce("events", _shown(event, done.segment_id))
    live.announce("kpis", {"after": "segment.confirmed"})
    await live.flush()


def _shown(event: StoredEvent, segment_id: int) -> Mapping[str, Any]:
    return {
        "id": str(event.event_id),
        "segmentId": segment_id,
        "idempotencyKey": event.idempotency_key,
        "type": event.type,
        "customerId": str(event.customer_id),
        "occurredAt": event.occurred_at.isoformat(),
        "receivedAt": event.received_at.isoformat(),
        "properties": event.properties,
        "cost": None if event.cost is None else format(event.cost, "f"),
        "costCurrency": event.cost_currency or None,
        "supersedes": event.supersedes or None,
    }


# The log is not read as a whole, which takes longer the longer it is: of the segment what its index
# finds, and of the rest what the sort key finds of the same events.
_PROJECTED = f"""
    SELECT count() AS events, groupBitXor(key_xor) AS xor FROM {WHOLE_LOG}
    WHERE segment_id = {{segment:UInt64}} AND (key_hash, backfill_id) NOT IN (
        SELECT key_hash, backfill_id FROM stored_events_of(tenant = {{tenant:UUID}})
        WHERE segment_id < {{segment:UInt64}}
            AND (customer_id, type, toStartOfHour(occurred_at), key_hash) IN (
                SELECT customer_id, type, toStartOfHour(occurred_at), key_hash
                FROM stored_events_of(tenant = {{tenant:UUID}})
                WHERE segment_id = {{segment:UInt64}}
            )
    )
    {NEWEST_ALONE}
""".replace("{watermark:UInt64}", "{segment:UInt64}")
# At least one row, however many events it has.
_UNSEALED = sa.text("""
    SELECT tenant_id, seq, events, corrections, backfilled, body
    FROM (
        SELECT tenant_id, seq, events, corrections, backfilled, body,
            row_number() OVER before AS place,
            sum(events) OVER before AS events_until,
            sum(content_bytes) OVER before AS bytes_until
        FROM (
            SELECT * FROM event_inbox
            WHERE segment_id IS NULL
                AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            ORDER BY seq LIMIT :events
        ) AS oldest
        WINDOW before AS (ORDER BY seq)
    ) AS counted
    WHERE place = 1 OR (events_until <= :events AND bytes_until <= :bytes)
    ORDER BY seq
""")
# While a request to look is waiting, the customers of the next segments join it.
_ASK_DETECTORS = sa.text(
    "INSERT INTO job (tenant_id, id, created_at, name, arguments, unique_key, state, run_at, tries)"
    " VALUES (:tenant_id, :id, :now, 'DETECT_SIGNALS', :arguments, '', 'QUEUED', :now, 0) "
    "ON CONFLICT (tenant_id, name, unique_key) WHERE state = 'QUEUED' DO UPDATE SET arguments = "
    "jsonb_build_object('watermark', excluded.arguments -> 'watermark', 'customer_ids', "
    "(SELECT jsonb_agg(DISTINCT one) FROM jsonb_array_elements("
    "(job.arguments -> 'customer_ids') || (excluded.arguments -> 'customer_ids')) AS one))"
).bindparams(
    sa.bindparam("tenant_id", type_=sa.Uuid),
    sa.bindparam("id", type_=sa.Uuid),
    sa.bindparam("now", type_=sa.DateTime(timezone=True)),
    sa.bindparam("arguments", type_=JSONB),
)
