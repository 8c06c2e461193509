"""What follows from an answer: delivered, tried again at a stated time, given up, or gone."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

PAUSES = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Before each try, since the end of the one before: 75 h 35 min in all."""
TRIES_MAX = len(PAUSES)
RETRY_AFTER_MAX = timedelta(hours=24)
"""Longer wishes of an endpoint are cut to this."""
WARNED_AFTER = 3
"""Deliveries given up without a success in between, before the owner is warned."""
DISABLED_AFTER = timedelta(days=5)
"""From the warning on, before an endpoint that goes on failing is disabled."""

_SECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)


class Verdict(Enum):
    """What a call came to."""

    DELIVERED = "delivered"
    AGAIN = "again"
    EXHAUSTED = "exhausted"
    GONE = "gone"


def verdict(status: int | None, *, tries: int) -> Verdict:
    """What follows from the answer to try number `tries`; None where there was no answer."""
    if status is not None and 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 410:
        return Verdict.GONE
    return Verdict.AGAIN if tries < TRIES_MAX else Verdict.EXHAUSTED


def next_try(now: datetime, *, tries: int, quiet_until: datetime | None) -> datetime:
    """When to try again after `tries` failures; not before the endpoint wants to be called."""
    planned = now + PAUSES[tries]
    return planned if quiet_until is None else max(planned, quiet_until)


def retry_after(header: str | None, *, status: int | None, now: datetime) -> datetime | None:
    """Until when an endpoint asks to be left alone: seconds or a date, at most 24 hours.

    It counts with every answer that is no success; what cannot be read counts for nothing.
    """
    if not header or status is None or 200 <= status < 300:
        return None
    if _SECONDS.fullmatch(header):
        wished = timedelta(seconds=int(header))
    else:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        wished = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    return now + min(wished, RETRY_AFTER_MAX) if wished > timedelta(0) else None


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint has been doing since its last success."""

    exhausted: int
    warned_at: datetime | None


class Measure(Enum):
    """What an endpoint that fails has coming."""

    NONE = "none"
    WARN = "warn"
    DISABLE = "disable"


def measure(health: Health, now: datetime) -> Measure:
    """What follows where one more delivery was given up, which `health` counts already."""
    if health.warned_at is None:
        return Measure.WARN if health.exhausted >= WARNED_AFTER else Measure.NONE
    return Measure.DISABLE if now >= health.warned_at + DISABLED_AFTER else Measure.NONE
