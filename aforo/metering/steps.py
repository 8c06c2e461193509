"""The steps of a usage series by the clock of a time zone, and what a period is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from zoneinfo import ZoneInfo

from aforo.sdk.period import Period

QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
STRETCHES_MAX = 200


class Bucket(StrEnum):
    """Widths of a usage series."""

    QUARTER_HOUR = "QUARTER_HOUR"
    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


SHORTEST = {
    Bucket.QUARTER_HOUR: QUARTER,
    Bucket.HOUR: timedelta(hours=1),
    Bucket.DAY: timedelta(hours=23),
    Bucket.WEEK: timedelta(hours=167),
    Bucket.MONTH: timedelta(days=28) - timedelta(hours=1),
}
"""How short a step can be, with a clock that is put forward in it."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """A period cut into stretches of whole days of UTC, of whole quarters of an hour, and what is
    left at its edges. No stretch of days reaches across the start of a step."""

    days: Sequence[Period]
    quarters: Sequence[Period]
    edges: Sequence[Period]


def stretches(period: Period, bucket: Bucket | None, zone: ZoneInfo) -> Stretches:
    """Cut a period for a series of these steps, or for one total of it."""
    start, end = _up(period.start, QUARTER), _down(period.end, QUARTER)
    if start >= end:
        return Stretches((), (), (period,))
    edges = _joined([(period.start, start), (end, period.end)])
    if bucket in {Bucket.QUARTER_HOUR, Bucket.HOUR}:
        return Stretches((), (Period(start, end),), edges)
    days: list[tuple[datetime, datetime]] = []
    quarters: list[tuple[datetime, datetime]] = []
    for left, right in pairwise([start, *_starts_inside(start, end, bucket, zone), end]):
        first, last = _up(left, DAY), _down(right, DAY)
        if first < last:
            days.append((first, last))
            quarters += [(left, first), (last, right)]
        else:
            quarters.append((left, right))
    found = Stretches(_joined(days), _joined(quarters), edges)
    if len(found.days) + len(found.quarters) > STRETCHES_MAX:
        return Stretches((), (Period(start, end),), edges)
    return found


def next_quarter(at: datetime) -> datetime:
    """The end of the quarter of an hour that a moment is in, or the moment itself."""
    return _up(at, QUARTER)


def _starts_inside(
    start: datetime, end: datetime, bucket: Bucket | None, zone: ZoneInfo
) -> Iterator[datetime]:
    """Where steps of days and more start between two moments."""
    local = start.astimezone(zone).date()
    while bucket is not None:
        local = _next(local, bucket)
        # Where the clock jumps over midnight, Python takes the moment of the jump.
        at = datetime.combine(local, time(), zone).astimezone(UTC)
        if at >= end:
            return
        if at > start:
            yield at


def _next(day: date, bucket: Bucket) -> date:
    match bucket:
        case Bucket.WEEK:
            return day + timedelta(days=7 - day.weekday())
        case Bucket.MONTH:
            return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        case _:
            return day + DAY


def _up(at: datetime, width: timedelta) -> datetime:
    """The next multiple of a width since the epoch, or the moment itself."""
    return at + (_EPOCH - at) % width


def _down(at: datetime, width: timedelta) -> datetime:
    return at - (at - _EPOCH) % width


def _joined(bounds: Sequence[tuple[datetime, datetime]]) -> tuple[Period, ...]:
    """The stretches that are not empty, neighbours as one."""
    found: list[Period] = []
    for start, end in bounds:
        if start == end:
            continue
        if found and found[-1].end == start:
            found[-1] = Period(found[-1].start, end)
        else:
            found.append(Period(start, end))
    return tuple(found)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
