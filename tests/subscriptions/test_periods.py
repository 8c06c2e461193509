"""Billing periods over real zones: boundaries by table, tiling by property."""

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, Period
from aforo.subscriptions.periods import (
    PERIODS_MAX,
    billing_period,
    local_midnight,
    part_at,
    periods_between,
)

START = datetime(1990, 1, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
ZONES = (
    "UTC",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Pacific/Auckland",
    "America/Sao_Paulo",
)
ODD_ZONES = (
    *ZONES,
    "America/Havana",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)

# What happens at the midnight    | day        | zone               | first moment, UTC
MIDNIGHTS = """
    an ordinary day               | 2026-11-20 | Asia/Kolkata       | 2026-11-19T18:30:00
    skipped: the clock shows 1:00 | 2018-11-04 | America/Sao_Paulo  | 2018-11-04T03:00:00
    skipped: the clock shows 1:00 | 2022-03-27 | Asia/Beirut        | 2022-03-26T22:00:00
    shown twice                   | 2022-11-06 | America/Havana     | 2022-11-06T04:00:00
    the day does not exist        | 2011-12-30 | Pacific/Apia       | 2011-12-30T10:00:00
    set back from 0:01 to 23:01   | 2005-10-30 | America/St_Johns   | 2005-10-30T02:30:00
    from 23:30 on to 0:00         | 2018-05-05 | Asia/Pyongyang     | 2018-05-04T15:00:00
"""

# anchor | zone                | at                   | start                | end
PERIODS = """
    1    | UTC                 | 2026-11-20T10:00:00  | 2026-11-01T00:00:00  | 2026-12-01T00:00:00
    1    | UTC                 | 2026-12-01T00:00:00  | 2026-12-01T00:00:00  | 2027-01-01T00:00:00
    1    | UTC                 | 2026-11-30T23:59:59  | 2026-11-01T00:00:00  | 2026-12-01T00:00:00
    15   | UTC                 | 2027-01-14T12:00:00  | 2026-12-15T00:00:00  | 2027-01-15T00:00:00
    31   | UTC                 | 2026-02-10T00:00:00  | 2026-01-31T00:00:00  | 2026-02-28T00:00:00
    31   | UTC                 | 2026-03-10T00:00:00  | 2026-02-28T00:00:00  | 2026-03-31T00:00:00
    31   | UTC                 | 2028-02-29T00:00:00  | 2028-02-29T00:00:00  | 2028-03-31T00:00:00
    29   | UTC                 | 2026-02-28T00:00:00  | 2026-02-28T00:00:00  | 2026-03-29T00:00:00
    30   | UTC                 | 2028-02-28T23:00:00  | 2028-01-30T00:00:00  | 2028-02-29T00:00:00
    1    | America/Los_Angeles | 2026-03-31T12:00:00  | 2026-03-01T08:00:00  | 2026-04-01T07:00:00
    1    | Asia/Kolkata        | 2026-10-31T18:30:00  | 2026-10-31T18:30:00  | 2026-11-30T18:30:00
    4    | America/Sao_Paulo   | 2018-11-04T02:59:59  | 2018-10-04T03:00:00  | 2018-11-04T03:00:00
    4    | America/Sao_Paulo   | 2018-11-04T03:00:00  | 2018-11-04T03:00:00  | 2018-12-04T02:00:00
    30   | America/St_Johns    | 2005-10-30T02:45:00  | 2005-10-30T02:30:00  | 2005-11-30T03:30:00
    30   | Pacific/Apia        | 2011-12-30T10:00:00  | 2011-12-30T10:00:00  | 2012-01-29T10:00:00
"""

anchors = st.integers(min_value=1, max_value=31)
microseconds = st.integers(min_value=0, max_value=47 * 365 * 86_400 * 10**6)
moments = microseconds.map(lambda each: START + timedelta(microseconds=each))
lives = st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=1200))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")] for row in table.strip().splitlines()]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("row", cells(MIDNIGHTS), ids=lambda row: f"{row[2]} {row[1]}")
def test_a_local_day_starts_at_its_first_moment(row: list[str]) -> None:
    _, day, zone, moment = row
    assert local_midnight(date.fromisoformat(day), ZoneInfo(zone)) == utc(moment)


@given(
    zone=st.sampled_from(ODD_ZONES).map(ZoneInfo),
    day=st.dates(min_value=date(1980, 1, 1), max_value=date(2037, 1, 1)),
)
def test_no_earlier_minute_belongs_to_the_day(zone: ZoneInfo, day: date) -> None:
    midnight = local_midnight(day, zone)
    assert midnight.astimezone(zone).date() >= day
    hours_before = (midnight - timedelta(minutes=minute) for minute in range(1, 26 * 60, 7))
    assert all(moment.astimezone(zone).date() < day for moment in hours_before)
    assert (midnight - timedelta(microseconds=1)).astimezone(zone).date() < day


@pytest.mark.parametrize("row", cells(PERIODS), ids=lambda row: f"{row[0]} {row[1]} {row[2]}")
def test_a_moment_lies_in_the_period_of_the_table(row: list[str]) -> None:
    anchor, zone, at, start, end = row
    found = billing_period(anchor_day=int(anchor), time_zone=zone, at=utc(at))
    assert found == Period(utc(start), utc(end))


@given(zone=st.sampled_from(ODD_ZONES), anchor=anchors, at=moments)
def test_every_moment_lies_in_exactly_one_period(zone: str, anchor: int, at: datetime) -> None:
    period = billing_period(anchor_day=anchor, time_zone=zone, at=at)
    assert period.contains(at)
    last = period.end - timedelta(microseconds=1)
    assert billing_period(anchor_day=anchor, time_zone=zone, at=period.start) == period
    assert billing_period(anchor_day=anchor, time_zone=zone, at=last) == period
    following = billing_period(anchor_day=anchor, time_zone=zone, at=period.end)
    assert following.start == period.end


@given(zone=st.sampled_from(ZONES), anchor=anchors, start=moments, life=lives)
def test_periods_tile_a_life_without_gap_or_overlap(
    zone: str, anchor: int, start: datetime, life: timedelta
) -> None:
    until = start + life
    parts = periods_between(anchor_day=anchor, time_zone=zone, start=start, until=until)
    assert parts[0].part.start == start
    assert parts[-1].part.end == until
    for before, after in itertools.pairwise(parts):
        assert before.part.end == after.part.start
        assert before.whole.end == after.whole.start
    assert all(each.part == each.whole and each.fraction == 1 for each in parts[1:-1])
    for each in parts:
        assert each.whole.overlap(Period(start, until)) == each.part
        assert 27 <= (each.whole.end - each.whole.start).days <= 32


@given(zone=st.sampled_from(ZONES), anchor=anchors, at=moments, cut=st.floats(0.001, 0.999))
def test_the_two_parts_of_a_period_make_the_whole(
    zone: str, anchor: int, at: datetime, cut: float
) -> None:
    whole = billing_period(anchor_day=anchor, time_zone=zone, at=at)
    middle = whole.start + (whole.end - whole.start) * cut
    first, second = (
        periods_between(anchor_day=anchor, time_zone=zone, start=start, until=until)
        for start, until in ((whole.start, middle), (middle, whole.end))
    )
    assert [each.whole for each in (*first, *second)] == [whole, whole]
    assert abs(first[0].fraction + second[0].fraction - 1) < Decimal("1e-58")


def test_a_part_knows_its_share_of_the_period() -> None:
    start, until = utc("2026-11-16T00:00:00"), utc("2026-12-01T00:00:00")
    (part,) = periods_between(anchor_day=1, time_zone="UTC", start=start, until=until)
    assert part.fraction == Decimal("0.5")


@given(zone=st.sampled_from(ZONES), anchor=anchors, start=moments, life=lives, far=st.floats(0, 1))
def test_the_part_at_a_moment_is_that_of_the_tiles_which_contains_it(
    zone: str, anchor: int, start: datetime, life: timedelta, far: float
) -> None:
    until = start + life
    at = min(start + life * far, until - INSTANT)
    tiles = periods_between(anchor_day=anchor, time_zone=zone, start=start, until=until)
    [expected] = [each for each in tiles if each.part.contains(at)]
    found = part_at(anchor_day=anchor, time_zone=zone, starts_at=start, ends_at=until, at=at)
    assert found == expected
    endless = part_at(anchor_day=anchor, time_zone=zone, starts_at=start, ends_at=None, at=at)
    assert (endless.part.start, endless.part.end) == (expected.part.start, expected.whole.end)


def test_a_life_of_no_length_has_no_periods() -> None:
    at = utc("2026-11-16T00:00:00")
    assert periods_between(anchor_day=1, time_zone="UTC", start=at, until=at) == []


def test_more_periods_than_a_century_holds_are_refused() -> None:
    start = utc("1900-01-01T00:00:00")
    kept = periods_between(
        anchor_day=1, time_zone="UTC", start=start, until=utc("2000-01-01T00:00:00")
    )
    assert len(kept) == PERIODS_MAX
    with pytest.raises(Invalid, match="more than 1200 billing periods"):
        periods_between(
            anchor_day=1, time_zone="UTC", start=start, until=utc("2000-01-01T00:00:01")
        )
