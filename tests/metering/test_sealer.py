"""The sealer: one leads, a step may be done twice, and an engine that is away is waited for."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aforo import worker
from aforo.metering import archive, queries, sealer
from aforo.metering.models import SegmentState
from aforo.metering.sealer import SegmentMismatchError
from aforo.metering.stored import lines_of, packed
from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage import clickhouse, redis
from aforo.storage.jobs import JobName
from aforo.storage.scope import Runtime, open_runtime
from aforo.tenants.commands import create_tenant
from tests.metering.market import Market, open_market

WAIT_SECONDS = 60
NOBODY = "127.0.0.1:1"
"""Where no engine listens."""


async def test_a_segment_goes_from_the_inbox_to_archive_and_log(market: Market) -> None:
    await market.take(market.event("a"), market.event("b", customer="globex"))
    [confirmed] = await market.seal()
    [segment] = await market.rows("segment")
    assert (segment["segment_id"], segment["events"]) == (confirmed.segment_id, 2)
    assert segment["state"] == SegmentState.CONFIRMED
    assert segment["previous_sha256"] == sealer.GENESIS
    path = archive.path_of(market.runtime.settings.data_dir, market.tenant_id, confirmed.segment_id)
    assert archive.digest(path.read_bytes()) == segment["sha256"]
    assert await market.rows("event_inbox") == []
    async with market.scope() as scope:
        assert await queries.watermark(scope) == confirmed.segment_id
        log = await queries.recent_events(scope, watermark=confirmed.segment_id, first=10)
    assert [(row.idempotency_key, row.position) for row in log] == [("b", 1), ("a", 0)]


async def test_segments_of_a_tenant_form_a_chain(market: Market) -> None:
    confirmed = []
    for _ in range(3):
        await market.take(market.event())
        confirmed += await market.seal()
    assert [one.previous_id for one in confirmed] == [0, *(one.segment_id for one in confirmed[:2])]
    segments = await market.rows("segment", order_by="segment_id")
    hashes = [segment["sha256"] for segment in segments]
    assert [segment["previous_sha256"] for segment in segments] == [sealer.GENESIS, *hashes[:2]]


async def test_the_detectors_are_asked_once_for_all_customers_of_the_segments_so_far(
    market: Market,
) -> None:
    await market.take(market.event())
    await market.seal()
    await market.take(market.event(customer="globex"), market.event())
    [last] = await market.seal()
    [job] = [row for row in await market.rows("job") if row["name"] == JobName.DETECT_SIGNALS.name]
    assert sorted(job["arguments"]["customer_ids"]) == sorted(map(str, market.customers.values()))
    assert job["arguments"]["watermark"] == last.segment_id


async def test_an_event_waits_while_an_older_transaction_may_still_write(market: Market) -> None:
    async with market.scope() as scope:
        await scope.db.execute(sa.text("SELECT pg_current_xact_id()"))
        await market.take(market.event("younger"))
        assert await market.seal() == []
        assert len(await market.rows("event_inbox")) == 1
    [confirmed] = await market.seal()
    assert [one.idempotency_key for one in confirmed.events()] == ["younger"]


async def test_two_who_both_believe_to_lead_double_nothing_and_break_no_chain(
    market: Market, rival: Market
) -> None:
    seen: dict[int, int] = {}

    async def seal(one: Market) -> None:
        for _ in range(12):
            await sealer.seal_and_confirm(one.runtime)
            async with one.scope() as scope:
                watermark = await queries.watermark(scope)
                found = await scope.events.query(
                    f"SELECT count() AS events FROM {queries.EVENTS}", watermark=watermark
                )
            # The same watermark shows the same log, always.
            assert seen.setdefault(watermark, found[0]["events"]) == found[0]["events"]

    async def send() -> None:
        for _ in range(40):
            await market.take(*(market.event() for _ in range(5)))

    await asyncio.gather(seal(market), seal(rival), send())
    await market.seal()
    assert await market.used("calls") == 200
    assert sum(await links(market)) == 200


async def test_segments_are_sealed_one_after_the_other_also_by_two_at_once(
    market: Market, rival: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer, "SEGMENT_EVENTS_MAX", 1)
    for _ in range(2):
        await market.take(market.event())
    async with market.runtime.system("hold the sealing up") as db, asyncio.TaskGroup() as tasks:
        await db.execute(sa.text("LOCK TABLE segment IN SHARE ROW EXCLUSIVE MODE"))
        for waiting, one in enumerate((market, rival), 1):
            tasks.create_task(sealer.seal_and_confirm(one.runtime))
            await until_held_up(market, waiting)
        await db.commit()
    await market.seal()
    assert await links(market) == [1, 1]
    assert await market.used("calls") == 2


@pytest.fixture
async def parked(market: Market) -> AsyncIterator[None]:
    """Clear away what this tenant leaves unconfirmed: every later round would stumble over it."""
    yield
    async with market.runtime.system("clear a parked segment away") as db:
        for statement in (
            "UPDATE segment SET state = 'CONFIRMED' WHERE tenant_id = :tenant",
            "DELETE FROM event_inbox WHERE tenant_id = :tenant",
        ):
            await db.execute(sa.text(statement), {"tenant": market.tenant_id})


@pytest.fixture
def without_clickhouse(market: Market) -> Market:
    events = clickhouse.Events(f"http://aforo:x@{NOBODY}/aforo")
    return dataclasses.replace(market, runtime=dataclasses.replace(market.runtime, events=events))


async def test_a_key_that_was_forgotten_counts_once_and_parks_what_came_later(
    market: Market, parked: None
) -> None:
    sent = market.event("k")
    await market.take(sent)
    [first] = await market.seal()
    async with market.runtime.system("forget a key") as db:
        await db.execute(
            sa.text("DELETE FROM event_key WHERE tenant_id = :tenant"), {"tenant": market.tenant_id}
        )
    assert (await market.take(sent)).accepted == 1
    with pytest.raises(SegmentMismatchError, match="sealed 1 events, ClickHouse has 0"):
        await market.seal()
    async with market.scope() as scope:
        assert await queries.watermark(scope) >= first.segment_id
    assert len(await market.rows("event_inbox")) == 1
    assert await market.used("tokens") == 10


@pytest.mark.parametrize("form", ["packed", "plain"])
async def test_events_that_were_kept_before_their_texts_were_come_into_the_log_with_them(
    market: Market, form: str
) -> None:
    await market.take(*(market.event(properties={"tokens": count}) for count in (3, 4)))
    older = packed([msgspec.structs.replace(one, texts=None) for one in await market.waiting()])
    async with market.runtime.system("keep events as they were kept once") as db:
        await db.execute(
            sa.text("UPDATE event_inbox SET body = :body WHERE tenant_id = :tenant"),
            {
                "tenant": market.tenant_id,
                "body": older.body if form == "packed" else lines_of(older.body),
            },
        )
    await market.seal()
    assert await market.used("tokens") == 7


async def test_a_sealed_event_that_was_changed_is_not_let_into_the_log(
    market: Market, without_clickhouse: Market, parked: None
) -> None:
    await market.take(market.event())
    with pytest.raises(Unavailable):
        await without_clickhouse.seal()
    async with market.runtime.system("forge an event") as db:
        await db.execute(
            sa.text("UPDATE event_inbox SET body = body || ' ' WHERE tenant_id = :tenant"),
            {"tenant": market.tenant_id},
        )
    with pytest.raises(SegmentMismatchError, match="no longer holds what segment"):
        await market.seal()
    assert await market.used("tokens") == 0


async def test_what_is_wrong_with_one_tenant_does_not_hold_up_another(
    market: Market, without_clickhouse: Market, parked: None
) -> None:
    tenant = await create_tenant(market.runtime, name="Another")
    other = await open_market(market.runtime, TenantId(tenant.tenant.tenant_id))
    await market.take(market.event())
    with pytest.raises(Unavailable):
        await without_clickhouse.seal()
    async with market.runtime.system("forge an event") as db:
        await db.execute(
            sa.text("UPDATE event_inbox SET body = '{}' WHERE tenant_id = :tenant"),
            {"tenant": market.tenant_id},
        )
    await other.take(other.event())
    with pytest.raises(SegmentMismatchError):
        await other.seal()
    assert await other.used("tokens") == 10
    assert await market.used("tokens") == 0


async def test_without_clickhouse_events_are_accepted_and_projected_once_it_is_back(
    market: Market, without_clickhouse: Market
) -> None:
    for _ in range(2):
        answer = await without_clickhouse.take(market.event(), market.event())
        assert answer.accepted == 2
        with pytest.raises(Unavailable, match="ClickHouse cannot be reached"):
            await without_clickhouse.seal()
    assert len(await market.waiting()) == 4
    async with market.scope() as scope:
        first = (await market.rows("segment", order_by="segment_id"))[0]
        assert await queries.watermark(scope) == first["segment_id"] - 1
    assert len(await market.seal()) == 2
    assert await market.used("tokens") == 40


async def test_without_redis_events_are_accepted_and_sealed_and_only_the_live_feed_is_lost(
    market: Market,
) -> None:
    live = redis.Live(f"redis://{NOBODY}/0")
    without = dataclasses.replace(market, runtime=dataclasses.replace(market.runtime, live=live))
    assert (await without.take(market.event())).accepted == 1
    assert await worker.seal_once(without.runtime)
    await live.close()
    assert await market.used("tokens") == 10


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+asyncpg://aforo@{NOBODY}/aforo",
        "postgresql+asyncpg://aforo@/aforo?host=/nowhere&port=5432",
        "postgresql+asyncpg://aforo@nowhere.invalid/aforo",
    ],
)
async def test_without_postgresql_ingestion_says_so_and_when_to_come_back(
    market: Market, url: str
) -> None:
    settings = dataclasses.replace(market.runtime.settings, database_url=url)
    runtime = open_runtime(settings, market.runtime.plugins, market.runtime.clock)
    with pytest.raises(Unavailable) as away:
        await dataclasses.replace(market, runtime=runtime).take(market.event())
    assert away.value.retry_after_seconds > 0
    with pytest.raises(Unavailable):
        await worker.seal_once(runtime)
    await runtime.close()


async def test_a_connection_that_is_cut_before_the_commit_leaves_nothing(market: Market) -> None:
    async with market.runtime.system("hold the writing up") as db:
        await db.execute(sa.text("LOCK TABLE event_inbox IN SHARE MODE"))
        taking = asyncio.create_task(market.take(market.event("k")))
        await until_held_up(market, 1)
        query = sa.text("SELECT pid FROM pg_locks WHERE NOT granted")
        await terminate(market.runtime, await db.scalar(query))
    with pytest.raises(Unavailable):
        await taking
    for table in ("event_key", "event_inbox", "ingest_batch"):
        assert await market.rows(table) == []
    assert (await market.take(market.event("k"))).accepted == 1


async def links(market: Market) -> list[int]:
    """The events of each segment, after a look at the chain that they form."""
    previous = sealer.GENESIS
    segments = await market.rows("segment", order_by="segment_id")
    for segment in segments:
        assert segment["previous_sha256"] == previous
        previous = segment["sha256"]
    return [segment["events"] for segment in segments]


async def until_held_up(market: Market, waiting: int) -> None:
    """Wait until so many transactions wait for a lock."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            async with market.scope() as scope:
                query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if (await scope.db.scalar(query) or 0) >= waiting:
                    return
            await asyncio.sleep(0.01)


async def terminate(runtime: Runtime, pid: int) -> None:
    """Let PostgreSQL end a connection, as it does when it is shut down."""
    login = create_async_engine(runtime.settings.database_url, poolclass=NullPool)
    async with login.connect() as other:
        await other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    await login.dispose()
