"""Stage 5, in aggregation: where in the log a quota that blocks is full, and what is left out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from aforo.catalog.models import Aggregation, Entitlement, QuotaPolicy, QuotaReset
from aforo.catalog.quota_terms import BLOCKABLE
from aforo.metering.aggregate import EVENTS, Selection
from aforo.metering.grants import QuotaGrant
from aforo.sdk.period import Period

WINDOW_MIN = timedelta(hours=1)
"""Shorter windows are rates, and those that slide are estimates: they gate, and block nothing."""
ANYTHING = Decimal(10) ** 60
"""More than any room."""


class Phase(NamedTuple):
    """From this place of the log on, until the next phase, an event is blocked that brings more
    than `room`."""

    segment_id: int
    position: int
    room: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The events of a customer whose moment is in a stretch of time, and the quota for them."""

    customer_id: UUID
    grant: QuotaGrant
    period: Period
    limit: Decimal
    """With what is carried on."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A cell whose quota was not enough, with what is blocked of it."""

    cell: Cell
    phases: tuple[Phase, ...]
    """In the order of the log. What is before the first of them counts."""


@dataclass(slots=True)
class Walk:
    """A cell on the way through the log."""

    cell: Cell
    room: Decimal
    """What is left. An event that does not fit is blocked as a whole, and uses nothing up."""
    phases: list[Phase] = field(default_factory=list)

    @property
    def threshold(self) -> Decimal:
        """What an event may bring in the phase that is running."""
        return self.phases[-1].room if self.phases else ANYTHING

    def see(self, segment_id: int, position: int, value: Decimal) -> None:
        """Decide on the next event."""
        fits = value <= self.room
        if fits is not (value <= self.threshold):
            self.phases.append(Phase(segment_id, position, self.room))
        if fits:
            self.room -= value


def cells(grants: Iterable[QuotaGrant], period: Period) -> Iterator[Cell]:
    """The windows that a period touches of a customer's quotas over one meter, where they block.

    Of several quotas at one moment the most generous decides; a window lasts only as long as its
    quota does. The limits are without what is carried on.
    """
    for grant, stretch in _stretches(list(grants)):
        if not blocks(grant.entitlement, grant.meter.aggregation):
            continue
        at, end = max(stretch.start, period.start), min(stretch.end, period.end)
        while at < end:
            window = grant.at(at).period
            part = window.overlap(stretch)
            assert part is not None, "the moment is in both"
            limit = grant.entitlement.quota or Decimal(0)
            yield Cell(customer_id=grant.customer_id, grant=grant, period=part, limit=limit)
            at = window.end


def blocks(terms: Entitlement, aggregation: Aggregation) -> bool:
    """Whether a quota decides in the log what is blocked, and not at the gate alone."""
    return (
        terms.policy is QuotaPolicy.BLOCK
        and aggregation in BLOCKABLE
        and terms.reset is not QuotaReset.SLIDING
        and (terms.reset_seconds is None or timedelta(seconds=terms.reset_seconds) >= WINDOW_MIN)
    )


def counted_events(counted: Selection, where: str, cuts: Sequence[Cut]) -> str:
    """A table expression: the events that a meter counts, of those asked for. What is blocked is
    left out."""
    if not cuts:
        return f"(SELECT * FROM {EVENTS} WHERE {where} AND {counted.condition})"
    return (
        f"(SELECT event.* FROM {_beside(cuts, kind='LEFT')} "
        f"WHERE {where} AND {counted.condition} AND NOT ({_is_blocked(counted, cuts)}))"
    )


def blocked_events(counted: Selection, where: str, cuts: Sequence[Cut]) -> str:
    """A table expression: those that are blocked, with `quota_number`, the number of their cut."""
    assert cuts, "nothing is blocked without a cut"
    return (
        f"(SELECT event.*, quota_number FROM {_beside(cuts, kind='INNER')} "
        f"WHERE {where} AND {counted.condition} AND {_is_blocked(counted, cuts)})"
    )


Column = tuple[str, str, Sequence[object]]
"""Name, type and values."""


def cells_table(columns: Sequence[Column]) -> str:
    """Cells, with what is known of them, as a table.

    They stand in the statement's text, because a thousand of them are more than the address of a
    request takes; ids, numbers and moments of ours need no quoting.
    """
    arrays = ", ".join(f"CAST({_literal(values)}, 'Array({kind})')" for _, kind, values in columns)
    names = ", ".join(f"row.{number} AS {name}" for number, (name, _, _) in enumerate(columns, 1))
    return f"(SELECT {names} FROM (SELECT arrayJoin(arrayZip({arrays})) AS row))"


def of_cells(some: Sequence[Cell]) -> list[Column]:
    """The columns by which `joined` finds an event's cell."""
    return [
        ("quota_number", "UInt32", list(range(len(some)))),
        ("quota_customer", "UUID", [each.customer_id for each in some]),
        ("quota_start", _MOMENT, [each.period.start for each in some]),
        ("quota_end", _MOMENT, [each.period.end for each in some]),
    ]


def within(some: Sequence[Cell]) -> str:
    """A condition on events beside their cells: they are in them."""
    customers = ", ".join(sorted({f"'{each.customer_id}'" for each in some}))
    start, end = (
        f"toDateTime64({_one(moment)}, 6, 'UTC')"
        for moment in (
            min(each.period.start for each in some),
            max(each.period.end for each in some),
        )
    )
    return (
        f"occurred_at < quota_end AND customer_id IN ({customers}) "
        f"AND occurred_at >= {start} AND occurred_at < {end}"
    )


def joined(table: str, *, kind: str = "INNER") -> str:
    """A table expression: events beside the cell that they may be in: it begins before them, and
    whether they are before its end is still to be asked."""
    return (
        f"{EVENTS} AS event ASOF {kind} JOIN {table} AS quota "
        "ON event.customer_id = quota.quota_customer AND event.occurred_at >= quota.quota_start"
    )


def _beside(cuts: Sequence[Cut], *, kind: str) -> str:
    columns = of_cells([cut.cell for cut in cuts])
    for name, type_, number in (
        ("quota_segments", "UInt64", 0),
        ("quota_positions", "UInt32", 1),
        ("quota_rooms", "Decimal(76, 12)", 2),
    ):
        values = [[phase[number] for phase in cut.phases] for cut in cuts]
        columns.append((name, f"Array({type_})", values))
    return joined(cells_table(columns), kind=kind)


_MOMENT = "DateTime64(6, \\'UTC\\')"
_PHASE = (
    "arrayCount((segment, place) -> (segment, place) <= (segment_id, position), "
    "quota_segments, quota_positions)"
)


def _is_blocked(counted: Selection, cuts: Sequence[Cut]) -> str:
    """A condition on events beside their cells."""
    cut = f"occurred_at < quota_end AND {_PHASE} > 0"
    if not counted.is_distinct:
        return f"{cut} AND {counted.value} > quota_rooms[{_PHASE}]"
    # A value that was counted before the quota was full is counted ever after.
    known = (
        f"SELECT quota_number, {counted.text} FROM {_beside(cuts, kind='INNER')} "
        f"WHERE {within([cut.cell for cut in cuts])} AND {_PHASE} = 0 AND {counted.condition}"
    )
    return f"{cut} AND (quota_number, {counted.text}) NOT IN ({known})"


def _stretches(grants: Sequence[QuotaGrant]) -> Iterator[tuple[QuotaGrant, Period]]:
    """Which of a customer's quotas decides, and when."""
    lives = {id(grant): grant.life.whole for grant in grants}
    edges = sorted({edge for life in lives.values() for edge in (life.start, life.end)})
    last: tuple[QuotaGrant, Period] | None = None
    for start, end in pairwise(edges):
        running = [grant for grant in grants if lives[id(grant)].contains(start)]
        if not running:
            continue
        best = max(running, key=lambda grant: grant.generosity)
        if last is not None and last[0] is best and last[1].end == start:
            last = best, replace(last[1], end=end)
            continue
        if last is not None:
            yield last
        last = best, Period(start, end)
    if last is not None:
        yield last


def _literal(values: Sequence[object]) -> str:
    return f"[{', '.join(map(_one, values))}]"


def _one(value: object) -> str:
    match value:
        case list():
            return _literal(value)
        case int():
            return str(value)
        case Decimal():
            return f"'{value:f}'"
        case datetime():
            return f"'{value.strftime('%Y-%m-%d %H:%M:%S.%f')}'"
        case _:
            return f"'{value}'"
