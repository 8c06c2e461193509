"""The events of the demo's customers: drawn by chance that is seeded, in the shape of a week."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from aforo.demo.cast import Habits, Member
from aforo.demo.catalogue import IMAGE, REQUEST, SALE
from aforo.sdk.period import Period

SHARE_BY_KEY = 0.3
"""Of the requests of a customer that has a key of its own."""
LAST_DAYS = timedelta(days=7)
LATEST_REQUESTS = 5
"""Each customer's in the last minutes, so that every period that runs has some."""
LATEST = timedelta(minutes=10)
SHARE_BY_NIGHT = 0.15
SHARE_ON_WEEKENDS = 0.3
DAY_SHIFT = range(8, 19)
WEEKEND = (5, 6)
MODELS = ("halcyon-large", "halcyon-small", "halcyon-reason")
MODEL_WEIGHTS = (5, 4, 1)
_HOUR = timedelta(hours=1)
# A day of a customer that sleeps: 11 whole hours and 13 of the night.
_WEIGHT_OF_A_DAY = len(DAY_SHIFT) + (24 - len(DAY_SHIFT)) * SHARE_BY_NIGHT


def history(
    member: Member, *, since: datetime, running: Period, now: datetime, seed: str
) -> list[dict[str, Any]]:
    """A customer's events from `since` up to now, as a client would send them.

    `running` is its billing period of now. The same arguments give the same events.
    """
    chance = Random(f"{seed}/{member.external_id}")  # noqa: S311 (believable, not secret)
    habits = member.habits
    requests = list(_moments(habits.requests_per_day, member, since, now, chance))
    if habits.requests_this_period is not None:
        start = max(running.start, since)
        requests = [at for at in requests if at < running.start]
        requests += _exactly(habits.requests_this_period, member, start, now, chance)
    latest = max(running.start, now - LATEST)
    requests += [_between(latest, now, chance) for _ in range(LATEST_REQUESTS)]
    images = list(_moments(habits.images_per_day, member, since, now, chance))
    sales = list(_moments(habits.sales_per_day, member, since, now, chance))
    events = [
        *(request(member, at, chance) for at in requests),
        *(image(member, at, chance) for at in images),
        *(sale(member, at, chance) for at in sales),
    ]
    for number, event in enumerate(events):
        event["idempotencyKey"] = f"{member.external_id}-{number}"
    return events


def request(member: Member, at: datetime, chance: Random) -> dict[str, Any]:
    """A request to a language model."""
    habits = member.habits
    is_long = chance.random() < habits.share_of_long
    event = _event(member, REQUEST, at) | {
        "properties": {
            "model": chance.choices(MODELS, MODEL_WEIGHTS)[0],
            "input_tokens": _around(habits.input_tokens, chance) * (4 if is_long else 1),
            "output_tokens": _around(habits.output_tokens, chance),
            "context": "long" if is_long else "standard",
            "user": f"user-{chance.randrange(habits.users)}",
            "concurrency": chance.randint(1, habits.lanes),
        }
    }
    if habits.key and chance.random() < SHARE_BY_KEY:
        del event["customer"]
        event["apiKey"] = habits.key
    return event


def image(member: Member, at: datetime, chance: Random) -> dict[str, Any]:
    """A few pictures, made at once."""
    return _event(member, IMAGE, at) | {"properties": {"images": chance.randint(1, 4)}}


def sale(member: Member, at: datetime, chance: Random) -> dict[str, Any]:
    """Something that an agent of the customer sold."""
    amount = Decimal(_around(4_900, chance)).scaleb(-2)
    return _event(member, SALE, at) | {"properties": {"amount": str(amount)}}


def _event(member: Member, type_: str, at: datetime) -> dict[str, Any]:
    return {"type": type_, "customer": member.external_id, "occurredAt": at.isoformat()}


def _around(typical: int, chance: Random) -> int:
    """A number of that size: mostly somewhat less, now and then much more."""
    return max(1, int(typical * chance.lognormvariate(-0.18, 0.6)))


def _moments(
    per_day: int, member: Member, since: datetime, until: datetime, chance: Random
) -> Iterator[datetime]:
    """Moments of about `per_day` events a day, most of them in working hours."""
    for start, end, share in _hours(member, since, until):
        expected = per_day * share
        for _ in range(int(expected) + (chance.random() < expected % 1)):
            yield _between(start, end, chance)


def _exactly(
    count: int, member: Member, since: datetime, until: datetime, chance: Random
) -> list[datetime]:
    hours = list(_hours(member, since, until))
    if not hours:
        return []
    chosen = chance.choices(hours, [share for _, _, share in hours], k=count)
    return [_between(start, end, chance) for start, end, _ in chosen]


def _hours(
    member: Member, since: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime, float]]:
    """Each hour with its share of a day's events; the last one may be cut off."""
    zone = ZoneInfo(member.time_zone)
    start = since
    while start < until:
        end = min(start + _HOUR, until)
        share = _share(member.habits, start.astimezone(zone)) * ((end - start) / _HOUR)
        if start >= until - LAST_DAYS:
            share *= member.habits.share_left
        yield start, end, share
        start = end


def _share(habits: Habits, local: datetime) -> float:
    if habits.never_sleeps:
        return 1 / 24
    by_day = 1 if local.hour in DAY_SHIFT else SHARE_BY_NIGHT
    by_week = SHARE_ON_WEEKENDS if local.weekday() in WEEKEND else 1
    return by_day * by_week / _WEIGHT_OF_A_DAY


def _between(start: datetime, end: datetime, chance: Random) -> datetime:
    return start + (end - start) * chance.random()
