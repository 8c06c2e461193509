"""When to send again: what an HTTP status asks for, and how long to wait."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX_SECONDS = 3_600.0
_DOUBLINGS_MAX = 30

AGAIN = frozenset({408, 425, 429})
"""Beside every 5xx: to be sent again as it is."""


def is_passing(status: int) -> bool:
    """Whether the same request may well succeed later, without anybody doing anything."""
    return status in AGAIN or 500 <= status <= 599


def backoff(attempt: int, *, base_seconds: float, max_seconds: float) -> float:
    """A random pause before try `attempt` + 1, so that many clients do not come back at once.

    Between half and all of `base_seconds` × 2^(attempt − 1), which `max_seconds` bounds.
    """
    longest = min(max_seconds, base_seconds * 2.0 ** min(attempt - 1, _DOUBLINGS_MAX))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (Nothing secret hangs on it.)


def retry_after(header: str | None, now: datetime) -> float | None:
    """The seconds that the server asks to wait, at most an hour; None where it does not say."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:10]), RETRY_AFTER_MAX_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), RETRY_AFTER_MAX_SECONDS)
