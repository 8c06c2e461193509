"""A period is cut into days of UTC, quarters of an hour and edges, and loses no moment."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.rollup import SPAN_SEGMENTS_MAX, cut
from aforo.metering.steps import DAY, QUARTER, STRETCHES_MAX, Bucket, next_quarter, stretches
from aforo.sdk.period import Period

UTC_ZONE = ZoneInfo("UTC")
ZONES = ["UTC", "America/New_York", "Asia/Kathmandu", "America/Santiago", "Australia/Lord_Howe"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_STARTS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
moments = st.integers(0, 2 * 365 * 86_400_000_000).map(
    lambda micros: EPOCH + timedelta(seconds=YEAR_STARTS, microseconds=micros)
)
periods = st.tuples(moments, moments).filter(lambda both: both[0] != both[1])
buckets = st.sampled_from([None, *Bucket])
zones = st.sampled_from(ZONES).map(ZoneInfo)


@given(periods, buckets, zones)
def test_the_stretches_are_the_period_and_no_moment_is_in_two(
    both: tuple[datetime, datetime], bucket: Bucket | None, zone: ZoneInfo
) -> None:
    period = Period(min(both), max(both))
    found = stretches(period, bucket, zone)
    pieces = sorted([*found.days, *found.quarters, *found.edges], key=lambda one: one.start)
    assert pieces[0].start == period.start
    assert pieces[-1].end == period.end
    for piece, following in pairwise(pieces):
        assert piece.end == following.start
    for width, whole in ((DAY, found.days), (QUARTER, found.quarters)):
        for one in whole:
            assert not (one.start - EPOCH) % width
            assert not (one.end - EPOCH) % width
    assert sum(((one.end - one.start) for one in found.edges), timedelta()) < 2 * QUARTER
    assert len(found.days) + len(found.quarters) <= STRETCHES_MAX


@given(periods, st.sampled_from([Bucket.DAY, Bucket.WEEK, Bucket.MONTH]), zones)
def test_no_day_of_utc_reaches_into_a_second_step(
    both: tuple[datetime, datetime], bucket: Bucket, zone: ZoneInfo
) -> None:
    found = stretches(Period(min(both), max(both)), bucket, zone)
    for stretch in found.days:
        at = stretch.start
        while at < stretch.end:
            last = at + DAY - timedelta(microseconds=1)
            assert _step(at, bucket, zone) == _step(last, bucket, zone)
            at += DAY


@pytest.mark.parametrize(
    ("bucket", "zone", "days", "quarters"),
    [
        (None, "UTC", 1, 0),
        (None, "Asia/Kathmandu", 1, 0),
        (Bucket.MONTH, "UTC", 1, 0),
        (Bucket.DAY, "UTC", 1, 0),
        (Bucket.DAY, "America/New_York", 0, 1),
        (Bucket.HOUR, "UTC", 0, 1),
        (Bucket.MONTH, "America/New_York", 2, 1),
    ],
)
def test_a_series_reads_days_wherever_its_steps_allow(
    bucket: Bucket | None, zone: str, days: int, quarters: int
) -> None:
    two_months = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    found = stretches(two_months, bucket, ZoneInfo(zone))
    # In New York the first of the month has begun at 04:00 or 05:00 UTC, within a day of UTC.
    assert (len(found.days), len(found.quarters) > 0) == (days, quarters > 0)
    assert found.edges == ()


def test_a_period_within_a_quarter_of_an_hour_is_all_edge() -> None:
    start = datetime(2026, 11, 1, 12, 1, tzinfo=UTC)
    period = Period(start, start + timedelta(minutes=13))
    assert stretches(period, None, UTC_ZONE).edges == (period,)


@pytest.mark.parametrize(
    ("minute", "expected"), [(0, (12, 0)), (1, (12, 15)), (15, (12, 15)), (46, (13, 0))]
)
def test_the_next_quarter_is_the_end_of_the_one_that_runs(
    minute: int, expected: tuple[int, int]
) -> None:
    found = next_quarter(datetime(2026, 11, 1, 12, minute, tzinfo=UTC))
    assert (found.hour, found.minute) == expected


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], None),
        ([(3, 99)], None),
        ([(3, 100)], 3),
        ([(3, 1_000_000)], 3),
        ([(3, 60), (5, 39)], None),
        ([(3, 60), (5, 40), (9, 60)], 5),
        ([(number, 0) for number in range(SPAN_SEGMENTS_MAX)], SPAN_SEGMENTS_MAX - 1),
    ],
)
def test_a_span_ends_with_the_segment_that_brings_enough_events(
    segments: list[tuple[int, int]], expected: int | None
) -> None:
    assert cut(segments, 100) == expected


def _step(at: datetime, bucket: Bucket, zone: ZoneInfo) -> str:
    shape = {Bucket.DAY: "%F", Bucket.WEEK: "%G-%V", Bucket.MONTH: "%Y-%m"}[bucket]
    return at.astimezone(zone).strftime(shape)
