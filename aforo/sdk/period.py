"""Stretches of time: half-open and in UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from aforo.sdk.errors import Invalid
from aforo.sdk.money import divide

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """The moments from `start` up to but not including `end`, both aware; kept in UTC.

    Raises `Invalid` (code `BAD_PERIOD`) where a bound has no zone or `end` is not after `start`.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            moment: datetime = getattr(self, name)
            if moment.utcoffset() is None:
                raise Invalid(f"the {name} of a period needs a zone", code="BAD_PERIOD", field=name)
            # Differences within any other zone count wall-clock time and lose an hour at DST.
            object.__setattr__(self, name, moment.astimezone(UTC))
        if self.end <= self.start:
            raise Invalid(
                f"a period ends after it starts, not {self.start} to {self.end}",
                code="BAD_PERIOD",
                field="end",
            )

    def contains(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def overlap(self, other: "Period") -> "Period | None":
        """The moments in both, or None if there are none."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None

    @property
    def seconds(self) -> Decimal:
        """The length, exact to the microsecond."""
        return Decimal(_microseconds(self)).scaleb(-6)

    def fraction_of(self, whole: "Period") -> Decimal:
        """This period's share of `whole`, which must contain it: above 0, at most 1."""
        if self.start < whole.start or self.end > whole.end:
            raise Invalid(f"{self} is not inside of {whole}", code="BAD_PERIOD")
        return divide(Decimal(_microseconds(self)), Decimal(_microseconds(whole)))

    def __str__(self) -> str:
        return f"[{self.start.isoformat()}, {self.end.isoformat()})"


def _microseconds(period: Period) -> int:
    return (period.end - period.start) // _MICROSECOND
