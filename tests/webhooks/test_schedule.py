"""What follows from an answer, by table."""

from datetime import UTC, datetime, timedelta

import pytest

from aforo.webhooks.schedule import (
    DISABLED_AFTER,
    PAUSES,
    TRIES_MAX,
    Health,
    Measure,
    Verdict,
    measure,
    next_try,
    retry_after,
    verdict,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_ten_tries_take_about_76_hours() -> None:
    assert TRIES_MAX == 10
    assert sum(PAUSES, timedelta(0)) == timedelta(hours=75, minutes=35, seconds=5)


@pytest.mark.parametrize(
    ("status", "tries", "follows"),
    [
        (200, 1, Verdict.DELIVERED),
        (204, 10, Verdict.DELIVERED),
        (299, 1, Verdict.DELIVERED),
        (None, 1, Verdict.AGAIN),
        (199, 1, Verdict.AGAIN),
        (301, 1, Verdict.AGAIN),
        (400, 9, Verdict.AGAIN),
        (500, 9, Verdict.AGAIN),
        (500, 10, Verdict.EXHAUSTED),
        (None, 10, Verdict.EXHAUSTED),
        (302, 10, Verdict.EXHAUSTED),
        (410, 1, Verdict.GONE),
        (410, 10, Verdict.GONE),
    ],
)
def test_only_2xx_is_delivered_410_is_gone_and_all_else_is_tried_again(
    status: int | None, tries: int, follows: Verdict
) -> None:
    assert verdict(status, tries=tries) is follows


@pytest.mark.parametrize(
    ("header", "status", "wait"),
    [
        ("120", 429, timedelta(minutes=2)),
        ("0", 429, None),
        ("86400", 503, timedelta(hours=24)),
        ("999999999", 503, timedelta(hours=24)),
        ("99999999999", 503, None),
        ("-5", 503, None),
        ("1.5", 503, None),
        ("soon", 503, None),
        ("٣", 503, None),
        ("Fri, 20 Nov 2026 13:00:00 GMT", 503, HOUR),
        ("Fri, 20 Nov 2026 13:00:00", 503, HOUR),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 503, None),
        ("Wed, 01 Jan 2031 00:00:00 GMT", 503, timedelta(hours=24)),
        ("120", 200, None),
        ("120", None, None),
        ("", 429, None),
        (None, 429, None),
    ],
)
def test_a_wish_to_be_left_alone_is_read_and_bounded(
    header: str | None, status: int | None, wait: timedelta | None
) -> None:
    until = retry_after(header, status=status, now=NOW)
    assert until == (None if wait is None else NOW + wait)


def test_the_next_try_is_as_planned_or_as_late_as_the_endpoint_wishes() -> None:
    assert next_try(NOW, tries=1, quiet_until=None) == NOW + timedelta(seconds=5)
    assert next_try(NOW, tries=9, quiet_until=NOW) == NOW + timedelta(hours=24)
    assert next_try(NOW, tries=1, quiet_until=NOW + HOUR) == NOW + HOUR


@pytest.mark.parametrize(
    ("exhausted", "warned", "follows"),
    [
        (1, None, Measure.NONE),
        (2, None, Measure.NONE),
        (3, None, Measure.WARN),
        (4, NOW - timedelta(days=1), Measure.NONE),
        (9, NOW - DISABLED_AFTER + timedelta(seconds=1), Measure.NONE),
        (9, NOW - DISABLED_AFTER, Measure.DISABLE),
    ],
)
def test_an_endpoint_is_disabled_only_days_after_a_warning(
    exhausted: int, warned: datetime | None, follows: Measure
) -> None:
    assert measure(Health(exhausted, warned), NOW) is follows
