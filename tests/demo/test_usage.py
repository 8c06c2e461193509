"""The demo's usage: the same for the same seed, within its time, and with the stories it tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aforo.demo.cast import CAST, CHURNING, NEAR_QUOTA, Member
from aforo.demo.catalogue import REQUEST, STARTER_QUOTA
from aforo.demo.usage import history
from aforo.sdk.period import Period
from aforo.subscriptions.periods import billing_period

MOMENTS = [
    datetime(2026, 11, 20, 12, tzinfo=UTC),
    datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC),
    datetime(2027, 1, 31, 23, 59, tzinfo=UTC),
]
MEMBERS = {member.external_id: member for member in CAST}


def period(member: Member, at: datetime) -> Period:
    return billing_period(anchor_day=1, time_zone=member.time_zone, at=at)


def drawn(member: Member, now: datetime, *, seed: str = "seed") -> list[dict[str, Any]]:
    running = period(member, now)
    since = period(member, running.start - timedelta(seconds=1)).start
    return history(member, since=since, running=running, now=now, seed=seed)


def moment(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["occurredAt"])


@pytest.mark.parametrize("now", MOMENTS, ids=str)
def test_it_is_as_much_as_is_believable_whatever_the_day(now: datetime) -> None:
    events = [event for member in CAST for event in drawn(member, now)]
    assert 20_000 <= len(events) <= 45_000
    assert len({event["idempotencyKey"] for event in events}) == len(events)
    assert max(map(moment, events)) <= now
    assert min(map(moment, events)) > now - timedelta(days=63)


def test_the_same_seed_draws_the_same_events() -> None:
    member, now = CAST[0], MOMENTS[0]
    assert drawn(member, now) == drawn(member, now)
    assert drawn(member, now) != drawn(member, now, seed="another")


@pytest.mark.parametrize("now", MOMENTS, ids=str)
def test_everyone_has_used_something_in_the_period_that_runs(now: datetime) -> None:
    for member in CAST:
        assert any(period(member, now).contains(moment(event)) for event in drawn(member, now))


def test_one_uses_less_than_half_of_the_week_before() -> None:
    now, week = MOMENTS[0], timedelta(days=7)
    moments = [moment(event) for event in drawn(MEMBERS[CHURNING], now)]
    last = sum(at > now - week for at in moments)
    before = sum(now - 2 * week < at <= now - week for at in moments)
    assert 0 < last < before / 2


@pytest.mark.parametrize("now", MOMENTS, ids=str)
def test_one_is_near_its_quota(now: datetime) -> None:
    member = MEMBERS[NEAR_QUOTA]
    used = sum(
        event["type"] == REQUEST and period(member, now).contains(moment(event))
        for event in drawn(member, now)
    )
    assert 0.9 * STARTER_QUOTA < used < STARTER_QUOTA


def test_most_of_it_happens_in_working_hours() -> None:
    moments = [moment(event) for event in drawn(MEMBERS["northwind"], MOMENTS[0])]
    hours = [at.hour for at in moments]
    # Eight in New York is noon or one in UTC.
    assert sum(13 <= hour < 22 for hour in hours) > len(hours) / 2
