"""Billing periods: months that start at local midnight on the anchor day, kept in UTC."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from aforo.sdk import Invalid, Period

PERIODS_MAX = 1200
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class PeriodPart:
    """What a subscription lived of one billing period; the whole, unless it started or ended
    within."""

    part: Period
    whole: Period

    @property
    def fraction(self) -> Decimal:
        """The share of the period that was lived, by seconds: above 0, at most 1."""
        return self.part.fraction_of(self.whole)


def billing_period(*, anchor_day: int, time_zone: str, at: datetime) -> Period:
    """The one billing period that contains `at`.

    `anchor_day` is 1 to 31, and the last day in a month that is shorter; `time_zone` is an IANA
    zone that exists. Days of a clock change last 23 or 25 hours.
    """
    zone = ZoneInfo(time_zone)
    # From the month after, because a clock set back may show an earlier day than the boundary.
    month = _month_number(at.astimezone(zone)) + 1
    while (start := _boundary(month, anchor_day, zone)) > at:
        month -= 1
    return Period(start, _boundary(month + 1, anchor_day, zone))


def part_at(
    *, anchor_day: int, time_zone: str, starts_at: datetime, ends_at: datetime | None, at: datetime
) -> PeriodPart:
    """What a subscription lives of the billing period of a moment within its life."""
    whole = billing_period(anchor_day=anchor_day, time_zone=time_zone, at=at)
    part = whole.overlap(Period(starts_at, whole.end if ends_at is None else ends_at))
    assert part is not None, "the moment is in both"
    return PeriodPart(part, whole)


def periods_between(
    *, anchor_day: int, time_zone: str, start: datetime, until: datetime
) -> list[PeriodPart]:
    """The billing periods that touch `[start, until)`, in order, cut at both ends.

    The parts tile `[start, until)`: no gap, no overlap. Empty where `until` is not after `start`.
    Raises `Invalid` (code `BAD_PERIOD`) for more than `PERIODS_MAX` periods.
    """
    parts: list[PeriodPart] = []
    at, until = start.astimezone(UTC), until.astimezone(UTC)
    while at < until:
        if len(parts) == PERIODS_MAX:
            raise Invalid(
                f"from {start.isoformat()} to {until.isoformat()} there are more than "
                f"{PERIODS_MAX} billing periods; ask for a shorter time",
                code="BAD_PERIOD",
            )
        whole = billing_period(anchor_day=anchor_day, time_zone=time_zone, at=at)
        parts.append(PeriodPart(Period(at, min(whole.end, until)), whole))
        at = whole.end
    return parts


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day in a zone, in UTC.

    Where the clocks skip midnight, or the whole day, it is the first moment after the gap; where
    they show midnight twice it is the first one.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first, second = (midnight.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if first <= second:
        return first
    # In a gap the two readings swap: by the offset before the change midnight lies after it, by
    # the offset after the change it lies before. Halve the time between until the change is left.
    before, after = second, first
    offset = after.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _boundary(month_number: int, anchor_day: int, zone: ZoneInfo) -> datetime:
    year, month = divmod(month_number, 12)
    last_day = monthrange(year, month + 1)[1]
    return local_midnight(date(year, month + 1, min(anchor_day, last_day)), zone)
