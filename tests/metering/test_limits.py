"""What a quota blocks is decided from the log in its order, the same each time."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from aforo.catalog.models import Aggregation, CalendarUnit, QuotaPolicy, QuotaReset
from aforo.metering import limits, rebuild, rollups
from aforo.sdk.errors import Invalid
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
from tests.metering.limited import COUNT, END, MONTH, START, SUM, UNIQUE, Shop
from tests.metering.market import Market
from tests.metering.usage_log import CUSTOMER, MODEL, UsageLog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NEW_YORK = "America/New_York"


@pytest.fixture
async def shop(runtime: Runtime, tenant_id: TenantId) -> Shop:
    return await Shop.open(runtime, tenant_id)


# limit | segments | counted | places that are blocked
SPEC = """
    100 | 50 30 / 50        | 80  | 1.0
    100 | 50 30 / 20        | 100 |
    100 | 50 30 / 20 1      | 100 | 1.1
    100 | 80 / 50 20 / 1    | 100 | 1.0 2.0
    100 | 101 100           | 100 | 0.0
    100 | 0 100 0 1 0       | 100 | 0.3
    100 | 99.5 / 0.6 0.5    | 100 | 1.0
    0   | 0 1 / 0.000000000001 | 0 | 0.1 1.0
    100 | 60 50 30 / 20 10 9 | 100 | 0.1 1.0 1.2
    100 | 90 20 -30 20 20 15 | 100 | 0.1 0.5
    100 | -50 150 1 / -5 6 5 | 100 | 0.2 1.1
    100 | 80 / -200 300 220 1 | 100 | 1.1 1.3
"""


@pytest.mark.parametrize("row", SPEC.strip().splitlines())
async def test_what_does_not_fit_is_blocked_whole_and_uses_nothing_up(shop: Shop, row: str) -> None:
    limit, segments, counted, places = (cell.strip() for cell in row.split("|"))
    await shop.sell(limit)
    for segment in segments.split("/"):
        await shop.write(*segment.split())
    assert await shop.quantity() == Decimal(counted)
    assert await shop.places() == [tuple(map(int, one.split("."))) for one in places.split()]


async def test_the_hundredth_call_is_in_and_the_next_is_not(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    shop = await Shop.open(runtime, tenant_id, COUNT)
    await shop.sell("10")
    await shop.write(*range(7))
    await shop.write(*range(5))
    assert await shop.quantity() == 10
    assert await shop.places() == [(1, 3), (1, 4)]
    assert await shop.blocked() == (2, 2)


async def test_a_value_that_was_counted_never_blocks(runtime: Runtime, tenant_id: TenantId) -> None:
    shop = await Shop.open(runtime, tenant_id, UNIQUE)
    await shop.sell("2", reset=QuotaReset.CALENDAR, reset_unit=CalendarUnit.DAY)
    await shop.write("a", "a", "b", "c", "a")
    await shop.write("d", "b", "c")
    await shop.write("c", at=START + DAY)
    assert await shop.places() == [(0, 3), (1, 0), (1, 2)]
    assert await shop.quantity() == 3  # a and b of the first day, c of the second.
    assert await shop.quantity(Period(START, START + DAY)) == 2
    assert await shop.blocked() == (2, 3)


@pytest.mark.parametrize("aggregation", [Aggregation.MAX, Aggregation.LATEST])
async def test_of_a_maximum_or_a_latest_value_no_part_can_be_refused(
    runtime: Runtime, tenant_id: TenantId, aggregation: Aggregation
) -> None:
    shop = await Shop.open(runtime, tenant_id, aggregation)
    with pytest.raises(Invalid) as refused:
        await shop.sell("10")
    assert refused.value.field == "policy"


async def test_only_the_quota_of_the_moment_decides(shop: Shop) -> None:
    first = await shop.sell("100")
    await shop.write(90)
    middle = START + timedelta(days=10)
    async with shop.scope() as scope:
        await end_subscription(scope, subscription_id=first, ends_at=middle)
    await shop.sell("50", starts_at=middle)
    # What a plan used is not held against the one after it, whichever arrives first.
    await shop.write(20, 40, 20, at=middle)
    await shop.write(10, 1, at=middle - timedelta(microseconds=1))
    assert await shop.places() == [(1, 1), (2, 1)]
    assert await shop.quantity() == 140


async def test_of_two_quotas_the_more_generous_decides(shop: Shop) -> None:
    await shop.sell("10")
    await shop.sell("30", starts_at=START + DAY)
    await shop.write(8, 8)
    await shop.write(20, 10, 1, at=START + DAY)
    assert await shop.places() == [(0, 1), (1, 2)]
    await shop.sell("1", starts_at=START + 2 * DAY, policy=QuotaPolicy.OVERAGE)
    await shop.write(1_000, at=START + 2 * DAY)
    assert await shop.places() == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("terms", "edge"),
    [
        ({"reset": QuotaReset.BILLING_PERIOD}, datetime(2026, 11, 1, 4, tzinfo=UTC)),
        ({"reset": QuotaReset.CALENDAR, "reset_unit": CalendarUnit.DAY}, None),
        ({"reset": QuotaReset.CALENDAR, "reset_unit": CalendarUnit.WEEK}, None),
        ({"reset": QuotaReset.FIXED, "reset_seconds": 7 * 3600}, None),
    ],
)
async def test_a_window_ends_where_the_customers_calendar_says_also_where_clocks_change(
    shop: Shop, terms: dict[str, Any], edge: datetime | None
) -> None:
    """On 1 November 2026 New York has 25 hours, the last of which a day of 24 would lose."""
    starts_at = datetime(2026, 10, 1, 4, tzinfo=UTC)
    edge = (
        edge
        or {
            CalendarUnit.DAY: datetime(2026, 11, 2, 5, tzinfo=UTC),
            CalendarUnit.WEEK: datetime(2026, 11, 2, 5, tzinfo=UTC),
            None: starts_at + timedelta(hours=7) * 108,
        }[terms.get("reset_unit")]
    )
    await shop.sell("10", starts_at=starts_at, zone=NEW_YORK, **terms)
    tick = timedelta(microseconds=1)
    await shop.write(6, at=edge)
    await shop.write(9, at=edge - tick)
    await shop.write(5, at=edge)
    await shop.write(2, 1, at=edge - tick)
    await shop.write(4, at=edge + timedelta(hours=1))
    around = Period(edge - timedelta(hours=2), edge + timedelta(hours=2))
    assert await shop.places(around) == [(2, 0), (3, 0)]
    assert await shop.quantity(around) == 20
    assert await shop.quantity(Period(edge, edge + timedelta(hours=2))) == 10


@pytest.mark.parametrize(
    "terms",
    [
        {"reset": QuotaReset.SLIDING, "reset_seconds": 86_400},
        {"reset": QuotaReset.FIXED, "reset_seconds": 3_599},
    ],
)
async def test_windows_that_slide_or_are_short_block_at_the_gate_alone(
    shop: Shop, terms: dict[str, Any]
) -> None:
    await shop.sell("10", **terms)
    await shop.write(11)
    assert await shop.quantity() == 11


async def test_a_quota_that_never_begins_anew_is_of_the_whole_subscription(shop: Shop) -> None:
    await shop.sell("10", reset=QuotaReset.NEVER, starts_at=START - timedelta(days=300))
    await shop.write(7, at=START - timedelta(days=200))
    await shop.write(5, 3, 1, at=START)
    assert await shop.places() == [(1, 0), (1, 2)]
    assert await shop.quantity() == 3


async def test_what_is_carried_on_is_used_before_anything_is_blocked(shop: Shop) -> None:
    september = datetime(2026, 9, 1, tzinfo=UTC)
    await shop.sell("100", starts_at=september, rollover_periods=2, rollover_cap=Decimal(60))
    # September leaves 70, of which 60 are kept; October uses 110: 60 of those, and 50 of its own.
    await shop.write(30, at=september)
    await shop.write(110, 60, at=datetime(2026, 10, 1, tzinfo=UTC))
    await shop.write(149, 2, 1, 1, at=START)
    assert await shop.places(Period(september, END)) == [(1, 1), (2, 1), (2, 3)]
    assert await shop.quantity() == 150
    # A late event for October takes from what November has: the same log, but a later watermark.
    await shop.write(5, at=datetime(2026, 10, 2, tzinfo=UTC))
    assert await shop.places() == [(2, 0)]
    assert await shop.quantity() == 4


async def test_late_events_are_decided_after_what_was_there_before(shop: Shop) -> None:
    await shop.sell("10")
    await shop.write(6, at=START + 20 * DAY)
    await shop.write(6, 4, at=START)
    assert await shop.places() == [(1, 0)]
    before = await shop.cuts()
    await shop.write(9, 0, at=START + HOUR)
    assert await shop.places() == [(1, 0), (2, 0)]
    async with shop.scope() as scope:
        again = await limits.blocked(
            scope, shop.meter, MONTH, watermark=sorted(shop.log.segments)[1]
        )
    assert again == before


async def test_an_event_is_blocked_for_the_meter_whose_quota_is_full_alone(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    tokens = await Shop.open(runtime, tenant_id)
    calls = await Shop.open(runtime, tenant_id, COUNT)
    calls.log, calls.customers = tokens.log, tokens.customers
    await tokens.sell("100")
    await calls.sell("3")
    await tokens.write(60, 60, 30, 5)
    assert await tokens.places() == [(0, 1)]
    assert await calls.places() == [(0, 3)]
    assert (await tokens.quantity(), await calls.quantity()) == (95, 3)


async def test_no_one_elses_events_fill_a_quota(shop: Shop) -> None:
    await shop.sell("10")
    await shop.sell("10", to="globex")
    await shop.log.write(
        [shop.used(6, by=by) for by in ("acme", "globex")]
        + [shop.used(5, by=by) for by in ("globex", "acme")]
    )
    assert await shop.places() == [(0, 2), (0, 3)]
    assert (await shop.quantity(), await shop.quantity(by="globex")) == (6, 6)


async def test_usage_is_told_apart_without_what_is_blocked_also_where_it_is_rolled_up(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    shop = await Shop.open(runtime, tenant_id, corrected=False)
    await shop.sell("100")
    await shop.sell("100", to="globex")
    async with shop.scope() as scope:
        for by, value, model in (
            ("acme", 70, "a"), ("globex", 90, "a"), ("acme", 50, "b"), ("acme", 30, "b"),
            ("globex", 5, "b"), ("acme", 2, "b"),
        ):  # fmt: skip
            await shop.log.write([shop.used(value, by=by, model=model)])
    of = shop.log.of(shop.meter, MONTH)
    ids = {name: str(id_) for name, id_ in shop.customers.items()}
    for _ in range(2):
        assert await shop.log.total(of) == (195, 4)
        assert await shop.blocked() == (52, 2)
        assert await shop.log.by(of, CUSTOMER) == {
            (ids["acme"],): (100, 2),
            (ids["globex"],): (95, 2),
        }
        assert await shop.log.by(of, MODEL) == {("a",): (160, 2), ("b",): (35, 2)}
        async with shop.scope() as scope:
            await rollups.roll_up(scope, span_events=4)


@pytest.mark.parametrize("aggregation", [SUM, COUNT, UNIQUE])
@pytest.mark.parametrize("corrected", [False, True])
async def test_what_is_blocked_is_what_a_plain_walk_says(
    runtime: Runtime,
    tenant_id: TenantId,
    aggregation: Aggregation,
    corrected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "CELLS_AT_ONCE", 7)
    monkeypatch.setattr(limits, "CUSTOMERS_AT_ONCE", 3)
    made = random.Random(f"{aggregation}{corrected}")
    shop = await Shop.open(runtime, tenant_id, aggregation, corrected=corrected)
    limit_of = {f"c{number}": made.choice([0, 3, 20, 70, 400]) for number in range(10)}
    days = {"reset": QuotaReset.CALENDAR, "reset_unit": CalendarUnit.DAY}
    for name, limit in limit_of.items():
        await shop.sell(str(limit), to=name, **(days if limit % 2 else {}))
    least = -15 if corrected and aggregation is SUM else 0
    segments = [
        [
            shop.used(
                made.choice([None, 0, made.randint(least, 9), made.randint(least, 60)]),
                at=START + HOUR * made.randrange(72),
                by=made.choice(list(limit_of)),
            )
            for _ in range(made.randrange(1, 60))
        ]
        for _ in range(12)
    ]
    await shop.log.write(*segments)
    expected = set()
    state: dict[Any, Any] = defaultdict(lambda: (0, set()))
    for number, segment in enumerate(segments):
        for position, one in enumerate(segment):
            value = one.properties.get("v")
            name = next(name for name, id_ in shop.customers.items() if id_ == one.customer)
            window = name, one.at.date() if limit_of[name] % 2 else None
            used, seen = state[window]
            if value is None and aggregation is not COUNT:
                continue
            brings = {SUM: value, COUNT: 1, UNIQUE: int(value not in seen)}[aggregation]
            if brings and used + brings > limit_of[name]:
                if brings > 0 or used > limit_of[name]:
                    expected.add((number, position))
                continue
            state[window] = used + brings, seen | {value}
    assert set(await shop.places()) == expected
    assert len(expected) > 20


async def test_a_log_that_is_made_anew_decides_the_same(
    market: Market,
) -> None:
    shop = Shop(UsageLog(market.runtime, market.tenant_id), market.meters["tokens"])
    await shop.sell("100", to="hooli", starts_at=market.runtime.clock.now() - 50 * DAY)
    tokens = [60, 50, 30, 20, 10, 1]
    await market.take(*(market.event(customer="hooli", properties={"tokens": n}) for n in tokens))
    [confirmed] = await market.seal()
    shop.log.segments[confirmed.segment_id] = []
    now = market.runtime.clock.now()
    period = Period(now - DAY, now)
    before = await shop.places(period)
    assert before == [(0, 1), (0, 3), (0, 5)]
    await market.runtime.events.command(
        "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID} SETTINGS mutations_sync = 1",
        {"tenant": str(market.tenant_id)},
    )
    assert await shop.places(period) == []
    await rebuild.rebuild(market.runtime, market.tenant_id)
    assert await shop.places(period) == before
