"""Usage queries from roll-ups, beside the scan of the log that gives the same result.

`python -m benchmarks.usage EVENTS` measures another number of events than `make bench`.
"""

import asyncio
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from aforo.catalog.commands import create_meter
from aforo.catalog.models import Aggregation, Meter
from aforo.metering import rollups, usage
from aforo.metering.models import Segment, SegmentState
from aforo.metering.steps import Bucket
from aforo.metering.usage import Attribute, UsageBy, UsageOf
from aforo.plugins import load_registry
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.settings import Settings
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.migrate import migrate
from aforo.storage.scope import Runtime, Scope, open_runtime
from aforo.storage.tables import new_id

EVENTS = 1_000_000
CUSTOMERS = 10_000
SEGMENT_EVENTS = 50_000
CHUNK = 2_000_000
SPANS_MAX = 100_000
START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = Period(START, START + timedelta(days=30))
CUSTOMER = Attribute(UsageBy.CUSTOMER)
MODEL = Attribute(UsageBy.PROPERTY, "model")

Ask = Callable[[Scope, UsageOf], Awaitable[object]]


async def measure(settings: Settings, *, events: int = EVENTS) -> None:
    """Write a month of events of 10,000 customers past ingestion, roll it up, ask, and print."""
    runtime = open_runtime(settings, load_registry())
    try:
        tenant_id = TenantId(new_id())
        first, last = await _segments(runtime, tenant_id, events)
        await _write(runtime, tenant_id, events, first_segment=first)
        meters = await _meters(runtime, tenant_id)
        begun = time.perf_counter()
        spans = await _roll_up(runtime, tenant_id)
        elapsed = time.perf_counter() - begun
        print(
            f"{events:,} events rolled up for {len(meters)} meters in {elapsed:,.0f} s, "
            f"{events * len(meters) / elapsed:,.0f} events and meters/s, {spans} spans",
            flush=True,
        )
        for meter in meters:
            for name, ask, customers in _questions(meter):
                await _time(runtime, tenant_id, name, _of(meter, last, customers), ask)
    finally:
        await runtime.close()


def _questions(meter: Meter) -> list[tuple[str, Ask, list[str] | None]]:
    one = [str(_customer(77))]
    name = f"{meter.aggregation}, "

    def over(bucket: Bucket) -> Ask:
        return lambda scope, of: usage.usage_over_time(scope, of, bucket)

    def by(*attributes: Attribute) -> Ask:
        return lambda scope, of: usage.usage_by(scope, of, attributes, first=100)

    return [
        (f"{name}one customer, the month", usage.usage_total, one),
        (f"{name}one customer, by day", over(Bucket.DAY), one),
        (f"{name}one customer, by hour", over(Bucket.HOUR), one),
        (f"{name}one customer, by model", by(MODEL), one),
        (f"{name}all customers, the month", usage.usage_total, None),
        (f"{name}all customers, by day", over(Bucket.DAY), None),
        (f"{name}the 100 largest customers", by(CUSTOMER), None),
        (f"{name}all customers, by model", by(MODEL), None),
    ]


def _of(meter: Meter, watermark: int, customers: list[str] | None) -> UsageOf:
    return UsageOf(
        meter=meter,
        period=MONTH,
        watermark=watermark,
        zone=ZoneInfo("America/New_York"),
        where=[] if customers is None else [(CUSTOMER, customers)],
    )


async def _time(runtime: Runtime, tenant_id: TenantId, name: str, of: UsageOf, ask: Ask) -> None:
    # The same meter under an id for which nothing is rolled up.
    settings = of.meter.model_dump(exclude={"id"})
    in_log = dataclasses.replace(of, meter=Meter(**settings, id=new_id()))
    times: dict[bool, list[float]] = {True: [], False: []}
    answers: dict[bool, object] = {}
    async with runtime.scope(tenant_id) as scope:
        for is_rolled, what in ((True, of), (False, in_log)):
            spent = 0.0
            while len(times[is_rolled]) < 5 and (spent < 20 or not times[is_rolled]):
                begun = time.perf_counter()
                answers[is_rolled] = await ask(scope, what)
                times[is_rolled].append((time.perf_counter() - begun) * 1000)
                spent += times[is_rolled][-1] / 1000
    assert answers[True] == answers[False], name
    rolled_up, log = statistics.median(times[True]), statistics.median(times[False])
    print(
        f"{name:44} {rolled_up:>10,.1f}     {rolled_up / log:6.2f} times {log:,.1f} ms "
        "(a scan of the log)",
        flush=True,
    )


async def _segments(runtime: Runtime, tenant_id: TenantId, events: int) -> tuple[int, int]:
    count = -(-events // SEGMENT_EVENTS)
    now = runtime.clock.now()
    async with runtime.system("write segments") as db:
        rows = [
            Segment(
                tenant_id=tenant_id,
                state=SegmentState.CONFIRMED,
                events=min(SEGMENT_EVENTS, events - number * SEGMENT_EVENTS),
                sha256=bytes(32),
                previous_sha256=bytes(32),
                sealed_at=now,
                confirmed_at=now,
            )
            for number in range(count)
        ]
        db.add_all(rows)
        await db.flush()
        ids = sorted(row.segment_id for row in rows)
    assert ids == list(range(ids[0], ids[0] + count)), "nobody else writes segments meanwhile"
    return ids[0], ids[-1]


async def _write(runtime: Runtime, tenant_id: TenantId, events: int, *, first_segment: int) -> None:
    """A month of events in the order in which they arrive, up to 20 s after they happened."""
    for start in range(0, events, CHUNK):
        await runtime.events.command(
            _INSERT,
            {
                "tenant": str(tenant_id),
                "from": start,
                "count": min(CHUNK, events - start),
                "first": first_segment,
                "micros": (MONTH.end - MONTH.start) // timedelta(microseconds=1) // events,
            },
        )


async def _meters(runtime: Runtime, tenant_id: TenantId) -> list[Meter]:
    async with runtime.scope(tenant_id) as scope:
        return [
            await create_meter(
                scope,
                code=name,
                name=name,
                event_type="llm.request",
                aggregation=aggregation,
                property_name=name,
                dimensions=["model"],
            )
            for name, aggregation in (("tokens", Aggregation.SUM), ("user", Aggregation.UNIQUE))
        ]


async def _roll_up(runtime: Runtime, tenant_id: TenantId) -> int:
    spans = 0
    while spans < SPANS_MAX:
        async with runtime.scope(tenant_id) as scope:
            built = await rollups.roll_up(scope, span_events=rollups.SPAN_EVENTS)
        if not built:
            break
        spans += built
    return spans


def _customer(number: int) -> UUID:
    return UUID(int=number + 1)


_INSERT = f"""
INSERT INTO events (tenant_id, segment_id, position, event_id, key_hash, idempotency_key, type,
  customer_id, team_id, agent_id, customer_key_id, subscription_id, product_id, occurred_at,
  received_at, properties, property_texts, cost, cost_currency, cost_rates)
SELECT {{tenant:UUID}}, intDiv(number, {SEGMENT_EVENTS}) + {{first:UInt64}},
  number % {SEGMENT_EVENTS}, generateUUIDv4(number),
  CAST(concat(reinterpretAsFixedString(sipHash128(number, 1)),
    reinterpretAsFixedString(sipHash128(number, 2))), 'FixedString(32)'),
  concat('k-', toString(number)), 'llm.request',
  toUUID(concat('00000000-0000-0000-0000-', leftPad(lower(hex(c + 1)), 12, '0'))),
  reinterpretAsUUID(sipHash128('t', c, t)), reinterpretAsUUID(sipHash128('a', c, t, a)),
  reinterpretAsUUID(sipHash128('k', c, t, a)), reinterpretAsUUID(sipHash128('s', c)),
  reinterpretAsUUID(sipHash128('p')), at, at, concat('{{{{"tokens":', toString(n), '}}}}'),
  map('tokens', toString(n), 'model', concat('"model-', toString(cityHash64(number, 9) % 5)),
    'user', concat('"u', toString(cityHash64(number, 8) % 200000))),
  NULL, '', []
FROM (
  SELECT number, toUInt64(cityHash64(number, 3) % {CUSTOMERS}) AS c,
    cityHash64(number, 4) % 2 AS t, cityHash64(number, 5) % 2 AS a,
    cityHash64(number, 6) % 5000 AS n,
    toDateTime64('2026-11-01 00:00:00', 6, 'UTC')
      + toIntervalMicrosecond(number * {{micros:UInt64}})
      - toIntervalSecond(if(number > 1000000, cityHash64(number, 7) % 20, 0)) AS at
  FROM numbers({{from:UInt64}}, {{count:UInt64}})
)
""".replace("{{{{", "{").replace("}}}}", "}")


async def main(events: int, folder: Path) -> None:
    """Measure on engines of its own."""
    engines = await asyncio.to_thread(EmbeddedEngines.start, folder)
    try:
        settings = settings_of(engines, folder)
        assert settings.owner_database_url is not None
        await migrate(
            owner_database_url=settings.owner_database_url,
            database_url=settings.database_url,
            clickhouse_url=settings.clickhouse_url,
        )
        await measure(settings, events=events)
    finally:
        await asyncio.to_thread(engines.stop)


def settings_of(engines: EmbeddedEngines, folder: Path) -> Settings:
    """Those that a process on these engines has."""
    return Settings(
        database_url=engines.database_url,
        redis_url=engines.redis_url,
        clickhouse_url=engines.clickhouse_url,
        key_pepper="a pepper for benchmarks, as long as it has to be",
        owner_database_url=engines.owner_database_url,
        data_dir=folder,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="aforo-bench-") as made:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS, Path(made)))
