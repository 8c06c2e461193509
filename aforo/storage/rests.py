"""Work that is asked for again and again rests after each time, as long as it took and more: it has
its share of the time, and leaves the rest to others."""

import time
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Rests(Generic[Work]):
    """Until when each work rests, in this process."""

    def __init__(self, *, times: float, seconds_max: float) -> None:
        """It rests `times` as long as it took, at most `seconds_max`."""
        self._times = times
        self._seconds_max = seconds_max
        self._until: dict[Work, float] = {}

    def begin(self, work: Work, *, took_seconds: float) -> None:
        """Let it rest from now on."""
        rest = min(took_seconds * self._times, self._seconds_max)
        self._until[work] = time.monotonic() + rest

    def resting(self) -> list[Work]:
        """All that still rests."""
        now = time.monotonic()
        self._until = {each: until for each, until in self._until.items() if until > now}
        return [*self._until]
