"""Usage from roll-ups and from the log, against a plain model, wherever the one ends."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from aforo import worker
from aforo.catalog.models import Aggregation, Meter
from aforo.metering import rollups, usage
from aforo.metering.steps import Bucket
from aforo.metering.usage import Attribute
from aforo.metering.validate import MeterRule
from aforo.sdk import Invalid
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from tests.metering.usage_log import (
    AGENT,
    CUSTOMER,
    KEY,
    MODEL,
    REGION,
    SUBSCRIPTION,
    TEAM,
    UsageLog,
    Used,
    split,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
MONTH = Period(START, END)
ODD = Period(START + timedelta(days=2, seconds=1), END - timedelta(days=3, microseconds=7))
KINDS = list(Aggregation)


@pytest.fixture
async def log(runtime: Runtime, tenant_id: TenantId) -> UsageLog:
    """Ninety events of a month in six segments, of three customers with some of everything."""
    found = UsageLog(runtime, tenant_id)
    await found.write(*split(some_events(90), 15))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rolled", [0, 1, 3, 6])
async def test_usage_is_the_models_however_much_of_it_is_rolled_up(
    log: UsageLog, kind: Aggregation, rolled: int
) -> None:
    meter = await log.meter(kind)
    await roll_up(log, spans=rolled)
    for period in (MONTH, ODD):
        of = log.of(meter, period)
        assert {(): await log.total(of)} == log.expected(of)
        for by in ((CUSTOMER,), (MODEL,), (TEAM, AGENT), (KEY, SUBSCRIPTION, REGION)):
            assert await log.by(of, *by) == log.expected(of, *by)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_filter_holds_in_roll_ups_as_in_the_log(log: UsageLog, kind: Aggregation) -> None:
    meter = await log.meter(kind)
    before = [await filtered(log, meter, *one) for one in FILTERS]
    await roll_up(log, spans=4)
    for found, (attribute, values) in zip(before, FILTERS, strict=True):
        assert found == await filtered(log, meter, attribute, values)
        of = log.of(meter, ODD, where=[(attribute, values)])
        expected = log.expected(of)
        assert found == (expected[()] if expected else (Decimal(0), 0))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_figure_as_of_a_watermark_comes_again_whatever_arrived_since(
    log: UsageLog, kind: Aggregation
) -> None:
    meter = await log.meter(kind)
    ofs = [log.of(meter, MONTH, watermark=segment_id) for segment_id in sorted(log.segments)]
    before = [await log.total(of) for of in ofs]
    assert before == [log.expected(of)[()] for of in ofs]
    await log.write(some_events(20, seed=2))
    for _ in range(4):
        await roll_up(log, spans=2)
        assert [await log.total(of) for of in ofs] == before


@pytest.mark.parametrize("bucket", list(Bucket))
@pytest.mark.parametrize(
    ("zone", "middle"),
    [
        ("UTC", datetime(2026, 11, 16, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),  # 2 h becomes 1 h.
        ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),  # 2 h becomes 3 h.
        ("Asia/Kathmandu", datetime(2026, 11, 1, tzinfo=UTC)),  # A quarter of an hour off.
        ("America/Santiago", datetime(2026, 9, 6, 4, tzinfo=UTC)),  # There is no midnight.
    ],
)
async def test_a_series_from_roll_ups_is_that_from_the_log_also_where_clocks_change(
    runtime: Runtime, tenant_id: TenantId, bucket: Bucket, zone: str, middle: datetime
) -> None:
    log = UsageLog(runtime, tenant_id)
    meter = await log.meter(Aggregation.SUM)
    start = middle - timedelta(days=3)
    tick = timedelta(microseconds=1)
    moments = [start + timedelta(minutes=13, seconds=7) * number for number in range(600)]
    moments += [middle, middle - tick, middle + tick]
    await log.write(*split((Used(at=at, properties={"v": at.minute}) for at in moments), 300))
    of = log.of(meter, Period(start + timedelta(minutes=1), start + timedelta(days=5)), zone)
    async with runtime.scope(tenant_id) as scope:
        before = await usage.usage_over_time(scope, of, bucket)
    assert await roll_up(log, spans=1) == 1
    async with runtime.scope(tenant_id) as scope:
        assert await usage.usage_over_time(scope, of, bucket) == before
    assert sum(point.quantity for point in before) == log.expected(of)[()][0]
    starts = [point.start.astimezone(ZoneInfo(zone)) for point in before]
    assert starts == sorted(starts, key=lambda at: at.astimezone(UTC))
    if bucket is Bucket.WEEK:
        assert {at.weekday() for at in starts} == {0}


async def test_groups_come_with_their_own_series_and_the_largest_first(log: UsageLog) -> None:
    meter = await log.meter(Aggregation.SUM)
    await roll_up(log, spans=3)
    of = log.of(meter, MONTH, "Asia/Kolkata")
    async with log.runtime.scope(log.tenant_id) as scope:
        found = await usage.usage_by(scope, of, [TEAM, MODEL], first=4, bucket=Bucket.DAY)
    expected = log.expected(of, TEAM, MODEL)
    assert found.count == len(expected) > 4
    quantities = [one.quantity for one in found.groups]
    assert quantities == sorted((one[0] for one in expected.values()), reverse=True)[:4]
    for one in found.groups:
        assert (one.quantity, one.events) == expected[one.values]
        assert sum(point.quantity for point in one.points) == one.quantity
        assert sum(point.events for point in one.points) == one.events


async def test_a_number_and_a_text_of_the_same_characters_are_one_value(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    log = UsageLog(runtime, tenant_id)
    meter = await log.meter(Aggregation.COUNT)
    values = [5, "5", Decimal("5.0"), None, "", "null", True, "true"]
    await log.write([Used(at=START, properties={"model": one}) for one in values])
    once = dict.fromkeys([(None,), ("",), ("null",)], (1, 1))
    expected = {("5",): (3, 3), ("true",): (2, 2), **once}
    for _ in range(2):
        assert await log.by(log.of(meter, MONTH), MODEL) == expected
        of = log.of(meter, MONTH, where=[(MODEL, ["5", None])])
        assert await log.total(of) == (4, 4)
        await roll_up(log, spans=1)


async def test_a_meter_that_is_younger_than_its_events_counts_them_from_the_log_until_rolled_up(
    log: UsageLog,
) -> None:
    older = await log.meter(Aggregation.SUM)
    await roll_up(log, spans=6)
    meter = await log.meter(Aggregation.LATEST)
    of = log.of(meter, MONTH)
    expected = log.expected(of)[()]
    assert await log.total(of) == expected
    assert await roll_up(log, spans=6) == 6
    assert await spans_of(log, meter) == 6 == await spans_of(log, older)
    assert await log.total(of) == expected
    await log.runtime.events.command(  # It is the roll-ups that are read: were they doubled, …
        "INSERT INTO usage_rollup SELECT * FROM usage_rollup WHERE meter_id = {meter:UUID}",
        {"meter": str(meter.id)},
    )
    assert await log.total(of) == (expected[0], expected[1] * 2)


async def test_rows_of_an_attempt_that_was_cut_off_are_never_counted(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = await log.meter(Aggregation.SUM)
    of = log.of(meter, MONTH)
    expected = await log.total(of)
    for point in ("rollup.inserted", "rollup.built"):
        with monkeypatch.context() as broken:
            broken.setattr(rollups, "reached", killed_at(point))
            with pytest.raises(Killed):
                await roll_up(log, spans=6)
        assert await spans_of(log, meter) == 0
        assert await log.total(of) == expected
    assert await roll_up(log, spans=6) == 6
    assert await log.total(of) == expected


async def test_a_roll_up_that_differs_from_the_log_is_thrown_away(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = await log.meter(Aggregation.SUM)
    build = rollups.build

    def lossy(rule: MeterRule) -> str:
        return build(rule).replace(" AND type", " AND position > 0 AND type")

    monkeypatch.setattr(rollups, "build", lossy)
    with pytest.raises(rollups.RollupMismatchError):
        await roll_up(log, spans=1)
    assert await spans_of(log, meter) == 0
    [left] = await log.runtime.events.query(
        "SELECT count() AS rows FROM usage_rollup WHERE tenant_id = {tenant:UUID}",
        {"tenant": str(log.tenant_id)},
    )
    assert left == {"rows": 0}


async def test_the_worker_rolls_up_once_enough_events_are_in_the_log(
    log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = await log.meter(Aggregation.COUNT)
    await rollups.ask(log.runtime, log.tenant_id)
    await worker.drain(log.runtime, log.tenant_id)
    assert await spans_of(log, meter) == 0
    monkeypatch.setattr(rollups, "SPAN_EVENTS", 30)
    await rollups.ask(log.runtime, log.tenant_id)
    await worker.drain(log.runtime, log.tenant_id)
    assert await spans_of(log, meter) == 3


async def test_a_property_that_is_no_dimension_is_refused(log: UsageLog) -> None:
    meter = await log.meter(Aggregation.COUNT, dimensions=["region"])
    with pytest.raises(Invalid, match="those are: region"):
        await log.by(log.of(meter, MONTH), MODEL)


class Killed(Exception):
    """The process ends here."""


def killed_at(point: str) -> object:
    def reached(name: str) -> None:
        if name == point:
            raise Killed

    return reached


FILTERS: list[tuple[Attribute, list[str | None]]] = [
    (CUSTOMER, [str(UUID(int=2))]),
    (CUSTOMER, []),
    (TEAM, [str(UUID(int=11)), str(UUID(int=12))]),
    (MODEL, ["small", None]),
    (REGION, ["eu"]),
    (REGION, ["nowhere"]),
]


async def filtered(
    log: UsageLog, meter: Meter, attribute: Attribute, values: Sequence[str | None]
) -> tuple[Decimal, int]:
    return await log.total(log.of(meter, ODD, where=[(attribute, values)]))


async def roll_up(log: UsageLog, *, spans: int) -> int:
    """Roll up the next segments of each meter, one span for each; how many spans it were."""
    built = 0
    for _ in range(spans):
        async with log.runtime.scope(log.tenant_id) as scope:
            due = await rollups.roll_up(scope, span_events=1)
        built += due
    return built


async def spans_of(log: UsageLog, meter: Meter) -> int:
    async with log.runtime.scope(log.tenant_id) as scope:
        found = await scope.db.scalar(
            sa.text("SELECT count(*) FROM usage_span WHERE meter_id = :meter"),
            {"meter": meter.id},
        )
    return int(found or 0)


def some_events(count: int, seed: int = 1) -> list[Used]:
    """Events of a month, in the order of arrival: some late, some without a team or a model."""
    made = random.Random(seed)
    moments = [START, END - timedelta(microseconds=1), START - timedelta(seconds=1), END]
    people = list(product((1, 2, 3), (None, 11, 12), (None, 21), (None, 31)))
    found = []
    for number in range(count):
        customer, team, agent, key = made.choice(people)
        found.append(
            Used(
                at=moments[number % 50]
                if number % 50 < len(moments)
                else START + timedelta(seconds=made.randrange(30 * 86_400)),
                customer=UUID(int=customer),
                team=None if team is None else UUID(int=team),
                agent=None if agent is None else UUID(int=agent),
                key=None if key is None else UUID(int=key),
                subscription=UUID(int=40 + customer),
                properties={
                    **({"v": made.randrange(50)} if made.random() < 0.9 else {}),
                    **({"model": made.choice(["small", "large"])} if made.random() < 0.8 else {}),
                    "region": made.choice(["eu", "us"]),
                },
            )
        )
    return found
