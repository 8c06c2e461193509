"""Decides what is blocked: the customers over a limit, their windows, and where each was full.

Nothing is kept. The same log up to the same watermark, under the same subscriptions, gives the same
answer again. Who is not over a limit costs one sum.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from aforo.catalog.models import Entitlement, Meter, QuotaReset
from aforo.catalog.quota_terms import BLOCKABLE
from aforo.metering import queries
from aforo.metering.aggregate import EVENTS, Selection, selection
from aforo.metering.cuts import (
    Cell,
    Column,
    Cut,
    Phase,
    Walk,
    blocks,
    cells,
    cells_table,
    joined,
    of_cells,
    within,
)
from aforo.metering.grants import QuotaGrant, blocking_entitlements, grants_over
from aforo.metering.rollover import WINDOWS_MAX, carried
from aforo.metering.windows import windows_until
from aforo.sdk.ids import CustomerId
from aforo.sdk.period import Period
from aforo.storage.scope import Scope

CELLS_AT_ONCE = 1_000
CUSTOMERS_AT_ONCE = 1_000
_EVER = Period(datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
_MONTH = timedelta(days=32)
_UNITS = "Decimal(76, 12)"
_NOTHING = "toDecimal256(0, 12)"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Log:
    """The events that a meter counts, up to a watermark."""

    scope: Scope
    meter: Meter
    counted: Selection
    watermark: int

    @classmethod
    def of(cls, scope: Scope, meter: Meter, watermark: int) -> "_Log":
        return cls(scope, meter, selection(queries.rule_of(meter)), watermark)

    @property
    def at_most(self) -> str:
        """Aggregate expression: as many units as there can have been at any moment."""
        if self.counted.is_distinct or not self.meter.allows_negative:
            return self.counted.quantity
        return f"sum(greatest({self.counted.value}, {_NOTHING}))"

    async def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return await self.scope.events.query(
            sql, **self.counted.parameters, watermark=self.watermark, **parameters
        )


@dataclass(frozen=True, slots=True)
class Least:
    """A customer without more than `limit` units in all of `around` is not blocked."""

    around: Period
    """The windows that a period touches are within."""
    limit: Decimal


async def blocked(
    scope: Scope,
    meter: Meter,
    period: Period,
    *,
    watermark: int,
    customer_ids: Sequence[UUID] | None = None,
) -> tuple[Cut, ...]:
    """What quotas block of a meter in the windows that a period touches, up to a watermark.

    Empty where no quota over the meter blocks, or nobody is over one.
    """
    least = await least_limit(scope, meter, period)
    if least is None:
        return ()
    over = await _over(_Log.of(scope, meter, watermark), least, customer_ids)
    return await blocked_of(scope, meter, period, watermark=watermark, customer_ids=over)


async def least_limit(scope: Scope, meter: Meter, period: Period) -> Least | None:
    """What nobody is blocked below; None where no quota over the meter blocks."""
    if meter.aggregation not in BLOCKABLE:
        return None
    terms = [
        each
        for each in await blocking_entitlements(scope, meter)
        if blocks(each, meter.aggregation)
    ]
    if not terms:
        return None
    reaches = [_reach(each) for each in terms]
    known = [each for each in reaches if each is not None]
    around = _EVER
    if len(known) == len(reaches):
        around = Period(period.start - max(known), period.end + max(known))
    return Least(around, min(each.quota or Decimal(0) for each in terms))


async def blocked_of(
    scope: Scope, meter: Meter, period: Period, *, watermark: int, customer_ids: Sequence[UUID]
) -> tuple[Cut, ...]:
    """The same of customers who have used more than the least limit."""
    log = _Log.of(scope, meter, watermark)
    found: list[Cut] = []
    for some in _batches(customer_ids, CUSTOMERS_AT_ONCE):
        grants: dict[UUID, list[QuotaGrant]] = defaultdict(list)
        for grant in await grants_over(scope, meter, _EVER, some):
            grants[grant.customer_id].append(grant)
        wanted = (cell for each in grants.values() for cell in cells(each, period))
        for part in _batches(wanted, CELLS_AT_ONCE):
            found += await _cuts(log, await _exceeded(log, part))
    return tuple(found)


async def carried_into(scope: Scope, grant: QuotaGrant, at: datetime, watermark: int) -> Decimal:
    """The units that a quota brings into its window of a moment from those before."""
    log = _Log.of(scope, grant.meter, watermark)
    start = grant.at(at).period.start
    return await _carried(log, grant, start)


async def _over(log: _Log, least: Least, customer_ids: Sequence[UUID] | None) -> list[UUID]:
    """The customers who used more than the least of the limits in all windows together."""
    among = "" if customer_ids is None else "AND customer_id IN {ids:Array(UUID)}"
    rows = await log.rows(
        f"SELECT customer_id FROM {EVENTS} WHERE {queries.IN_PERIOD} AND {log.counted.condition} "
        f"{among} GROUP BY customer_id HAVING {log.at_most} > {{least:{_UNITS}}} "
        "ORDER BY customer_id",
        least=f"{least.limit:f}",
        start=queries.moment(least.around.start),
        end=queries.moment(least.around.end),
        ids=[str(each) for each in customer_ids or ()],
    )
    return [row["customer_id"] for row in rows]


def _reach(terms: Entitlement) -> timedelta | None:
    """How far a window can reach beyond a moment in it; None: without an end."""
    if terms.reset is QuotaReset.NEVER:
        return None
    return timedelta(seconds=terms.reset_seconds) if terms.reset_seconds else _MONTH


async def _exceeded(log: _Log, some: Sequence[Cell]) -> list[Cell]:
    """Those with more units than their limit, which has what is carried on in it then."""
    found: list[Cell] = []
    for cell, (most, _) in zip(some, await _totals(log, some), strict=True):
        limit = cell.limit
        if most > limit and cell.grant.entitlement.rollover_periods is not None:
            window = cell.grant.at(cell.period.start).period
            limit += await _carried(log, cell.grant, window.start)
        if most > limit:
            found.append(replace(cell, limit=limit))
    return found


async def _carried(log: _Log, grant: QuotaGrant, start: datetime) -> Decimal:
    """Into the window that starts then. What is blocked in one before does not count as used."""
    terms = grant.entitlement
    quota = terms.quota or Decimal(0)

    def left(used: Sequence[Decimal]) -> Decimal:
        windows = terms.rollover_periods or 0
        return carried(used, quota=quota, windows=windows, cap=terms.rollover_cap)

    before = [
        Cell(customer_id=grant.customer_id, grant=grant, period=period, limit=quota)
        for period in windows_until(grant.reset, grant.life, start, most=WINDOWS_MAX)
    ]
    used: list[Decimal] = []
    for cell, (most, quantity) in zip(before, await _totals(log, before), strict=True):
        limit = quota + left(used)
        if most > limit and blocks(terms, log.meter.aggregation):
            cuts = await _cuts(log, [replace(cell, limit=limit)])
            used.append(await _quantity(log, cell, cuts))
        else:
            used.append(quantity)
    return left(used)


async def _quantity(log: _Log, cell: Cell, cuts: Sequence[Cut]) -> Decimal:
    usage = await queries.usage_by_customer(
        log.scope,
        log.meter,
        cell.period,
        watermark=log.watermark,
        customer_ids=[cell.customer_id],
        without=cuts,
    )
    found = usage.get(CustomerId(cell.customer_id))
    return found.quantity if found else Decimal(0)


async def _totals(log: _Log, some: Sequence[Cell]) -> list[tuple[Decimal, Decimal]]:
    """Of each cell the most units at any moment, and the units in the end, never below 0."""
    if not some:
        return []
    rows = await log.rows(
        f"SELECT quota_number, {log.at_most} AS most, {log.counted.quantity} AS quantity "
        f"FROM {joined(cells_table(of_cells(some)))} "
        f"WHERE {within(some)} AND {log.counted.condition} GROUP BY quota_number"
    )
    nothing = Decimal(0)
    found = {
        row["quota_number"]: (
            queries.shortest(row["most"]),
            max(queries.shortest(row["quantity"]), nothing),
        )
        for row in rows
    }
    return [found.get(number, (nothing, nothing)) for number in range(len(some))]


async def _cuts(log: _Log, some: Sequence[Cell]) -> list[Cut]:
    """Where the quotas of cells were full."""
    if log.counted.is_distinct:
        return await _cuts_of_values(log, some)
    walks = [Walk(cell, cell.limit) for cell in some]
    # Whole segments that fit are passed over by their sums; only where something in one does not,
    # its events are looked at one by one.
    ahead = dict.fromkeys(range(len(walks)), 0)
    while ahead:
        going = [(walks[number], ahead[number]) for number in ahead]
        found = await _next_segments(log, going)
        numbers = list(ahead)
        there = [(numbers[at], *place) for at, place in found.items()]
        ahead = {number: segment_id + 1 for number, segment_id, _ in there}
        for number, _, before in there:
            walks[number].room -= before
        await _walk(log, [(walks[number], segment_id) for number, segment_id, _ in there])
    return [Cut(walk.cell, tuple(walk.phases)) for walk in walks if walk.phases]


async def _next_segments(
    log: _Log, going: Sequence[tuple[Walk, int]]
) -> dict[int, tuple[int, Decimal]]:
    """Of each walk, from a segment on, the next segment in which something may not fit, or fits
    again, and what counts before that; by the place in the list. Absent where there is none."""
    columns = _going(going)
    columns += [
        ("quota_room", _UNITS, [walk.room for walk, _ in going]),
        ("quota_threshold", _UNITS, [walk.threshold for walk, _ in going]),
    ]
    # Without corrections there is never more room again: what is above it stays blocked.
    fitting = "" if log.meter.allows_negative else "AND value <= quota_threshold"
    rows = await log.rows(
        "SELECT quota_number, segment_id, before FROM ("
        "SELECT *, sum(brought) OVER (PARTITION BY quota_number ORDER BY segment_id "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - brought AS before FROM ("
        "SELECT quota_number, segment_id, any(quota_room) AS room, "
        "sumIf(value, value <= quota_threshold) AS brought, "
        f"sumIf(value, value <= quota_threshold AND value > {_NOTHING}) AS rose, "
        "countIf(value > quota_threshold) AS above, minIf(value, value > quota_threshold) AS least "
        f"FROM (SELECT *, {log.counted.value} AS value FROM {joined(cells_table(columns))} "
        f"WHERE {within([walk.cell for walk, _ in going])} AND segment_id >= quota_from "
        f"AND {log.counted.condition} {fitting}) GROUP BY quota_number, segment_id)) "
        "WHERE rose > room - before OR above > 0 AND least <= room - before + rose - brought "
        "ORDER BY segment_id LIMIT 1 BY quota_number"
    )
    return {row["quota_number"]: (row["segment_id"], row["before"]) for row in rows}


async def _walk(log: _Log, going: Sequence[tuple[Walk, int]]) -> None:
    """Show each walk the events of one segment."""
    if not going:
        return
    segments = sorted({segment_id for _, segment_id in going})
    rows = await log.rows(
        f"SELECT quota_number, segment_id, position, {log.counted.value} AS value "
        f"FROM {joined(cells_table(_going(going)))} "
        f"WHERE {within([walk.cell for walk, _ in going])} AND segment_id = quota_from "
        "AND segment_id IN {segments:Array(UInt64)} "
        f"AND {log.counted.condition} ORDER BY quota_number, position",
        segments=segments,
    )
    for row in rows:
        walk, _ = going[row["quota_number"]]
        walk.see(row["segment_id"], row["position"], queries.shortest(row["value"]))


def _going(going: Sequence[tuple[Walk, int]]) -> list[Column]:
    return [
        *of_cells([walk.cell for walk, _ in going]),
        ("quota_from", "UInt64", [segment_id for _, segment_id in going]),
    ]


async def _cuts_of_values(log: _Log, some: Sequence[Cell]) -> list[Cut]:
    """The place of the first value that is one too many: a value that was counted before never
    blocks."""
    if not some:
        return []
    columns = of_cells(some)
    columns.append(("quota_values", "UInt64", [int(cell.limit) for cell in some]))
    rows = await log.rows(
        "SELECT quota_number, arraySort(groupArray(first))[any(room) + 1] AS place FROM ("
        f"SELECT quota_number, any(quota_values) AS room, min((segment_id, position)) AS first "
        f"FROM {joined(cells_table(columns))} WHERE {within(some)} AND {log.counted.condition} "
        f"GROUP BY quota_number, {log.counted.text}) "
        "GROUP BY quota_number HAVING count() > any(room) ORDER BY quota_number"
    )
    return [Cut(some[row["quota_number"]], (_full_at(row["place"]),)) for row in rows]


def _full_at(place: tuple[int, int]) -> Phase:
    segment_id, position = place
    return Phase(segment_id, position, Decimal(0))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
