"""A month of events gives the same usage in whatever order, and however often, it arrives."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from aforo.catalog.models import Aggregation
from aforo.metering import rollups, usage
from aforo.metering.steps import Bucket
from aforo.metering.usage import UsagePoint
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from tests.metering.market import Market
from tests.metering.usage_log import CUSTOMER, UsageLog, Used, counted, split

ORDERS = 100
NEW_YORK = ZoneInfo("America/New_York")
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize("month", [3, 11])  # One hour less, and one more.
@pytest.mark.parametrize("kind", list(Aggregation))
async def test_a_month_in_100_orders_is_the_same_month(
    runtime: Runtime, tenant_id: TenantId, month: int, kind: Aggregation
) -> None:
    """Each order is the month of a customer of its own; all arrive mixed with each other, in
    segments of which some are written twice, as they are after a kill."""
    period = Period(
        datetime(2026, month, 1, tzinfo=NEW_YORK), datetime(2026, month + 1, 1, tzinfo=NEW_YORK)
    )
    made = random.Random(month)
    moments = moments_of(period, made)
    arriving = mixed([(order, moment) for order in range(ORDERS) for moment in moments], made)
    log = UsageLog(runtime, tenant_id)
    meter = await log.meter(kind)
    events = [
        Used(
            at=at,
            customer=UUID(int=order + 1),
            properties={"v": value_at(at)},
            name=f"{order}-{at.isoformat()}",
        )
        for order, at in arriving
    ]
    await log.write(*split(events, len(events) // 6))
    await log.write_again(*made.sample(sorted(log.segments), 3))
    model = [Used(at=at, properties={"v": value_at(at)}) for at in moments if period.contains(at)]
    total = counted(meter, model)
    days = by_day(model)
    of = log.of(meter, period, "America/New_York")
    for spans in (0, 1):  # From the log alone, and with half of it rolled up.
        async with runtime.scope(tenant_id) as scope:
            if spans:
                assert await rollups.roll_up(scope, span_events=len(events) // 2) == spans
        async with runtime.scope(tenant_id) as scope:
            found = await usage.usage_by(scope, of, [CUSTOMER], first=ORDERS, bucket=Bucket.DAY)
        assert found.count == ORDERS
        for one in found.groups:
            assert (one.quantity, one.events) == total
            assert {day_of(point): (point.quantity, point.events) for point in one.points} == {
                day: counted(meter, of_day) for day, of_day in days.items()
            }


async def test_events_that_are_sent_again_and_again_count_once(market: Market) -> None:
    """The same through ingestion: each event is sent up to three times, in any order."""
    made = random.Random(7)
    sent = [
        market.event(f"key-{number}", ago=timedelta(minutes=number + 1), properties=properties)
        for number, properties in enumerate(
            {"tokens": made.randrange(100), "model": made.choice("abc")} for _ in range(60)
        )
    ]
    expected = {
        "calls": Decimal(60),
        "tokens": Decimal(sum(one["properties"]["tokens"] for one in sent)),
        "models": Decimal(len({one["properties"]["model"] for one in sent})),
    }
    arriving = mixed([one for one in sent for _ in range(made.randint(1, 3))], made)
    accepted = duplicates = 0
    for number in range(0, len(arriving), 25):
        answer = await market.take(*arriving[number : number + 25])
        accepted, duplicates = accepted + answer.accepted, duplicates + answer.duplicates
        await market.seal()
    assert (accepted, duplicates) == (60, len(arriving) - 60)
    for _ in range(2):
        assert {code: await market.used(code) for code in market.meters} == expected
        async with market.scope() as scope:
            await rollups.roll_up(scope, span_events=1)


def moments_of(period: Period, made: random.Random) -> list[datetime]:
    """Moments of a month and around it: anywhere, and at every kind of boundary."""
    jump = datetime(2026, 3, 8, 7, tzinfo=UTC) if period.start.month == 3 else None
    jump = jump or datetime(2026, 11, 1, 6, tzinfo=UTC)
    midnight = (period.start.astimezone(NEW_YORK) + timedelta(days=9)).astimezone(UTC)
    boundaries = [period.start, period.end, jump, jump + timedelta(hours=1), midnight]
    boundaries.append(period.start + timedelta(days=12, minutes=15))
    found = {at + TICK * side for at in boundaries for side in (-1, 0, 1)}
    while len(found) < 40:
        found.add(period.start + TICK * made.randrange((period.end - period.start) // TICK))
    return sorted(found)


def mixed(things: Sequence, made: random.Random) -> list:  # type: ignore[type-arg]
    """The same in another order."""
    return made.sample(things, len(things))


def value_at(at: datetime) -> int:
    """A value that tells most moments apart, and is the same in every order."""
    return (at.minute * 61 + at.second + at.microsecond) % 97


def by_day(events: Sequence[Used]) -> dict[str, list[Used]]:
    days: dict[str, list[Used]] = defaultdict(list)
    for one in events:
        days[f"{one.at.astimezone(NEW_YORK):%F}"].append(one)
    return days


def day_of(point: UsagePoint) -> str:
    assert (point.start.hour, point.start.minute) == (0, 0)
    return f"{point.start.astimezone(NEW_YORK):%F}"
