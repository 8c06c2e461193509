"""Whether the log is as it was sealed: PostgreSQL's segments, the archive, ClickHouse, roll-ups."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import Meter
from aforo.metering import archive, corrections, queries
from aforo.metering.aggregate import NEWEST_ALONE, WHOLE_LOG
from aforo.metering.fingerprint import FINGERPRINT, Fingerprint, fingerprint
from aforo.metering.models import Segment, UsageSpan
from aforo.metering.rollups import LOG, checksums, faulty_levels
from aforo.metering.sealer import GENESIS
from aforo.metering.stored import StoredEvent, unpacked
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime, Scope

SEGMENTS_AT_ONCE = 100
EVERY_SEGMENT = 2**63 - 1


@dataclass(slots=True)
class Verified:
    """What was looked at of one tenant, and what is not as it should be."""

    tenant_id: UUID
    segments: int = 0
    events: int = 0
    spans: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Archived:
    """A segment as its archive file has it."""

    segment: Segment
    events: Sequence[StoredEvent] | None
    """None where the file is missing, or is not what was sealed."""
    fault: str | None = None


async def verify(runtime: Runtime, tenant_id: UUID | None = None) -> list[Verified]:
    """Recompute everything of every tenant that has a log, or of one."""
    tenants = [tenant_id] if tenant_id else await tenants_with_a_log(runtime)
    return [await _verify(runtime, TenantId(each)) for each in tenants]


async def tenants_with_a_log(runtime: Runtime) -> list[UUID]:
    """Those that have a segment."""
    async with runtime.system("list the tenants with a log") as db:
        found = await db.scalars(
            sa.select(col(Segment.tenant_id)).distinct().order_by(col(Segment.tenant_id))
        )
        return list(found)


async def confirmed_segments(
    runtime: Runtime, tenant_id: TenantId
) -> AsyncIterator[Sequence[Segment]]:
    """The segments of the log, the oldest first, some at a time."""
    async with runtime.scope(tenant_id) as scope:
        watermark = await queries.watermark(scope)
    last = 0
    while True:
        async with runtime.scope(tenant_id) as scope:
            rows = await scope.db.scalars(
                sa.select(Segment)
                .where(col(Segment.segment_id) > last, col(Segment.segment_id) <= watermark)
                .order_by(col(Segment.segment_id))
                .limit(SEGMENTS_AT_ONCE)
            )
            page = list(rows)
        if not page:
            return
        last = page[-1].segment_id
        yield page


async def archived(runtime: Runtime, segment: Segment) -> Archived:
    """Read a segment's file, and hold it to what was sealed."""
    path = archive.find(runtime.settings.data_dir, segment.tenant_id, segment.segment_id)
    content = await asyncio.to_thread(archive.read, path)
    if content is None:
        return Archived(segment, None, f"{path} is missing")
    if archive.digest(content) != segment.sha256:
        return Archived(segment, None, f"{path} is not what was sealed: its SHA-256 is another one")
    events = await asyncio.to_thread(unpacked, content)
    if len(events) != segment.events:
        fault = f"{path} holds {len(events)} events, {segment.events} were sealed"
        return Archived(segment, None, fault)
    correcting = sum(1 for event in events if event.is_correction)
    if correcting != segment.corrections:
        fault = f"{path} holds {correcting} events that correct others, {segment.corrections} "
        return Archived(segment, None, f"{fault}were sealed")
    return Archived(segment, events)


async def projected(scope: Scope, segments: Sequence[Segment]) -> dict[int, Fingerprint]:
    """The fingerprints of neighbouring segments as ClickHouse has them, by segment; also of such
    between them as PostgreSQL knows nothing of."""
    rows = await scope.events.query(
        f"SELECT segment_id, {FINGERPRINT} FROM {WHOLE_LOG} WHERE segment_id >= {{first:UInt64}} "
        f"GROUP BY segment_id ORDER BY segment_id {NEWEST_ALONE}",
        first=segments[0].segment_id,
        watermark=segments[-1].segment_id,
    )
    return {
        row["segment_id"]: Fingerprint(row["events"], row["keys"], row["content"]) for row in rows
    }


async def wrongly_corrected(
    runtime: Runtime, tenant_id: TenantId, segments: Sequence[Segment]
) -> list[int]:
    """Those of neighbouring segments of which ClickHouse has written down something else than they
    supersede; also such between them as PostgreSQL knows nothing of."""
    first, last = segments[0].segment_id, segments[-1].segment_id
    found = await corrections.in_segments(runtime.events, tenant_id, first, last)
    wrong = []
    for segment in segments:
        written = found.pop(segment.segment_id, (0, 0))
        wanted = (0, 0)
        if segment.corrections:
            wanted = await corrections.by_the_log(runtime.events, tenant_id, segment.segment_id)
        if written != wanted or wanted[0] != segment.corrections:
            wrong.append(segment.segment_id)
    return sorted([*wrong, *found])


async def _verify(runtime: Runtime, tenant_id: TenantId) -> Verified:
    found = Verified(tenant_id)
    previous = GENESIS
    async for page in confirmed_segments(runtime, tenant_id):
        async with runtime.scope(tenant_id) as scope:
            in_clickhouse = await projected(scope, page)
        for segment in page:
            found.segments += 1
            found.events += segment.events
            if segment.previous_sha256 != previous:
                found.faults.append(
                    f"segment {segment.segment_id} does not follow the segment before it"
                )
            previous = segment.sha256
            file = await archived(runtime, segment)
            found.faults += [file.fault] if file.fault else []
            found.faults += _differences(file, in_clickhouse.pop(segment.segment_id, _NOTHING))
        found.faults += [_stranger(one, print_.events) for one, print_ in in_clickhouse.items()]
        found.faults += [
            f"segment {segment_id}: what it supersedes is not written down as the log has it"
            for segment_id in await wrongly_corrected(runtime, tenant_id, page)
        ]
    async with runtime.scope(tenant_id) as scope:
        await _verify_whole(scope, found)
        await _verify_rollups(scope, found)
    return found


_NOTHING = Fingerprint(0, 0, 0)


def _differences(file: Archived, in_clickhouse: Fingerprint) -> list[str]:
    """How ClickHouse differs from the archive; from what was sealed where that cannot be read."""
    segment = file.segment
    name = f"segment {segment.segment_id}: ClickHouse has"
    if in_clickhouse.events != segment.events:
        return [f"{name} {in_clickhouse.events} events, {segment.events} were sealed"]
    if file.events is None:
        return []
    sealed = fingerprint(file.events)
    if in_clickhouse.keys != sealed.keys:
        return [f"{name} other events than were sealed"]
    if in_clickhouse.content != sealed.content:
        return [f"{name} the events that were sealed with another content"]
    return []


def _stranger(segment_id: int, events: int) -> str:
    return f"segment {segment_id}: ClickHouse has {events} events of it, and there is no such one"


async def _verify_whole(scope: Scope, found: Verified) -> None:
    """What no look at a few segments shows: events in two of them, and segments past the last."""
    watermark = await queries.watermark(scope)
    [row] = await scope.events.query(
        f"SELECT count() AS events FROM {WHOLE_LOG}", watermark=watermark
    )
    if row["events"] < found.events and not found.faults:
        found.faults.append(
            f"{found.events - row['events']} events are in more than one segment of ClickHouse"
        )
    last = await scope.db.scalar(sa.select(sa.func.max(col(Segment.segment_id)))) or 0
    rows = await scope.events.query(
        f"SELECT segment_id, count() AS events FROM {WHOLE_LOG} WHERE segment_id > {{last:UInt64}} "
        f"GROUP BY segment_id ORDER BY segment_id LIMIT 100 {NEWEST_ALONE}",
        watermark=EVERY_SEGMENT,
        last=last,
    )
    found.faults += [_stranger(row["segment_id"], row["events"]) for row in rows]


async def _verify_rollups(scope: Scope, found: Verified) -> None:
    rows = await scope.db.execute(
        sa.select(Meter, UsageSpan)
        .join(UsageSpan, col(UsageSpan.meter_id) == col(Meter.id))
        .order_by(col(Meter.id), col(UsageSpan.after_segment_id))
    )
    for meter, of_meter in groupby(rows, key=lambda row: row[0]):
        through = 0
        for _, span in of_meter:
            found.spans += 1
            name = f"meter {meter.code}, segments {span.after_segment_id + 1} to {span.segment_id}"
            if span.after_segment_id != through:
                found.faults.append(f"{name}: rolled up with a gap before them")
            through = span.segment_id
            sums = await checksums(scope, meter, span)
            levels = faulty_levels(sums)
            if levels:
                found.faults.append(f"{name}: the roll-up differs from the log ({levels})")
            elif sums[LOG].events != span.events:
                found.faults.append(
                    f"{name}: {span.events} events were rolled up, the log has {sums[LOG].events}"
                )
