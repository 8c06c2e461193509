"""When quotas begin anew: the window of a moment, and what earlier windows still count for it."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_UP, Decimal
from zoneinfo import ZoneInfo

from aforo.catalog.models import CalendarUnit, QuotaReset
from aforo.sdk.money import QUANTITY_DECIMALS_MAX
from aforo.sdk.period import Period
from aforo.subscriptions.periods import billing_period, local_midnight

ENDLESS = timedelta(days=366 * 100)
"""For a subscription that nobody has ended: longer than anybody asks."""
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What windows are measured by: a subscription, and the calendar of its customer."""

    starts_at: datetime
    ends_at: datetime | None
    anchor_day: int
    time_zone: str

    @property
    def whole(self) -> Period:
        return Period(self.starts_at, self.ends_at or self.starts_at + ENDLESS)

    def contains(self, at: datetime) -> bool:
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """When a quota begins anew."""

    kind: QuotaReset
    unit: CalendarUnit | None = None
    seconds: int | None = None

    @property
    def name(self) -> str:
        """Tells the windows of one kind of reset from those of another that start together."""
        return f"{self.kind.value}{self.unit.value if self.unit else ''}{self.seconds or ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The stretch of time whose usage is held against a quota at a moment."""

    period: Period
    """Cut where the subscription starts or ends: usage under the one before it is not held
    against this one's quota."""
    resets_at: datetime | None
    """When the quota begins anew; None: never, or never all at once."""
    before: Period | None = None
    """Of a sliding window: the one before this, of which a part still counts."""
    part_of_before: Decimal = Decimal(0)


def window_at(reset: Reset, life: Life, at: datetime) -> Window:
    """The window of a moment within the subscription's life.

    A sliding window is estimated from two fixed ones: this one, and of the one before it the share
    that the sliding window still covers, as if its usage had been spread evenly.
    """
    match reset.kind:
        case QuotaReset.NEVER:
            return Window(period=life.whole, resets_at=life.ends_at)
        case QuotaReset.FIXED:
            return _cut(_fixed(life.starts_at, reset.seconds, at), life)
        case QuotaReset.SLIDING:
            return _sliding(life, reset.seconds, at)
        case QuotaReset.CALENDAR:
            return _cut(_calendar(reset.unit, ZoneInfo(life.time_zone), at), life)
        case QuotaReset.BILLING_PERIOD:
            whole = billing_period(anchor_day=life.anchor_day, time_zone=life.time_zone, at=at)
            return _cut(whole, life)


def windows_until(reset: Reset, life: Life, at: datetime, *, most: int) -> list[Period]:
    """The windows that ended before that of a moment, the oldest first; the last `most`."""
    found: list[Period] = []
    start = window_at(reset, life, at).period.start
    while len(found) < most and start > life.starts_at:
        earlier = window_at(reset, life, start - timedelta(microseconds=1)).period
        found.append(earlier)
        start = earlier.start
    return found[::-1]


def _cut(whole: Period, life: Life) -> Window:
    part = whole.overlap(life.whole)
    assert part is not None, "the moment is in both"
    return Window(period=part, resets_at=whole.end)


def _sliding(life: Life, seconds: int | None, at: datetime) -> Window:
    now = _fixed(life.starts_at, seconds, at)
    length = now.end - now.start
    gone = Period(now.start, at).fraction_of(now) if at > now.start else Decimal(0)
    # Upwards: an estimate errs on the side of what was used.
    left = (1 - gone).quantize(Decimal(1).scaleb(-QUANTITY_DECIMALS_MAX), rounding=ROUND_UP)
    before = Period(now.start - length, now.start).overlap(life.whole)
    return Window(period=_cut(now, life).period, resets_at=None, before=before, part_of_before=left)


def _fixed(start: datetime, seconds: int | None, at: datetime) -> Period:
    assert seconds is not None, "the catalogue sees to it"
    length = timedelta(seconds=seconds)
    begun = start + (at - start) // length * length
    return Period(begun, begun + length)


def _calendar(unit: CalendarUnit | None, zone: ZoneInfo, at: datetime) -> Period:
    assert unit is not None, "the catalogue sees to it"
    local = at.astimezone(zone)
    if unit is CalendarUnit.HOUR:
        start = at - timedelta(
            minutes=local.minute, seconds=local.second, microseconds=local.microsecond
        )
        return Period(start, start + _HOUR)
    # From the day after, because a clock set back may show an earlier day than the boundary.
    day = _first_day(unit, local.date() + _DAY)
    while (begun := local_midnight(day, zone)) > at:
        day = _first_day(unit, day - _DAY)
    return Period(begun, local_midnight(_next_day(unit, day), zone))


def _first_day(unit: CalendarUnit, day: date) -> date:
    match unit:
        case CalendarUnit.WEEK:
            return day - day.weekday() * _DAY
        case CalendarUnit.MONTH:
            return day.replace(day=1)
        case _:
            return day


def _next_day(unit: CalendarUnit, day: date) -> date:
    match unit:
        case CalendarUnit.WEEK:
            return day + 7 * _DAY
        case CalendarUnit.MONTH:
            return (day + 31 * _DAY).replace(day=1)
        case _:
            return day + _DAY
