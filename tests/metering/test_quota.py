"""Stage 5: the counter beside the quota, and when it must be read from the aggregate again."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.catalog.models import Aggregation
from aforo.metering.quota import QuotaCounter, QuotaUse, advanced


@pytest.mark.parametrize(
    ("used", "remaining", "overage"),
    [
        ("0", "100", "0"),
        ("99.5", "0.5", "0"),
        ("100", "0", "0"),  # The 100th unit is in,
        ("101", "0", "1"),  # the 101st is overage.
        ("130", "0", "30"),
    ],
)
def test_a_quota_is_used_up_before_there_is_overage(
    used: str, remaining: str, overage: str
) -> None:
    use = QuotaUse(limit=Decimal(100), used=Decimal(used))
    assert (use.remaining, use.overage) == (Decimal(remaining), Decimal(overage))


quantities = st.decimals(-1000, 1000, places=3)


@given(limit=st.decimals(0, 1000, places=3), used=quantities)
def test_used_is_what_is_in_the_quota_and_beyond_it(limit: Decimal, used: Decimal) -> None:
    use = QuotaUse(limit=limit, used=used)
    assert use.remaining >= 0
    assert use.overage >= 0
    assert use.used == limit - use.remaining + use.overage


@pytest.mark.parametrize(
    ("aggregation", "used"),
    [
        (Aggregation.SUM, "17"),
        (Aggregation.COUNT, "17"),
        (Aggregation.MAX, "10"),
    ],
)
def test_a_counter_that_has_seen_every_segment_is_moved_on(
    aggregation: Aggregation, used: str
) -> None:
    moved = advance(QuotaCounter(Decimal(10), 4), aggregation)
    assert moved == QuotaCounter(Decimal(used), 6)


def test_the_largest_value_is_kept_by_a_maximum() -> None:
    moved = advance(QuotaCounter(Decimal(2), 4), Aggregation.MAX)
    assert moved == QuotaCounter(Decimal(5), 6)


@pytest.mark.parametrize("aggregation", [Aggregation.UNIQUE, Aggregation.LATEST])
def test_what_cannot_be_added_is_read_from_the_aggregate(aggregation: Aggregation) -> None:
    assert advance(QuotaCounter(Decimal(10), 4), aggregation) is None


@pytest.mark.parametrize("counter", [None, QuotaCounter(Decimal(10), 3)])
@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_a_counter_that_is_lost_or_missed_a_segment_is_read_from_the_aggregate(
    counter: QuotaCounter | None, aggregation: Aggregation
) -> None:
    assert advance(counter, aggregation) is None


@pytest.mark.parametrize("segment", [6, 7])
@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_a_segment_that_was_seen_is_not_counted_again(
    segment: int, aggregation: Aggregation
) -> None:
    counter = QuotaCounter(Decimal(10), segment)
    assert advance(counter, aggregation) == counter


def advance(counter: QuotaCounter | None, aggregation: Aggregation) -> QuotaCounter | None:
    """Move a counter on by segment 6, which follows 4, with 2 + 5 units."""
    return advanced(
        counter,
        aggregation=aggregation,
        brought=[Decimal(2), Decimal(5)],
        previous_segment=4,
        segment_id=6,
    )
