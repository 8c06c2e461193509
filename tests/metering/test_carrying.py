"""Events that go through a topic: durable at once, in the log later, each counted once."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from aforo import doctor
from aforo.api.app import create_app
from aforo.metering import backlog, carrying, conservation, quarantine
from aforo.metering.carried import UnreadableRecordError
from aforo.metering.delivering import deliver
from aforo.metering.taking import BatchRefused
from aforo.metering.verdicts import VerdictKind
from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.settings import Settings
from aforo.storage import topic as topics
from aforo.storage.clock import MovableClock
from aforo.storage.endings import end_all
from aforo.storage.scope import Runtime
from aforo.storage.topic import RecordsGoneError, Topic
from aforo.tenants.commands import NewTenant
from tests.conftest import NOW
from tests.meanwhile import until
from tests.metering.brokers import cluster, create_topic
from tests.metering.market import Market, open_market

TOPIC = "events"
WAIT_SECONDS = 60
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with cluster() as found:
        yield found


@pytest.fixture(scope="module")
async def carried(shared_runtime: Runtime, brokers: str) -> AsyncIterator[Runtime]:
    """The suite's pools, with a topic that is read."""
    create_topic(brokers, TOPIC)
    runtime = on_topic(shared_runtime, brokers, TOPIC)
    async with delivered(runtime):
        await until(lambda: is_read(runtime), seconds=WAIT_SECONDS)
        yield runtime


@pytest.fixture
async def market(carried: Runtime, clock: MovableClock, tenant_id: TenantId) -> Market:
    """A market whose events go through the topic."""
    return await open_market(dataclasses.replace(carried, clock=clock), tenant_id)


async def test_an_accepted_event_is_with_the_brokers_and_comes_into_the_log(
    market: Market,
) -> None:
    async with held_up(market.runtime):
        answer = await market.take(market.event("a"), market.event("b", customer="globex"))
        assert (answer.received, answer.accepted) == (2, 2)
        assert [await market.rows(table) for table in ("event_key", "ingest_batch")] == [[], []]
    await until_kept(market, 2)
    await seal(market)
    assert [await market.used("tokens", name) for name in ("acme", "globex")] == [10, 10]
    assert (await balance(market)).accepted == 2


async def test_a_key_that_is_known_is_answered_at_once(market: Market) -> None:
    first = market.event("k")
    await market.take(first)
    await until_kept(market, 1)
    [key] = await market.rows("event_key")
    again = await market.take(first, market.event("k", properties={"tokens": 11}), market.event())
    assert (again.accepted, again.duplicates, again.conflicts) == (1, 1, 1)
    assert {verdict.event_id for verdict in again.verdicts} == {key["event_id"]}
    await until_kept(market, 2)
    assert len(await market.rows("event_conflict")) == 1
    found = await balance(market)
    assert (found.received, found.accepted, found.duplicates, found.conflicts) == (4, 2, 1, 1)


async def test_of_two_that_race_the_first_counts_and_the_other_is_accounted_for(
    market: Market,
) -> None:
    async with held_up(market.runtime):
        for event in (
            market.event("k"),
            market.event("k"),
            market.event("k", properties={"tokens": 99}),
        ):
            assert (await market.take(event)).accepted == 1
    await until_counted(market, 3)
    await seal(market)
    assert await market.used("calls") == 1
    found = await balance(market)
    assert (found.received, found.accepted, found.duplicates, found.conflicts) == (3, 1, 1, 1)
    [conflict] = await market.rows("event_conflict")
    assert "99" in conflict["properties"]


async def test_repeats_within_a_batch_are_told_and_counted(market: Market) -> None:
    await market.take(market.event("x"))
    await until_kept(market, 1)
    unknown = market.event("k", customer="nobody")
    event = market.event("k")
    answer = await market.take(
        event, event, unknown, market.event("x"), market.event("new"), {"type": "no key"}
    )
    kinds = [(verdict.index, verdict.kind) for verdict in answer.verdicts]
    assert kinds == [
        (1, VerdictKind.DUPLICATE),
        (2, VerdictKind.CONFLICT),
        (3, VerdictKind.DUPLICATE),
        (5, VerdictKind.REJECTED),
    ]
    assert answer.accepted == 2
    await until_counted(market, 7)
    await seal(market)
    assert await market.used("calls") == 3
    found = await balance(market)
    assert (found.duplicates, found.conflicts, found.rejected) == (2, 1, 1)


async def test_what_is_quarantined_goes_the_short_way_and_can_be_released(market: Market) -> None:
    assert (await market.take(market.event("k", customer="later"))).quarantined == 1
    assert len(await market.rows("quarantined_event")) == 1
    await market.let_in("later")
    async with market.scope() as scope:
        await quarantine.release(scope, quarantine.Wanted(code="UNKNOWN_CUSTOMER"))
    await seal(market)
    assert (await balance(market)).accepted == 1


async def test_an_atomic_batch_goes_the_short_way(market: Market) -> None:
    assert (await market.take(market.event("k"), atomic=True)).accepted == 1
    assert len(await market.rows("event_inbox")) == 1
    with pytest.raises(BatchRefused):
        await market.take(market.event(), market.event("k", type="other"), atomic=True)


async def test_a_correction_waits_for_what_was_sent_before_it(
    market: Market, carried: Runtime
) -> None:
    ours = dataclasses.replace(market, runtime=dataclasses.replace(carried))
    corrected, void = ours.event("b"), {"idempotencyKey": "void", "voids": "a"}
    amended = ours.event("b2", supersedes="b", properties={"tokens": 7})
    await ours.take(ours.event("a"))
    for sent in (void, amended):
        answer = await ours.take(corrected, sent)
        assert answer.accepted + answer.duplicates == 2
    nothing = await ours.take({"idempotencyKey": "void nothing", "voids": "nothing"})
    assert [verdict.code for verdict in nothing.verdicts] == ["UNKNOWN_EVENT"]
    await until_counted(ours, 6)
    await seal(ours)
    assert await ours.used("tokens") == 7


async def test_a_correction_is_to_come_again_where_nothing_is_read(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "READ_SECONDS_MAX", 0.2)
    ahead = dataclasses.replace(market.runtime, clock=MovableClock(NOW + timedelta(days=60)))
    with pytest.raises(Unavailable, match="may be on its way still"):
        await carrying._until_read(ahead, other_topic(market, TOPIC))


async def test_a_topic_that_is_read_again_counts_nothing_twice(market: Market) -> None:
    runtime = dataclasses.replace(market.runtime, topic=other_topic(market, "again"))
    ours = dataclasses.replace(market, runtime=runtime)
    async with delivered(runtime):
        await until(lambda: is_read(runtime), seconds=WAIT_SECONDS)
        await ours.take(*(ours.event(f"event-{number}") for number in range(50)))
        await until_kept(ours, 50)
        async with runtime.system("rewind the topic") as db:
            await db.execute(
                sa.text("UPDATE topic_place SET next_offset = 0 WHERE topic = 'again'")
            )
        # Whoever has read on is not where PostgreSQL says: it begins there anew.
        await ours.take(ours.event("one more"))
        await until_kept(ours, 51)
    await seal(ours)
    assert await ours.used("calls") == 51
    found = await balance(ours)
    assert (found.accepted, found.balanced) == (51, True)


async def test_a_round_of_many_events_is_kept_in_order_of_each_key(market: Market) -> None:
    for start in range(0, 3_000, 1_000):
        events = [market.event(f"event-{start + number}") for number in range(1_000)]
        assert (await market.take(*events)).accepted == 1_000
    await until_counted(market, 3_000)
    await seal(market)
    assert await market.used("calls") == 3_000


async def test_without_brokers_the_answer_is_to_come_again_and_nothing_was_kept(
    market: Market, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "DELIVERY_SECONDS_MAX", 0.3)
    monkeypatch.setattr(topics, "LINGER_MILLISECONDS", 1)
    runtime = on_topic(market.runtime, NOBODY, TOPIC)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as client:
        response = await client.post("/v1/events", json=[market.event("k")])
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "the brokers of the topic have not answered" in response.text
    assert runtime.topic is not None
    await runtime.topic.close()
    assert [await market.rows(table) for table in ("event_key", "ingest_batch")] == [[], []]
    assert (await market.take(market.event("k"))).accepted == 1


async def test_without_room_in_the_inbox_events_wait_in_the_topic(market: Market) -> None:
    full = dataclasses.replace(market.runtime.settings, disk_percent_max=1)
    runtime = dataclasses.replace(market.runtime, settings=full)
    assert runtime.topic is not None
    with pytest.raises(Unavailable, match="the disk of the archive is"):
        await deliver(runtime, runtime.topic)
    assert (await dataclasses.replace(market, runtime=runtime).take(market.event())).accepted == 1


async def test_a_topic_that_nobody_reads_takes_no_events(market: Market) -> None:
    runtime = dataclasses.replace(market.runtime, topic=other_topic(market, "unread"))
    with pytest.raises(Unavailable, match="no worker has begun to read the topic") as refused:
        await dataclasses.replace(market, runtime=runtime).take(market.event())
    assert refused.value.code == "NO_ROOM"


async def test_a_topic_that_is_read_too_far_behind_takes_no_events(
    market: Market, clock: MovableClock
) -> None:
    runtime = dataclasses.replace(market.runtime, topic=other_topic(market, "slow"))
    async with runtime.system("fall behind") as db:
        await db.execute(
            sa.text("INSERT INTO topic_place VALUES ('slow', 0, 0, :then)"),
            {"then": clock.now() - carrying.BEHIND_MAX - timedelta(minutes=1)},
        )
    with pytest.raises(Unavailable, match="the topic is read 6:01:00 behind"):
        await dataclasses.replace(market, runtime=runtime).take(market.event())


async def test_the_doctor_says_how_far_behind_a_topic_is_read(
    market: Market, clock: MovableClock
) -> None:
    async with market.runtime.system("ask the doctor") as db:
        nobody = await doctor._topic(db, clock.now(), "nobody's")
        quiet = await doctor._topic(db, clock.now(), TOPIC)
        behind = await doctor._topic(db, clock.now() + timedelta(days=30), TOPIC)
    assert (nobody.ok, nobody.says) == (False, "nobody has read nobody's yet")
    assert (quiet.ok, behind.ok) == (True, False)
    assert "AFORO_KAFKA_BROKERS" in behind.advice


async def test_records_that_are_gone_are_told_and_nothing_is_passed_over(market: Market) -> None:
    topic = other_topic(market, "gone")
    await topic.send([(b"k", b"v")])
    async with market.runtime.system("have read what is not there") as db:
        for partition in range(4):
            await db.execute(
                sa.text("INSERT INTO topic_place VALUES ('gone', :partition, 7, now())"),
                {"partition": partition},
            )
    with pytest.raises(RecordsGoneError):
        async with asyncio.timeout(WAIT_SECONDS):
            await deliver(market.runtime, topic)
    await topic.close()


async def test_a_record_that_is_none_of_ours_stops_its_reader_and_is_named(market: Market) -> None:
    topic = other_topic(market, "foreign")
    await topic.send([(b"k", b"not ours")])
    with pytest.raises(UnreadableRecordError, match=r"record 0 of partition \d: no event"):
        async with asyncio.timeout(WAIT_SECONDS):
            await deliver(market.runtime, topic)
    await topic.close()


def on_topic(runtime: Runtime, brokers: str, name: str) -> Runtime:
    return dataclasses.replace(
        runtime,
        topic=Topic(with_topic(runtime.settings, brokers, name)),
        settings=with_topic(runtime.settings, brokers, name),
    )


def with_topic(settings: Settings, brokers: str, name: str) -> Settings:
    return dataclasses.replace(settings, kafka_brokers=tuple(brokers.split(",")), kafka_topic=name)


def other_topic(market: Market, name: str) -> Topic:
    create_topic(",".join(market.runtime.settings.kafka_brokers), name)
    return Topic(dataclasses.replace(market.runtime.settings, kafka_topic=name))


@asynccontextmanager
async def delivered(runtime: Runtime) -> AsyncIterator[None]:
    """The topic is read meanwhile, as a worker does it."""

    async def go_on() -> None:
        while True:
            try:
                assert runtime.topic is not None
                await deliver(runtime, runtime.topic)
            except Unavailable:
                await asyncio.sleep(0.05)

    reading = asyncio.create_task(go_on())
    try:
        yield
    finally:
        await end_all([reading], again_seconds=WAIT_SECONDS)
        assert runtime.topic is not None
        await runtime.topic.close()


@asynccontextmanager
async def held_up(runtime: Runtime) -> AsyncIterator[None]:
    """Nothing comes out of the topic meanwhile."""
    async with runtime.system("hold the topic up") as db:
        await db.execute(sa.text("SELECT 1 FROM topic_place FOR UPDATE"))
        yield


async def is_read(runtime: Runtime) -> bool:
    assert runtime.topic is not None
    async with runtime.system("look whether the topic is read") as db:
        return await backlog.topic_read_until(db, runtime.topic.name) is not None


async def until_kept(market: Market, keys: int) -> None:
    async def are_there() -> bool:
        return len(await market.rows("event_key")) >= keys

    await until(are_there, seconds=WAIT_SECONDS)


async def until_counted(market: Market, received: int) -> None:
    async def are_counted() -> bool:
        batches = await market.rows("ingest_batch")
        return sum(batch["received"] for batch in batches) >= received

    await until(are_counted, seconds=WAIT_SECONDS)


async def seal(market: Market) -> None:
    await market.seal()
    assert await market.rows("event_inbox") == []
    assert (await balance(market)).balanced


async def balance(market: Market) -> Any:
    async with market.scope() as scope:
        day = Period(scope.now - timedelta(hours=12), scope.now + timedelta(hours=12))
        found = await conservation.balances(scope, day)
    return sum(found.values(), conservation.Balance())
