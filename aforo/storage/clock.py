"""The one clock: nothing else in Aforo asks the machine for the time."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present moment, in UTC."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class MovableClock:
    """A clock that stands where it is put, so that a test can cross a month in no time."""

    def __init__(self, start: datetime) -> None:
        assert start.tzinfo is not None, "a clock shows a moment, and a moment has a zone"
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        return self._now

    def move_to(self, moment: datetime) -> None:
        """Stand at another moment, also an earlier one."""
        self._now = moment.astimezone(UTC)

    def advance(self, by: timedelta) -> None:
        """Stand later by that much."""
        self._now += by
