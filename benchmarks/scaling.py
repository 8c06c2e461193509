"""What the arithmetic of docs/scaling.md stands on: bytes of an event in each place, and how many
a process takes, by itself and by way of a topic.

`python -m benchmarks.scaling`, with the extra `kafka` for the figures of the topic. The broker is
the one that Kafka's client has within itself, on the same cores.
"""

import asyncio
import dataclasses
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from backports import zstd
from confluent_kafka import Producer
from sqlmodel import col

from aforo.catalog import commands as catalog
from aforo.catalog.models import Aggregation
from aforo.metering import backlog, sealer
from aforo.metering.commands import ingest
from aforo.metering.delivering import deliver
from aforo.metering.models import IngestBatch
from aforo.plugins import load_registry
from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.endings import end_all
from aforo.storage.migrate import migrate
from aforo.storage.scope import Runtime, open_runtime
from aforo.storage.topic import Topic
from aforo.subscriptions import commands as subscriptions
from aforo.tenants.commands import create_tenant

EVENTS = 200_000
CARRIED = 50_000
"""By way of the topic: the broker keeps no more."""
BATCH = 1_000
SENDERS = 8
CUSTOMERS = 100
TOPIC = "bench"
PEPPER = "a pepper for benchmarks, as long as it has to be"


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="aforo-bench-") as folder,
        EmbeddedEngines.start(Path(folder)) as engines,
    ):
        holder = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1})
        found = holder.list_topics(TOPIC, timeout=10).brokers.values()
        settings = Settings(
            database_url=engines.database_url,
            redis_url=engines.redis_url,
            clickhouse_url=engines.clickhouse_url,
            owner_database_url=engines.owner_database_url,
            key_pepper=PEPPER,
            data_dir=Path(folder) / "data",
            kafka_brokers=tuple(f"{each.host}:{each.port}" for each in found),
            kafka_topic=TOPIC,
        )
        settings.data_dir.mkdir()
        asyncio.run(_measure(settings))


async def _measure(settings: Settings) -> None:
    assert settings.owner_database_url is not None
    await migrate(
        owner_database_url=settings.owner_database_url,
        database_url=settings.database_url,
        clickhouse_url=settings.clickhouse_url,
    )
    runtime = open_runtime(settings, load_registry())
    tenant_id = TenantId((await create_tenant(runtime, name="Scaling")).tenant.tenant_id)
    await _open_shop(runtime, tenant_id)
    direct = dataclasses.replace(runtime, topic=None)
    await _send(direct, tenant_id, _events(20_000))  # To warm up.
    while await sealer.seal_and_confirm(runtime):
        pass
    before = await _sizes(runtime)
    begun, busy = time.perf_counter(), time.process_time()
    await _send(direct, tenant_id, _events(EVENTS))
    _print_rate("taken by one process", begun, busy)
    taken = await _sizes(runtime)
    begun, busy = time.perf_counter(), time.process_time()
    while await sealer.seal_and_confirm(runtime):
        pass
    _print_rate("sealed", begun, busy)
    sealed = await _sizes(runtime)
    for name, after in (("inbox", taken), ("keys", taken), ("taking: WAL", taken)):
        kind = name.rpartition(" ")[2]
        print(f"{name:24} {(after[kind] - before[kind]) / EVENTS:8.1f} bytes/event")
    for kind in ("archive", "clickhouse"):
        print(f"{kind:24} {(sealed[kind] - before[kind]) / EVENTS:8.1f} bytes/event")
    print(f"{'sealing: WAL':24} {(sealed['WAL'] - taken['WAL']) / EVENTS:8.1f} bytes/event")
    await _measure_topic(runtime, tenant_id)
    await runtime.close()


async def _measure_topic(runtime: Runtime, tenant_id: TenantId) -> None:
    assert runtime.topic is not None
    reading = asyncio.create_task(deliver(runtime, runtime.topic))
    await _until_read(runtime)
    await end_all([reading])
    counted = _Counted(runtime.settings)
    begun, busy = time.perf_counter(), time.process_time()
    await _send(dataclasses.replace(runtime, topic=counted), tenant_id, _events(CARRIED))
    await counted.close()
    _print_rate("sent to the topic", begun, busy, events=CARRIED)
    print(f"{'record, not packed':24} {counted.sent_bytes / CARRIED:8.1f} bytes/event")
    print(f"{'record, packed':24} {counted.packed_bytes / CARRIED:8.1f} bytes/event")
    before = await _received(runtime, tenant_id)
    reading = asyncio.create_task(deliver(runtime, runtime.topic))
    first = await _until_received(runtime, tenant_id, before + 1)
    begun, busy = time.perf_counter(), time.process_time()
    now = await _until_received(runtime, tenant_id, before + CARRIED)
    _print_rate("read from the topic", begun, busy, events=now - first)
    await end_all([reading])


class _Counted(Topic):
    """Counts what it sends."""

    sent_bytes = 0
    packed_bytes = 0

    async def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        self.sent_bytes += sum(len(key) + len(value) for key, value in records)
        self.packed_bytes += len(zstd.compress(b"".join(part for one in records for part in one)))
        await super().send(records)


async def _received(runtime: Runtime, tenant_id: TenantId) -> int:
    async with runtime.scope(tenant_id) as scope:
        found = await scope.db.scalar(sa.select(sa.func.sum(col(IngestBatch.received))))
    return int(found or 0)


async def _until_received(runtime: Runtime, tenant_id: TenantId, least: int) -> int:
    while True:
        if (received := await _received(runtime, tenant_id)) >= least:
            return received
        await asyncio.sleep(0.02)


async def _until_read(runtime: Runtime) -> None:
    while True:
        async with runtime.system("look whether the topic is read") as db:
            if await backlog.topic_read_until(db, TOPIC) is not None:
                return
        await asyncio.sleep(0.1)


async def _send(runtime: Runtime, tenant_id: TenantId, events: list[dict[str, Any]]) -> None:
    batches = [events[at : at + BATCH] for at in range(0, len(events), BATCH)]

    async def go_on() -> None:
        while batches:
            batch = batches.pop()
            while True:
                try:
                    answer = await ingest(runtime, tenant_id, batch)
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
            assert answer.accepted == len(batch), answer.verdicts[:1]

    await asyncio.gather(*(go_on() for _ in range(SENDERS)))


def _print_rate(name: str, begun: float, busy: float, *, events: int = EVENTS) -> None:
    seconds, used = time.perf_counter() - begun, time.process_time() - busy
    print(
        f"{name:24} {events / seconds:8,.0f} events/s, {used / events * 1e6:5.1f} µs of processor"
    )


async def _sizes(runtime: Runtime) -> dict[str, int]:
    """Bytes, by place."""
    async with runtime.system("measure what is kept") as db:
        keys = await db.scalar(
            sa.text(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits "
                "WHERE inhparent = 'event_key'::regclass"
            )
        )
        inbox = await db.scalar(sa.text("SELECT coalesce(sum(length(body)), 0) FROM event_inbox"))
        wal = await db.scalar(sa.text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    rows = await runtime.events.query(
        "SELECT sum(bytes_on_disk) AS bytes FROM system.parts "
        "WHERE active AND table = 'events' AND database = currentDatabase()",
        {},
    )
    folder = runtime.settings.data_dir
    archive = await asyncio.to_thread(
        lambda: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    )
    clickhouse = int(rows[0]["bytes"] or 0)
    return {
        "keys": int(keys or 0),
        "inbox": int(inbox or 0),
        "WAL": int(wal or 0),
        "clickhouse": clickhouse,
        "archive": archive,
    }


async def _open_shop(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id) as scope:
        meter = await catalog.create_meter(
            scope,
            code="tokens",
            name="Tokens",
            event_type="llm.request",
            aggregation=Aggregation.SUM,
            property_name="input_tokens",
        )
        product = await catalog.create_product(scope, code="llm", name="LLM")
        line = catalog.NewLine(
            code="tokens",
            name="Tokens",
            model="PER_UNIT",
            settings={"unitPrice": "0.001"},
            meter_id=meter.id,
        )
        plan = await catalog.create_rate_plan(
            scope, code="llm", name="LLM", currency="USD", lines=[line]
        )
        offering = await catalog.create_offering(
            scope, code="llm", name="LLM", product_id=product.id, rate_plan_id=plan.id
        )
        for number in range(CUSTOMERS):
            customer = await subscriptions.create_customer(
                scope, external_id=f"customer-{number}", name=f"{number}", currency="USD"
            )
            await subscriptions.create_subscription(
                scope,
                customer_id=customer.id,
                offering_id=offering.id,
                starts_at=scope.now - timedelta(days=40),
            )


def _events(count: int) -> list[dict[str, Any]]:
    dice = random.Random(count)
    now = datetime.now(UTC)
    return [
        {
            "idempotencyKey": str(uuid4()),
            "type": "llm.request",
            "customer": f"customer-{dice.randrange(CUSTOMERS)}",
            "occurredAt": (now - timedelta(seconds=dice.randrange(1, 3_600))).isoformat(),
            "properties": {
                "input_tokens": dice.randrange(1, 4_000),
                "output_tokens": dice.randrange(1, 900),
                "model": dice.choice(("claude-sonnet", "claude-haiku", "claude-opus")),
            },
        }
        for _ in range(count)
    ]


if __name__ == "__main__":
    main()
