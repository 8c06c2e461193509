"""Usage after corrections: from roll-ups and from the log alike, at every watermark, ever after."""

import dataclasses
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from aforo.catalog.models import Aggregation, Meter
from aforo.metering import rollups, usage
from aforo.metering.steps import Bucket
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant
from tests.conftest import NOW
from tests.metering.usage_log import CUSTOMER, MODEL, TEAM, UsageLog, Used

START = datetime(2026, 11, 1, tzinfo=UTC)
WHOLE = Period(START, START + timedelta(days=4))
ODD = Period(START + timedelta(hours=5, seconds=1), START + timedelta(days=3, microseconds=7))

segment = st.lists(
    st.tuples(st.sampled_from(("send", "send", "amend", "void")), st.integers(0, 10_000)),
    min_size=1,
    max_size=8,
)
histories = st.lists(st.tuples(segment, st.integers(0, 2)), min_size=2, max_size=4)
"""Segments, and how many spans are rolled up behind each of them."""


@settings(deadline=None, max_examples=8)
@given(st.sampled_from(Aggregation), histories)
async def test_whatever_is_sent_amended_and_voided_usage_is_the_models_at_every_watermark(
    shared_runtime: Runtime, kind: Aggregation, history: Sequence[tuple[Any, int]]
) -> None:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    tenant = await create_tenant(runtime, name="Corrects itself")
    log = UsageLog(runtime, TenantId(tenant.tenant.tenant_id))
    meter = await log.meter(kind)
    standing: list[Used] = []
    seen: dict[int, Any] = {}
    for steps, rolled in history:
        await log.write([_made(standing, *step) for step in steps])
        for _ in range(rolled):
            async with runtime.scope(log.tenant_id) as scope:
                await rollups.roll_up(scope, span_events=1)
        seen[log.watermark] = await figures(log, meter, log.watermark)
    for watermark, before in seen.items():
        assert await figures(log, meter, watermark) == before
        assert before == expected(log, meter, watermark)


async def test_a_correction_is_counted_where_it_happened_in_every_step_of_a_series(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    log = UsageLog(runtime, tenant_id)
    meter = await log.meter(Aggregation.SUM)
    hours = [START + timedelta(hours=number) for number in range(48)]
    await log.write(
        [Used(at=at, name=str(number), properties={"v": 1}) for number, at in enumerate(hours)]
    )
    async with runtime.scope(tenant_id) as scope:
        assert await rollups.roll_up(scope, span_events=1) == 1
    await log.write(
        [
            Used(at=NOW, name="v", supersedes="3", is_void=True),
            Used(at=hours[30], name="5b", supersedes="5", properties={"v": 100}),
        ]
    )
    of = log.of(meter, WHOLE)
    for bucket, expected_ in (
        (Bucket.HOUR, dict.fromkeys(range(48), 1) | {3: 0, 5: 0, 30: 101}),
        (Bucket.DAY, {0: 22, 24: 24 + 100}),
    ):
        async with runtime.scope(tenant_id) as scope:
            points = await usage.usage_over_time(scope, of, bucket)
        found = {point.start: point.quantity for point in points}
        assert found == {hours[at]: units for at, units in expected_.items() if units}
    # It is the roll-ups that are read of all that was not corrected: were they doubled, …
    await runtime.events.command(
        "INSERT INTO usage_rollup SELECT * FROM usage_rollup WHERE meter_id = {meter:UUID}",
        {"meter": str(meter.id)},
    )
    of_second_day = log.of(meter, Period(START + timedelta(days=2), START + timedelta(days=4)))
    assert await log.total(of_second_day) == (Decimal(0), 0)
    async with runtime.scope(tenant_id) as scope:
        points = await usage.usage_over_time(scope, of, Bucket.HOUR)
    assert {point.start: point.quantity for point in points} == {
        at: 102 if number == 30 else 2 for number, at in enumerate(hours) if number not in {3, 5}
    }


def _made(standing: list[Used], kind: str, number: int) -> Used:
    """The event of a step, which joins those that stand in place of the one that it supersedes."""
    dice = random.Random(number)
    target = None
    if not standing:
        kind = "send"
    if kind != "send":
        target = standing.pop(number % len(standing))
    one = Used(
        at=START + timedelta(minutes=15 * dice.randrange(4 * 24 * 3), microseconds=number),
        customer=UUID(int=1 + dice.randrange(3)),
        team=UUID(int=11) if dice.random() < 0.5 else None,
        properties={"v": dice.randrange(6), "model": dice.choice(["small", "large"])},
        name=new_id().hex,
        supersedes=target.name or "" if target else "",
        is_void=kind == "void",
    )
    if kind != "void":
        standing.append(one)
    return one


ASKED = [(WHOLE, (CUSTOMER,)), (ODD, (TEAM, MODEL))]


async def figures(log: UsageLog, meter: Meter, watermark: int) -> list[Any]:
    return [await log.by(log.of(meter, period, watermark=watermark), *by) for period, by in ASKED]


def expected(log: UsageLog, meter: Meter, watermark: int) -> list[Any]:
    return [log.expected(log.of(meter, period, watermark=watermark), *by) for period, by in ASKED]
