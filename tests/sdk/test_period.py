"""Periods: half-open, in UTC, exact."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, Period, divide, exact

NOVEMBER = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
INSTANT = timedelta(microseconds=1)


def test_a_period_has_its_start_and_not_its_end() -> None:
    assert NOVEMBER.contains(NOVEMBER.start)
    assert NOVEMBER.contains(NOVEMBER.end - INSTANT)
    assert not NOVEMBER.contains(NOVEMBER.end)
    assert not NOVEMBER.contains(NOVEMBER.start - INSTANT)


def test_the_overlap_is_what_both_contain() -> None:
    late = Period(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 12, 20, tzinfo=UTC))
    assert NOVEMBER.overlap(late) == Period(late.start, NOVEMBER.end) == late.overlap(NOVEMBER)
    assert NOVEMBER.overlap(Period(NOVEMBER.end, late.end)) is None


def test_bounds_need_a_zone_and_an_order() -> None:
    with pytest.raises(Invalid, match="needs a zone") as refused:
        Period(datetime(2026, 11, 1), NOVEMBER.end)  # noqa: DTZ001 — the point of the test.
    assert (refused.value.code, refused.value.field) == ("BAD_PERIOD", "start")
    for end in (NOVEMBER.start, NOVEMBER.start - INSTANT):
        with pytest.raises(Invalid) as refused:
            Period(NOVEMBER.start, end)
        assert refused.value.field == "end"


def test_other_zones_become_utc() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    period = Period(
        datetime(2026, 11, 1, 1, tzinfo=berlin), datetime(2026, 12, 1, 1, tzinfo=berlin)
    )
    assert period == NOVEMBER
    assert period.start.tzinfo is UTC
    east = timezone(timedelta(hours=2))
    assert Period(datetime(2026, 11, 1, 2, tzinfo=east), NOVEMBER.end) == NOVEMBER


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25), (6, 1, 24)])
def test_a_local_day_lasts_as_long_as_it_lasts(month: int, day: int, hours: int) -> None:
    start = datetime(2026, month, day, tzinfo=ZoneInfo("Europe/Berlin"))
    assert Period(start, start + timedelta(days=1)).seconds == hours * 3600


def test_lengths_are_exact_to_the_microsecond() -> None:
    assert Period(NOVEMBER.start, NOVEMBER.start + INSTANT).seconds == Decimal("0.000001")


def test_a_fraction_is_of_a_period_that_contains_it() -> None:
    half = Period(NOVEMBER.start, datetime(2026, 11, 16, tzinfo=UTC))
    assert half.fraction_of(NOVEMBER) == Decimal("0.5")
    assert NOVEMBER.fraction_of(NOVEMBER) == 1
    third = Period(NOVEMBER.start, datetime(2026, 11, 11, tzinfo=UTC))
    assert third.fraction_of(NOVEMBER) == divide(Decimal(1), Decimal(3))
    with pytest.raises(Invalid, match="not inside"):
        NOVEMBER.fraction_of(half)


@given(st.lists(st.integers(1, 30 * 86_400 * 10**6 - 1), max_size=5, unique=True))
def test_the_fractions_of_all_parts_make_the_whole(cuts: list[int]) -> None:
    moments = [NOVEMBER.start + cut * INSTANT for cut in sorted(cuts)]
    bounds = [NOVEMBER.start, *moments, NOVEMBER.end]
    parts = [Period(start, end) for start, end in itertools.pairwise(bounds)]
    assert sum(part.seconds for part in parts) == NOVEMBER.seconds
    with exact():
        fractions = sum((part.fraction_of(NOVEMBER) for part in parts), Decimal(0))
    assert abs(fractions - 1) < Decimal("1E-27")
