"""ClickHouse made anew from the archive: the events of each segment, and the roll-ups of usage."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import Meter
from aforo.metering import corrections, rollups
from aforo.metering.fingerprint import fingerprint
from aforo.metering.models import Segment, UsageSpan
from aforo.metering.projection import INSERT_EVENTS, repacked
from aforo.metering.verify import (
    archived,
    confirmed_segments,
    projected,
    tenants_with_a_log,
    wrongly_corrected,
)
from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.storage.failpoints import reached
from aforo.storage.scope import Runtime, Scope


class ArchiveError(AforoError):
    """An archive file is missing, or is not what was sealed: nothing can be made from it."""

    code = "ARCHIVE"


@dataclass(slots=True)
class Rebuilt:
    """What was done for one tenant."""

    tenant_id: UUID
    segments: int = 0
    """All that were looked at."""
    written: int = 0
    """Segments whose events were not in ClickHouse as they were sealed, and are now."""
    spans: int = 0
    """Roll-ups that were made."""


async def rebuild(
    runtime: Runtime,
    tenant_id: UUID | None = None,
    *,
    on_progress: Callable[[Rebuilt], None] | None = None,
) -> list[Rebuilt]:
    """Bring ClickHouse to what the archive says, for every tenant or for one.

    What is right is left alone, so it goes on where it was cut off. Raises `ArchiveError` at the
    first file that is not what was sealed.
    """
    tenants = [tenant_id] if tenant_id else await tenants_with_a_log(runtime)
    done = []
    for each in tenants:
        rebuilt = Rebuilt(each)
        await _events(runtime, rebuilt, on_progress)
        await _rollups(runtime, rebuilt, on_progress)
        done.append(rebuilt)
    return done


async def _events(
    runtime: Runtime, rebuilt: Rebuilt, on_progress: Callable[[Rebuilt], None] | None
) -> None:
    tenant_id = TenantId(rebuilt.tenant_id)
    async for page in confirmed_segments(runtime, tenant_id):
        async with runtime.scope(tenant_id) as scope:
            found = await projected(scope, page)
            known = {segment.segment_id for segment in page}
            strangers = [segment_id for segment_id in found if segment_id not in known]
            if strangers:
                await _delete(scope, strangers)
        for segment in page:
            file = await archived(runtime, segment)
            if file.events is None:
                raise ArchiveError(f"{file.fault}; bring that file back from a copy, and run again")
            rebuilt.segments += 1
            was = found.get(segment.segment_id)
            if was != fingerprint(file.events):
                async with runtime.scope(tenant_id) as scope:
                    if was is not None:
                        await _delete(scope, [segment.segment_id])
                await runtime.events.insert_packed(
                    INSERT_EVENTS,
                    {"tenant": str(tenant_id), "segment": segment.segment_id},
                    repacked(file.events),
                )
                rebuilt.written += 1
                reached("rebuild.inserted")
        for segment_id in await wrongly_corrected(runtime, tenant_id, page):
            await corrections.forget(runtime.events, tenant_id, [segment_id])
            await corrections.correct(runtime.events, tenant_id, segment_id)
        if on_progress is not None:
            on_progress(rebuilt)
    async with runtime.scope(tenant_id) as scope:
        last = await scope.db.scalar(sa.select(sa.func.max(col(Segment.segment_id)))) or 0
        await scope.events.command(
            "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID} "
            "AND segment_id > {last:UInt64} SETTINGS mutations_sync = 1",
            last=last,
        )
        await scope.events.command(
            "ALTER TABLE event_correction DELETE WHERE tenant_id = {tenant:UUID} "
            "AND segment_id > {last:UInt64} SETTINGS mutations_sync = 1",
            last=last,
        )


async def _delete(scope: Scope, segment_ids: list[int]) -> None:
    await scope.events.command(
        "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID} "
        "AND has({segments:Array(UInt64)}, segment_id) SETTINGS mutations_sync = 1",
        segments=segment_ids,
    )


async def _rollups(
    runtime: Runtime, rebuilt: Rebuilt, on_progress: Callable[[Rebuilt], None] | None
) -> None:
    """From the first span of a meter that is not what the log says, its roll-ups are made anew."""
    tenant_id = TenantId(rebuilt.tenant_id)
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.db.execute(
            sa.select(Meter, UsageSpan)
            .join(UsageSpan, col(UsageSpan.meter_id) == col(Meter.id))
            .order_by(col(Meter.id), col(UsageSpan.after_segment_id))
        )
        kept: list[int] = []
        for meter, of_meter in groupby(rows, key=lambda row: row[0]):
            is_broken = False
            for _, span in of_meter:
                is_broken = is_broken or bool(
                    rollups.faulty_levels(await rollups.checksums(scope, meter, span))
                )
                if is_broken:
                    await scope.db.delete(span)
                else:
                    kept.append(span.span_id)
        # Of spans that do not count, also of attempts that were cut off.
        await scope.events.command(
            "ALTER TABLE usage_rollup DELETE WHERE tenant_id = {tenant:UUID} "
            "AND NOT has({spans:Array(UInt64)}, span_id) SETTINGS mutations_sync = 1",
            spans=kept,
        )
    while True:
        async with runtime.scope(tenant_id) as scope:
            built = await rollups.roll_up(scope, span_events=rollups.SPAN_EVENTS)
        if not built:
            return
        rebuilt.spans += built
        if on_progress is not None:
            on_progress(rebuilt)
