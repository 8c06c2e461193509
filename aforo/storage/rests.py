"""Work that is asked for again and again rests after each time, as long as it took and more: it has
its share of the time, and leaves the rest to others."""

import time
from collections.abc import Hashable

ENTRIES_MAX = 10_000


class Rests:
    """Until when each kind of work of each tenant rests, in this process."""

    def __init__(self, *, times: float, seconds_max: float) -> None:
        """It rests `times` as long as it took, at most `seconds_max`."""
        self._times = times
        self._seconds_max = seconds_max
        self._until: dict[Hashable, float] = {}

    def begin(self, work: Hashable, *, took_seconds: float) -> None:
        """Let it rest from now on."""
        now = time.monotonic()
        if len(self._until) >= ENTRIES_MAX:
            self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[work] = now + min(took_seconds * self._times, self._seconds_max)

    def hold(self, work: Hashable) -> bool:
        """Whether it still rests."""
        until = self._until.get(work)
        return until is not None and until > time.monotonic()
