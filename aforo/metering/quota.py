"""Stage 5, quota check: the live counter, advisory, reconciled against the aggregate."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from aforo.catalog.models import Aggregation


@dataclass(frozen=True, slots=True)
class QuotaCounter:
    """What a customer used of one meter in one period, as of a segment."""

    used: Decimal
    segment_id: int


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """A quota beside its use: the 100th unit of 100 is in, the 101st is overage."""

    limit: Decimal
    used: Decimal

    @property
    def remaining(self) -> Decimal:
        """Units left, never below 0."""
        return max(self.limit - self.used, Decimal(0))

    @property
    def overage(self) -> Decimal:
        """Units beyond the quota."""
        return max(self.used - self.limit, Decimal(0))


def advanced(
    counter: QuotaCounter | None,
    *,
    aggregation: Aggregation,
    brought: Sequence[Decimal],
    previous_segment: int,
    segment_id: int,
    limit: Decimal | None = None,
) -> QuotaCounter | None:
    """The counter after one more segment, or None where it must be read from the aggregate.

    `brought` is what each event of the segment brings, in its order. Where the quota blocks, what
    does not fit into `limit` is not counted. Only a counter that has seen every segment before
    this one can be moved on by what the segment brought; distinct values cannot be added at all,
    and which value is the latest depends on when each event happened.
    """
    if counter is None or counter.segment_id < previous_segment:
        return None
    if counter.segment_id >= segment_id:
        return counter
    match aggregation:
        case Aggregation.SUM | Aggregation.COUNT:
            used = counter.used
            for units in brought:
                used += units if limit is None or used + units <= limit else 0
            return QuotaCounter(used, segment_id)
        case Aggregation.MAX:
            return QuotaCounter(max(counter.used, *brought), segment_id)
        case Aggregation.UNIQUE | Aggregation.LATEST:
            return None
