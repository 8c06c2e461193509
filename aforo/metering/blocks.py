"""Why single events are blocked: by which quota, what its limit was, and what was used before."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import Entitlement, Meter, QuotaPolicy
from aforo.metering import limits, queries
from aforo.metering.aggregate import selection
from aforo.metering.cuts import Cut, Phase, blocked_events, counted_events
from aforo.sdk.period import Period
from aforo.storage.scope import Scope

EVENTS_MAX = 1_000
_INSTANT = timedelta(microseconds=1)


class Placed(Protocol):
    """What is known of an event that is looked for."""

    @property
    def event_id(self) -> UUID: ...
    @property
    def type(self) -> str: ...
    @property
    def customer_id(self) -> UUID: ...
    @property
    def occurred_at(self) -> datetime: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """An event did not fit into what was left of a quota: its meter does not count it."""

    meter: Meter
    entitlement: Entitlement
    limit: Decimal
    """With what was carried on."""
    used_before: Decimal
    """In the window of the event, by what is before it in the log."""


async def blocks_of(scope: Scope, events: Sequence[Placed]) -> dict[UUID, list[Block]]:
    """What blocks each of some events, by their ids; an event that is not blocked is absent."""
    assert len(events) <= EVENTS_MAX, "the caller bounds the page"
    by_type: dict[str, list[Placed]] = defaultdict(list)
    for event in events:
        by_type[event.type].append(event)
    found: dict[UUID, list[Block]] = defaultdict(list)
    watermark = await queries.watermark(scope)
    for meter in await _meters(scope, by_type):
        for event_id, block in await _blocked(scope, meter, by_type[meter.event_type], watermark):
            found[event_id].append(block)
    return dict(found)


async def _meters(scope: Scope, types: Collection[str]) -> list[Meter]:
    """Those over which a quota blocks."""
    if not types:
        return []
    blocking = sa.select(col(Entitlement.meter_id)).where(
        col(Entitlement.policy) == QuotaPolicy.BLOCK
    )
    rows = await scope.db.scalars(
        sa.select(Meter)
        .where(col(Meter.event_type).in_(types), col(Meter.id).in_(blocking))
        .order_by(col(Meter.id))
    )
    return list(rows)


async def _blocked(
    scope: Scope, meter: Meter, events: Sequence[Placed], watermark: int
) -> list[tuple[UUID, Block]]:
    moments = [event.occurred_at for event in events]
    period = Period(min(moments), max(moments) + _INSTANT)
    customers = sorted({event.customer_id for event in events})
    cuts = await limits.blocked(scope, meter, period, watermark=watermark, customer_ids=customers)
    if not cuts:
        return []
    counted = selection(queries.rule_of(meter))
    rows = await scope.events.query(
        "SELECT quota_number, event_id, segment_id, position "
        f"FROM {blocked_events(counted, f'{queries.IN_PERIOD} AND {_THESE}', cuts)} "
        "ORDER BY segment_id, position",
        **counted.parameters,
        watermark=watermark,
        ids=[str(event.event_id) for event in events],
        start=queries.moment(period.start),
        end=queries.moment(period.end),
    )
    by_cut: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_cut[row["quota_number"]].append(row)
    found = []
    for number, some in by_cut.items():
        cut = cuts[number]
        places = [(row["segment_id"], row["position"]) for row in some]
        used = await _used_before(scope, meter, cut, places, watermark)
        found += [
            (
                row["event_id"],
                Block(
                    meter=meter,
                    entitlement=cut.cell.grant.entitlement,
                    limit=cut.cell.limit,
                    used_before=before,
                ),
            )
            for row, before in zip(some, used, strict=True)
        ]
    return found


_THESE = "event_id IN {ids:Array(UUID)}"


async def _used_before(
    scope: Scope, meter: Meter, cut: Cut, places: Sequence[tuple[int, int]], watermark: int
) -> list[Decimal]:
    """What the cell of a cut had used at each of these places, at which it blocks."""
    counted = selection(queries.rule_of(meter))
    if counted.is_distinct:
        return [Decimal(int(cut.cell.limit))] * len(places)
    phases = [_phase_of(cut, place) for place in places]
    since = "(segment_id, position) >= ({segment:UInt64}, {place:UInt32})"
    asked = f"{queries.IN_PERIOD} AND customer_id = {{customer:UUID}} AND {since}"
    first = min(phases)
    # What was counted from the beginning of each phase up to the event.
    [row] = await scope.events.query(
        "SELECT sumForEach(arrayMap((from_segment, from_place, segment, place) -> if("
        "(segment_id, position) >= (from_segment, from_place) "
        "AND (segment_id, position) < (segment, place), "
        f"{counted.value}, toDecimal256(0, 12)), {{from_segments:Array(UInt64)}}, "
        "{from_places:Array(UInt32)}, {segments:Array(UInt64)}, {places:Array(UInt32)})) AS used "
        f"FROM {counted_events(counted, asked, [cut])}",
        **counted.parameters,
        watermark=watermark,
        customer=str(cut.cell.customer_id),
        start=queries.moment(cut.cell.period.start),
        end=queries.moment(cut.cell.period.end),
        segment=first.segment_id,
        place=first.position,
        from_segments=[phase.segment_id for phase in phases],
        from_places=[phase.position for phase in phases],
        segments=[segment for segment, _ in places],
        places=[place for _, place in places],
    )
    since_phase = row["used"] or [Decimal(0)] * len(places)
    return [
        queries.shortest(cut.cell.limit - phase.room + used)
        for phase, used in zip(phases, since_phase, strict=True)
    ]


def _phase_of(cut: Cut, place: tuple[int, int]) -> Phase:
    return max(phase for phase in cut.phases if phase[:2] <= place)
