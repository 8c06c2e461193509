"""When quotas begin anew, and what is carried from one window to the next."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.catalog.models import CalendarUnit, QuotaReset
from aforo.metering.rollover import carried
from aforo.metering.windows import Life, Reset, window_at, windows_until

START = datetime(2026, 1, 15, 10, tzinfo=UTC)


def life(zone: str = "UTC", ends_at: datetime | None = None) -> Life:
    return Life(starts_at=START, ends_at=ends_at, anchor_day=15, time_zone=zone)


def calendar(unit: str) -> Reset:
    return Reset(kind=QuotaReset.CALENDAR, unit=CalendarUnit(unit))


# reset | zone | moment | start | end, all in UTC
WINDOWS = """
HOUR  | Asia/Kolkata  | 2026-03-01T10:10 | 2026-03-01T09:30 | 2026-03-01T10:30
DAY   | UTC           | 2026-03-01T23:59 | 2026-03-01T00:00 | 2026-03-02T00:00
DAY   | Europe/Berlin | 2026-03-29T12:00 | 2026-03-28T23:00 | 2026-03-29T22:00
DAY   | Europe/Berlin | 2026-10-25T12:00 | 2026-10-24T22:00 | 2026-10-25T23:00
WEEK  | UTC           | 2026-03-01T12:00 | 2026-02-23T00:00 | 2026-03-02T00:00
WEEK  | UTC           | 2026-03-02T00:00 | 2026-03-02T00:00 | 2026-03-09T00:00
MONTH | UTC           | 2026-12-31T12:00 | 2026-12-01T00:00 | 2027-01-01T00:00
MONTH | Europe/Berlin | 2026-11-30T23:30 | 2026-11-30T23:00 | 2026-12-31T23:00
"""


@pytest.mark.parametrize("row", WINDOWS.strip().splitlines())
def test_a_quota_begins_anew_with_the_customers_calendar(row: str) -> None:
    unit, zone, *moments = (cell.strip() for cell in row.split("|"))
    at, start, end = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in moments)
    window = window_at(calendar(unit), life(zone), at)
    assert (window.period.start, window.period.end) == (start, end)
    assert window.resets_at == end


def test_a_window_is_cut_where_the_subscription_starts_and_ends() -> None:
    at = START + timedelta(hours=1)
    ended = life(ends_at=START + timedelta(hours=2))
    period = window_at(calendar("DAY"), ended, at).period
    assert (period.start, period.end) == (START, START + timedelta(hours=2))


def test_a_quota_that_never_begins_anew_is_for_the_subscriptions_life() -> None:
    window = window_at(Reset(kind=QuotaReset.NEVER), life(), START + timedelta(days=900))
    assert (window.period.start, window.resets_at) == (START, None)


def test_fixed_windows_are_counted_from_the_subscriptions_start() -> None:
    window = window_at(
        Reset(kind=QuotaReset.FIXED, seconds=90), life(), START + timedelta(seconds=200)
    )
    assert window.period.start == START + timedelta(seconds=180)
    assert window.resets_at == START + timedelta(seconds=270)


def test_of_the_window_before_a_sliding_one_counts_what_it_still_covers() -> None:
    sliding = Reset(kind=QuotaReset.SLIDING, seconds=100)
    assert window_at(sliding, life(), START + timedelta(seconds=30)).before is None
    window = window_at(sliding, life(), START + timedelta(seconds=125))
    assert window.before is not None
    assert window.before.start == START
    assert window.part_of_before == Decimal("0.75")


@given(
    st.sampled_from(CalendarUnit),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "Asia/Kolkata"]),
    st.integers(1_200_000_000, 1_900_000_000).map(lambda at: datetime.fromtimestamp(at, UTC)),
)
def test_windows_of_the_calendar_follow_one_another_without_a_gap(
    unit: CalendarUnit, zone: str, at: datetime
) -> None:
    always = Life(
        starts_at=datetime(2000, 1, 1, tzinfo=UTC), ends_at=None, anchor_day=1, time_zone=zone
    )
    reset = calendar(unit.value)
    period = window_at(reset, always, at).period
    assert period.contains(at)
    assert window_at(reset, always, period.end).period.start == period.end
    earlier = windows_until(reset, always, at, most=3)
    assert [each.end for each in earlier] == [*(each.start for each in earlier[1:]), period.start]


# quota | windows | cap | used, one window after the other | carried into the next
CARRIED = """
100 | 1 | -   |                 | 0
100 | 1 | -   | 30              | 70
100 | 1 | -   | 130             | 0
100 | 1 | -   | 30 0            | 100
100 | 1 | -   | 30 70           | 100
100 | 1 | -   | 30 100          | 70
100 | 2 | -   | 30 70 100       | 100
100 | 2 | -   | 30 0            | 170
100 | 2 | -   | 30 0 100        | 170
100 | 2 | 120 | 30 0            | 120
100 | 2 | 120 | 30 0 20         | 120
100 | 3 | 50  | 0 0 0 250       | 0
"""


@pytest.mark.parametrize("row", CARRIED.strip().splitlines())
def test_units_are_carried_on_and_the_oldest_go_first(row: str) -> None:
    quota, windows, cap, used, expected = (cell.strip() for cell in row.split("|"))
    found = carried(
        [Decimal(each) for each in used.split()],
        quota=Decimal(quota),
        windows=int(windows),
        cap=None if cap == "-" else Decimal(cap),
    )
    assert found == Decimal(expected)


@given(
    st.lists(st.decimals(0, 300, places=2), max_size=20),
    st.integers(1, 5),
    st.none() | st.decimals(1, 300, places=2),
)
def test_no_more_is_carried_than_the_cap_and_the_windows_allow(
    used: list[Decimal], windows: int, cap: Decimal | None
) -> None:
    found = carried(used, quota=Decimal(100), windows=windows, cap=cap)
    most = 100 * min(windows, len(used))
    assert 0 <= found <= (most if cap is None else min(cap, Decimal(most)))
