"""Usage over time, bucketed by the clock on the customer's wall, also where it jumps."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from aforo.catalog.models import Aggregation, Meter
from aforo.metering import queries
from aforo.metering.steps import Bucket
from aforo.metering.stored import StoredEvent
from aforo.metering.usage import Attribute, UsageBy, UsageOf, UsagePoint, usage_over_time
from aforo.sdk.ids import CustomerId, TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from tests.metering.model import insert

ACME, GLOBEX = UUID(int=1), UUID(int=2)
METER = Meter(
    code="tokens",
    name="tokens",
    event_type="call",
    aggregation=Aggregation.SUM,
    property="tokens",
    allows_negative=True,
)
STEP = timedelta(minutes=13, seconds=7)


@pytest.mark.parametrize(
    ("time_zone", "middle"),
    [
        ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),  # 2 h becomes 3 h.
        ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),  # 2 h becomes 1 h.
        ("Asia/Kolkata", datetime(2026, 11, 1, tzinfo=UTC)),  # Half an hour off, and never jumps.
        ("America/Santiago", datetime(2026, 9, 6, 4, tzinfo=UTC)),  # There is no midnight.
        ("America/Santiago", datetime(2026, 4, 5, 3, tzinfo=UTC)),  # Midnight comes twice.
        ("UTC", datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
async def test_buckets_start_with_the_local_clock_and_sum_to_the_usage_of_the_period(
    runtime: Runtime, tenant_id: TenantId, time_zone: str, middle: datetime
) -> None:
    zone = ZoneInfo(time_zone)
    period = Period(middle - timedelta(days=2), middle + timedelta(days=2))
    moments = [period.start + STEP * number for number in range(440)]
    await write(runtime, tenant_id, moments)
    inside = [(at, tokens(at)) for at in moments if period.contains(at)]
    async with runtime.scope(tenant_id) as scope:
        usage = await queries.usage_by_customer(scope, METER, period, watermark=1)
        for bucket in Bucket:
            points = await usage_over_time(scope, of(period, time_zone), bucket)
            assert instants(points) == instants(expected(inside, bucket, zone))
            assert all(point.start.tzinfo == zone for point in points)
            assert sum(point.quantity for point in points) == usage[CustomerId(ACME)].quantity
            assert sum(point.events for point in points) == len(inside)


async def test_a_day_of_a_clock_change_has_23_or_25_hours(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    hours = [
        datetime(2026, 3, 8, 5, tzinfo=UTC) + timedelta(hours=number) for number in range(24)
    ] + [datetime(2026, 11, 1, 4, tzinfo=UTC) + timedelta(hours=number) for number in range(25)]
    await write(runtime, tenant_id, hours)
    async with runtime.scope(tenant_id) as scope:
        period = Period(hours[0], hours[-1] + timedelta(hours=1))
        days = await usage_over_time(scope, of(period, "America/New_York"), Bucket.DAY)
    assert [(day.start.isoformat(), day.events) for day in days] == [
        ("2026-03-08T00:00:00-05:00", 23),
        ("2026-03-09T00:00:00-04:00", 1),
        ("2026-11-01T00:00:00-04:00", 25),
    ]


async def test_a_series_may_be_of_one_customer_and_leaves_empty_buckets_out(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    noon = datetime(2026, 11, 18, 12, tzinfo=UTC)
    await write(runtime, tenant_id, [noon, noon + timedelta(hours=5)])
    await write(runtime, tenant_id, [noon, noon], customer=GLOBEX, segment=2)
    async with runtime.scope(tenant_id) as scope:

        async def starts(customer_id: UUID | None) -> list[tuple[int, int]]:
            period = Period(noon, noon + timedelta(days=1))
            points = await usage_over_time(scope, of(period, "UTC", customer_id), Bucket.HOUR)
            return [(point.start.hour, point.events) for point in points]

        assert await starts(ACME) == [(12, 1), (17, 1)]
        assert await starts(GLOBEX) == [(12, 2)]
        assert await starts(None) == [(12, 3), (17, 1)]
        assert await starts(uuid4()) == []


def of(period: Period, time_zone: str, customer_id: UUID | None = None) -> UsageOf:
    """What is asked for."""
    customer = (Attribute(UsageBy.CUSTOMER), [str(customer_id)])
    return UsageOf(
        meter=METER,
        period=period,
        watermark=2,
        zone=ZoneInfo(time_zone),
        where=[] if customer_id is None else [customer],
    )


def expected(
    inside: Sequence[tuple[datetime, Decimal]], bucket: Bucket, zone: ZoneInfo
) -> list[UsagePoint]:
    """The same series, by Python's own knowledge of time zones."""
    groups: dict[tuple[str, timedelta | None], list[tuple[datetime, Decimal]]] = defaultdict(list)
    for at, quantity in inside:
        groups[shown(at, bucket, zone)].append((at, quantity))
    points = [
        UsagePoint(
            start_of(group[0][0], bucket, zone).astimezone(zone),
            sum((quantity for _, quantity in group), Decimal(0)),
            len(group),
        )
        for group in groups.values()
    ]
    return sorted(points, key=lambda point: point.start.astimezone(UTC))


def instants(points: Sequence[UsagePoint]) -> list[tuple[datetime, Decimal, int]]:
    """Comparable points: two local times of one zone are equal whatever their offset."""
    return [(point.start.astimezone(UTC), point.quantity, point.events) for point in points]


def shown(at: datetime, bucket: Bucket, zone: ZoneInfo) -> tuple[str, timedelta | None]:
    """What the wall shows; an hour that comes twice is told by its offset."""
    local = at.astimezone(zone)
    if bucket is Bucket.QUARTER_HOUR:
        return f"{local:%F %H} {local.minute // 15}", local.utcoffset()
    if bucket is Bucket.HOUR:
        return local.strftime("%F %H"), local.utcoffset()
    return local.strftime({Bucket.DAY: "%F", Bucket.WEEK: "%G-%V"}.get(bucket, "%Y-%m")), None


def start_of(at: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """The first instant at which the wall shows the same; clocks jump at quarters of an hour."""
    quarter = timedelta(minutes=15)
    start = at - (at - datetime(2026, 1, 1, tzinfo=UTC)) % quarter
    while shown(start - quarter, bucket, zone) == shown(at, bucket, zone):
        start -= quarter
    return start


def tokens(at: datetime) -> Decimal:
    """A quantity that differs from event to event, below zero now and then."""
    return Decimal(at.minute - 5) + Decimal("0.001") * at.second


async def write(
    runtime: Runtime,
    tenant_id: TenantId,
    moments: Sequence[datetime],
    *,
    customer: UUID = ACME,
    segment: int = 1,
) -> None:
    """Put one event at each moment into the log, as the sealer does."""
    events = [
        StoredEvent(
            event_id=new_id(),
            idempotency_key=f"{segment}:{place}",
            type="call",
            customer_id=customer,
            team_id=None,
            agent_id=None,
            customer_key_id=None,
            subscription_id=UUID(int=9),
            product_id=UUID(int=8),
            occurred_at=at,
            received_at=at,
            properties=f'{{"tokens":{tokens(at)}}}',
            cost=None,
            cost_currency="",
            cost_rates=(),
        )
        for place, at in enumerate(moments)
    ]
    await insert(runtime, tenant_id, segment, events)
