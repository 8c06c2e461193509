"""Workers that read the topic of events are killed around their transaction, and frozen: nothing is
lost, and nothing counts twice."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aforo.metering import backlog, conservation
from aforo.plugins import load_registry
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.settings import from_environment
from aforo.storage.embedded.processes import wait_until
from aforo.storage.scope import open_runtime
from aforo.tenants.commands import create_tenant
from tests.meanwhile import until
from tests.metering.brokers import cluster, create_topic
from tests.metering.market import Market, open_market
from tests.scenarios.test_takeover import (
    WAIT_SECONDS,
    Workers,
    check,
    is_all_in_log,
    is_frozen,
    state_of,
)

TOPIC = "events-of-workers"
POINTS = ("deliver.written", "deliver.committed")
EVENTS = 200


@pytest.fixture(scope="module")
def with_topic(migrated: dict[str, str]) -> Iterator[dict[str, str]]:
    """The servers of the module, and brokers."""
    with cluster() as brokers:
        create_topic(brokers, TOPIC)
        yield {**migrated, "AFORO_KAFKA_BROKERS": brokers, "AFORO_KAFKA_TOPIC": TOPIC}


@pytest.fixture
def workers(with_topic: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    started = Workers(with_topic, tmp_path / "workers.log")
    yield started
    started.end()


@pytest.fixture
async def open_shop(with_topic: dict[str, str]) -> AsyncIterator[Market]:
    """A tenant of its own, whose events go through the topic."""
    runtime = open_runtime(from_environment(with_topic), load_registry())
    tenant = await create_tenant(runtime, name="Carried")
    yield await open_market(runtime, TenantId(tenant.tenant.tenant_id))
    await runtime.close()


async def test_readers_that_are_killed_or_frozen_lose_nothing_and_double_nothing(
    open_shop: Market, workers: Workers, with_topic: dict[str, str]
) -> None:
    keys: list[str] = []

    async def send() -> None:
        new = [f"event-{len(keys) + number}" for number in range(EVENTS)]
        assert (await open_shop.take(*map(open_shop.event, new))).accepted == EVENTS
        keys.extend(new)

    for number, point in enumerate(POINTS):
        doomed = workers.begin(point)
        if number == 0:
            await until(lambda: is_read(open_shop), seconds=WAIT_SECONDS)
        await send()
        assert wait_until(lambda pid=doomed: state_of(pid) == "Z", seconds=WAIT_SECONDS), (
            workers.said
        )
    readers = [workers.begin() for _ in range(2)]
    await until(lambda: is_kept(open_shop, len(keys)), seconds=WAIT_SECONDS)

    os.kill(readers[0], signal.SIGSTOP)
    assert wait_until(lambda: is_frozen(readers[0]), seconds=WAIT_SECONDS)
    await send()
    await until(lambda: is_kept(open_shop, len(keys)), seconds=WAIT_SECONDS)
    os.kill(readers[0], signal.SIGCONT)
    os.kill(readers[1], signal.SIGKILL)
    await send()
    await until(lambda: is_kept(open_shop, len(keys)), seconds=WAIT_SECONDS)
    await until(lambda: is_all_in_log(open_shop), seconds=WAIT_SECONDS)
    await check(open_shop, with_topic, keys)
    async with open_shop.scope() as scope:
        month = Period(scope.now - 15 * conservation.HOUR, scope.now + conservation.HOUR)
        hours = (await conservation.balances(scope, month)).values()
    assert all(hour.balanced for hour in hours)
    assert sum(hour.accepted for hour in hours) == len(keys)


async def is_read(market: Market) -> bool:
    async with market.runtime.system("look whether the topic is read") as db:
        return await backlog.topic_read_until(db, TOPIC) is not None


async def is_kept(market: Market, events: int) -> bool:
    return len(await market.rows("event_key")) >= events
