"""Which periods of a subscription can be billed, and when to look at it next."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aforo.subscriptions.periods import PeriodPart, billing_period, periods_between


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingLife:
    """When a subscription is billed."""

    anchor_day: int
    time_zone: str
    billed_until: datetime
    """End of the last period with a final invoice; at first the start."""
    ends_at: datetime | None
    grace: timedelta
    """How long after a period's end its invoice stays a draft."""


def ended_parts(life: BillingLife, until: datetime) -> list[PeriodPart]:
    """The periods not billed yet that had ended by `until`, the oldest first.

    The first is cut where the subscription started, the last where it ended. Raises `Invalid`,
    code `BAD_PERIOD`, for more of them than `periods_between` gives.
    """
    last = until if life.ends_at is None else min(until, life.ends_at)
    parts = periods_between(
        anchor_day=life.anchor_day,
        time_zone=life.time_zone,
        start=life.billed_until,
        until=last,
    )
    # `until` itself ends nothing: a part that it cuts still runs.
    return [part for part in parts if part.part.end in (part.whole.end, life.ends_at)]


def next_moment(lives: Iterable[BillingLife], after: datetime) -> datetime | None:
    """The first moment past `after` at which a period ends or its grace is over; None if never."""
    return min((at for life in lives for at in _moments(life, after) if at > after), default=None)


def _moments(life: BillingLife, after: datetime) -> Iterable[datetime]:
    for part in ended_parts(life, after):
        yield part.part.end + life.grace
    if life.ends_at is None or life.ends_at > after:
        at = max(after, life.billed_until)
        end = billing_period(anchor_day=life.anchor_day, time_zone=life.time_zone, at=at).end
        yield end if life.ends_at is None else min(end, life.ends_at)
