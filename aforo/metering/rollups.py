"""The roll-ups of usage in ClickHouse: made from whole confirmed segments, and checked before use.

They only make reading faster. What is not rolled up yet is read from the log, with the same
result; bill runs read nothing but the log.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.catalog.models import Meter
from aforo.metering import queries
from aforo.metering.aggregate import NEWEST_ALONE
from aforo.metering.models import Segment, UsageSpan
from aforo.metering.rollup import (
    OF_SPAN,
    ROLLUPS,
    SPAN_SEGMENTS_MAX,
    SUMS,
    Level,
    build,
    cut,
    event_parameters,
    event_rows,
)
from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.storage.failpoints import reached
from aforo.storage.jobs import JobName
from aforo.storage.scope import Runtime, Scope

SPAN_EVENTS = 500_000
"""So many events of a tenant are read from the log before they are rolled up."""
SPANS_AT_ONCE = 8

log = structlog.get_logger()


class RollupMismatchError(Exception):
    """ClickHouse gave back other sums than the log has: the roll-up is thrown away."""


@dataclass(frozen=True, slots=True)
class RolledUp:
    """What of a log is rolled up for a meter: everything up to a segment."""

    span_ids: Sequence[int]
    through: int
    """The last segment; 0 where nothing is."""
    ends: Sequence[int] = ()
    """The last segment of each span; of none where nothing was superseded behind the first one."""
    has_backfills: bool = False
    """Whether some of the segments have events of backfills, which are not rolled up."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What two ways of reading the same events must agree on."""

    events: int
    xor: int
    quantity: Decimal


async def ask(runtime: Runtime, tenant_id: TenantId) -> None:
    """Ask for a job where enough events of a tenant wait to be rolled up.

    A failure costs nothing but time: the next segment asks again.
    """
    try:
        async with runtime.scope(tenant_id) as scope:
            if await _due(scope, SPAN_EVENTS):
                await scope.enqueue(JobName.ROLL_UP_USAGE, unique_key="")
    except AforoError as error:
        log.warning("roll-ups not asked for", tenant_id=str(tenant_id), error=error.message)


async def roll_up(scope: Scope, *, span_events: int) -> int:
    """Roll up what waits, at most 8 spans, and ask for a job if there is more; how many it were.

    A span ends with the segment that brings its events to `span_events`.

    Killed at any point it leaves nothing that counts: the rows of a span do from the moment on at
    which this transaction commits, which says so.
    """
    built = 0
    for meter, after, until in await _due(scope, span_events):
        scope.db.add(await _build(scope, meter, after, until))
        reached("rollup.built")
        built += 1
        if built == SPANS_AT_ONCE:
            break
    if built:
        await scope.db.flush()
        if await _due(scope, span_events):
            await scope.enqueue(JobName.ROLL_UP_USAGE, unique_key="")
    return built


async def rolled_up(scope: Scope, meter_id: UUID, watermark: int) -> RolledUp:
    """What is rolled up for a meter of the log up to a watermark."""
    rows = await scope.db.execute(
        sa.select(
            col(UsageSpan.after_segment_id),
            col(UsageSpan.segment_id),
            col(UsageSpan.span_id),
            col(UsageSpan.events),
        )
        .where(col(UsageSpan.meter_id) == meter_id, col(UsageSpan.segment_id) <= watermark)
        .order_by(col(UsageSpan.after_segment_id))
    )
    through, span_ids, ends = 0, list[int](), list[int]()
    for after, last, span_id, events in rows:
        if after != through:
            break
        through = last
        ends.append(last)
        if events:
            span_ids.append(span_id)
    if ends and not await _any_segment(
        scope,
        col(Segment.corrections) > 0,
        col(Segment.segment_id) > ends[0],
        col(Segment.segment_id) <= watermark,
    ):
        ends = []
    has_backfills = await _any_segment(
        scope, col(Segment.backfilled) > 0, col(Segment.segment_id) <= through
    )
    return RolledUp(span_ids, through, ends, has_backfills)


async def checksums(scope: Scope, meter: Meter, span: UsageSpan) -> dict[str, Checksum]:
    """What the log says of a span, and what each level of its roll-up does, by name; a level
    without rows is absent."""
    rule = queries.rule_of(meter)
    sums = SUMS[rule.aggregation]
    found = await scope.events.query(
        f"SELECT sum(e) AS events, groupBitXor(x) AS xor, {sums.quantity} AS quantity FROM "
        f"(SELECT count() AS e, groupBitXor(key_xor) AS x{_more(sums.of_events)} "
        f"FROM ({event_rows(rule, OF_SPAN)}) GROUP BY customer_id) {NEWEST_ALONE}",
        **event_parameters(rule),
        after=span.after_segment_id,
        watermark=span.segment_id,
    )
    found += await scope.events.query(
        f"SELECT level, sum(e) AS events, groupBitXor(x) AS xor, {sums.quantity} AS quantity FROM "
        f"(SELECT level, sum(events) AS e, groupBitXor(xor) AS x{_more(sums.of_rollups)} "
        f"FROM {ROLLUPS} WHERE meter_id = {{meter:UUID}} AND span_id = {{span:UInt64}} "
        "GROUP BY level, customer_id) GROUP BY level ORDER BY level",
        meter=str(meter.id),
        span=span.span_id,
    )
    return {
        Level(row["level"]).name if "level" in row else LOG: Checksum(
            row["events"], row["xor"], queries.shortest(row["quantity"])
        )
        for row in found
    }


def faulty_levels(found: dict[str, Checksum]) -> str:
    """The names of the levels that say something else than the log, or are missing."""
    in_log = found[LOG]
    wanted = {level.name for level in Level} if in_log.events else set[str]()
    names = wanted | found.keys() - {LOG}
    return ", ".join(sorted(name for name in names if found.get(name) != in_log))


LOG = "LOG"
"""The name of the log among checksums."""


async def _build(scope: Scope, meter: Meter, after: int, until: int) -> UsageSpan:
    span = UsageSpan(
        meter_id=meter.id,
        after_segment_id=after,
        segment_id=until,
        # Its own for each attempt, so that rows of one that was cut off are never counted.
        span_id=secrets.randbits(53),
        events=0,
    )
    rule = queries.rule_of(meter)
    await scope.events.command(
        build(rule),
        **event_parameters(rule),
        meter=str(meter.id),
        span=span.span_id,
        after=after,
        watermark=until,
    )
    reached("rollup.inserted")
    found = await checksums(scope, meter, span)
    if faulty_levels(found):
        await delete(scope, [span.span_id])
        raise RollupMismatchError(
            f"meter {meter.code}, segments {after + 1} to {until}: the log and its roll-up differ"
        )
    span.events = found[LOG].events
    return span


async def delete(scope: Scope, span_ids: Sequence[int]) -> None:
    """Delete the rows of spans that do not count."""
    await scope.events.command(
        "ALTER TABLE usage_rollup DELETE WHERE tenant_id = {tenant:UUID} "
        "AND has({spans:Array(UInt64)}, span_id) SETTINGS mutations_sync = 1",
        spans=list(span_ids),
    )


async def _due(scope: Scope, span_events: int) -> list[tuple[Meter, int, int]]:
    """The next span of each meter for which there are enough events: behind which segment, and
    up to which."""
    watermark = await queries.watermark(scope)
    reach = (
        sa.select(col(UsageSpan.segment_id))
        .where(col(UsageSpan.meter_id) == col(Meter.id))
        .order_by(col(UsageSpan.after_segment_id).desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = await scope.db.execute(
        sa.select(Meter, sa.func.coalesce(reach, 0)).order_by(col(Meter.id))
    )
    ends: dict[int, int | None] = {}
    due: list[tuple[Meter, int, int]] = []
    for meter, through in rows:
        if through not in ends:
            ends[through] = await _end_of_span(scope, through, watermark, span_events)
        until = ends[through]
        if until is not None:
            due.append((meter, through, until))
    return due


async def _end_of_span(scope: Scope, after: int, watermark: int, span_events: int) -> int | None:
    rows = await scope.db.execute(
        sa.select(col(Segment.segment_id), col(Segment.events))
        .where(col(Segment.segment_id) > after, col(Segment.segment_id) <= watermark)
        .order_by(col(Segment.segment_id))
        .limit(SPAN_SEGMENTS_MAX)
    )
    return cut([(segment_id, events) for segment_id, events in rows], span_events)


async def _any_segment(scope: Scope, *where: sa.ColumnElement[bool]) -> bool:
    found = await scope.db.scalar(sa.select(col(Segment.segment_id)).where(*where).limit(1))
    return found is not None


def _more(columns: str) -> str:
    return f", {columns}" if columns else ""
