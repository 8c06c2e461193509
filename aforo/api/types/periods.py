"""GraphQL of a stretch of time."""

from datetime import datetime

import strawberry

from aforo.sdk import Period


@strawberry.input(description="The moments from `start` up to but not including `end`.")
class PeriodInput:
    start: datetime = strawberry.field(description="The first moment.")
    end: datetime = strawberry.field(description="The first moment after it.")

    def to_period(self) -> Period:
        """Raises `Invalid` where it does not end after it starts."""
        return Period(self.start, self.end)
