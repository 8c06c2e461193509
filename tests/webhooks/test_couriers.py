"""Couriers that die, that are several, and that meet slow endpoints."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant
from aforo.webhooks import courier
from aforo.webhooks.commands import disable_endpoint
from aforo.webhooks.models import DeliveryState
from tests.receivers import Answer, Heard, receiving, reply
from tests.webhooks.wire import Wire, names

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 60

# Another process, with the clock of the test, that delivers what is due.
DELIVER = """
import asyncio, sys
from datetime import datetime
from uuid import UUID
from aforo.plugins import load_registry
from aforo.settings import from_environment
from aforo.storage.clock import MovableClock
from aforo.storage.scope import open_runtime
from aforo.webhooks.courier import deliver_due

async def main(tenant_id, now):
    clock = MovableClock(datetime.fromisoformat(now))
    await deliver_due(open_runtime(from_environment(), load_registry(), clock), UUID(tenant_id))

asyncio.run(main(*sys.argv[1:]))
"""


async def deliver_elsewhere(wire: Wire, repository: Path, fail: str) -> int:
    """Deliver in a process that dies at a fail point; its exit code."""
    settings = wire.runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DELIVER,
        str(wire.tenant_id),
        wire.clock.now().isoformat(),
        cwd=repository,
        env=os.environ
        | {
            "AFORO_DATABASE_URL": settings.database_url,
            "AFORO_REDIS_URL": settings.redis_url,
            "AFORO_CLICKHOUSE_URL": settings.clickhouse_url,
            "AFORO_KEY_PEPPER": settings.key_pepper,
            "AFORO_ALLOW_LOOPBACK_CALLS": "true",
            "AFORO_FAILPOINTS": "1",
            "AFORO_FAILPOINT": fail,
        },
    )
    return await process.wait()


@asynccontextmanager
async def couriers(runtime: Runtime, count: int) -> AsyncIterator[None]:
    """Several couriers that deliver at the same time."""
    tasks = [asyncio.create_task(courier.run(runtime)) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def counting(count: int, done: asyncio.Event) -> Answer:
    """Answer well, and tell when so many have come."""
    seen = 0

    async def answer(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.write(reply())
        if seen == count:
            done.set()

    return answer


@pytest.mark.parametrize(("fail", "sent"), [("scope.committed", 0), ("webhook.sent", 1)])
async def test_what_a_killed_courier_had_is_sent_again_with_the_same_bytes_and_id(
    *, wire: Wire, repository: Path, fail: str, sent: int
) -> None:
    await wire.make_endpoint()
    await wire.happen()
    await wire.fan_out()
    assert await deliver_elsewhere(wire, repository, fail) == -signal.SIGKILL
    assert len(wire.receiver.heard) == sent
    await wire.run_jobs()
    assert len(wire.receiver.heard) == sent, "as long as its lease runs it is taken to be alive"
    await wire.run_jobs(after=timedelta(seconds=courier.LEASE_SECONDS))
    assert len(wire.receiver.heard) == sent + 1
    assert len({(one.body, one.headers["webhook-id"]) for one in wire.receiver.heard}) == 1
    [delivery] = await wire.deliveries()
    assert (delivery.state, delivery.leases) == (DeliveryState.DELIVERED, 2)
    assert [one.number for one in await wire.attempts()] == [1]


async def test_several_couriers_keep_each_objects_order_and_two_calls_at_a_time(wire: Wire) -> None:
    await wire.make_endpoint()
    objects = {name: new_id() for name in "abcd"}
    done = asyncio.Event()
    wire.receiver.answer = counting(4 * 8, done)
    async with couriers(wire.runtime, 3):
        for number in range(8):
            for name, object_id in objects.items():
                await wire.happen(f"{name}{number}", object_id=object_id)
            await wire.fan_out()
        async with asyncio.timeout(WAIT_SECONDS):
            await done.wait()
    heard = names(wire.receiver.heard)
    for name in objects:
        mine = [one for one in heard if one.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(8)]
    assert wire.receiver.open_max <= courier.IN_FLIGHT_PER_ENDPOINT


async def test_slow_endpoints_of_one_tenant_do_not_hold_up_another_one(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "IN_FLIGHT_MAX", 6)
    monkeypatch.setattr(courier, "IN_FLIGHT_PER_TENANT", 4)
    monkeypatch.setattr(courier, "FINISH_SECONDS", 0.1)
    other = TenantId((await create_tenant(wire.runtime, name="Other")).tenant.tenant_id)
    busy, done = asyncio.Event(), asyncio.Event()

    async def hang(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
        if len(slow.heard) == courier.IN_FLIGHT_PER_TENANT:
            busy.set()
        await asyncio.Event().wait()

    wire.receiver.answer = counting(1, done)
    async with receiving(hang) as slow, couriers(wire.runtime, 1):
        for _ in range(4):
            await wire.make_endpoint(slow.url())
        for _ in range(5):
            await wire.happen()
        await wire.fan_out()
        async with asyncio.timeout(WAIT_SECONDS):
            await busy.wait()
        await wire.make_endpoint(owner=other)
        await wire.happen("quick", owner=other)
        await wire.fan_out(other)
        async with asyncio.timeout(courier.CALL_SECONDS / 2):
            await done.wait()
        assert len(slow.heard) == courier.IN_FLIGHT_PER_TENANT
    assert names(wire.receiver.heard) == ["quick"]
    left = await wire.deliveries()
    assert {(one.state, one.lease_until) for one in left} == {(DeliveryState.PENDING, None)}, (
        "what was cut off is handed back at once"
    )


async def test_a_courier_that_lost_its_lease_records_nothing(wire: Wire) -> None:
    made = await wire.make_endpoint()
    await wire.happen()
    await wire.fan_out()
    came, again = asyncio.Event(), asyncio.Event()

    async def wait(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if len(wire.receiver.heard) == 1:
            came.set()
            await again.wait()
        writer.write(reply(500 if heard is wire.receiver.heard[0] else 200))

    wire.receiver.answer = wait
    [late] = await courier.take(wire.runtime, wire.tenant_id, made.endpoint.id)
    assert await courier.take(wire.runtime, wire.tenant_id, made.endpoint.id) == []
    slow = asyncio.create_task(courier.deliver(wire.runtime, late))
    async with asyncio.timeout(WAIT_SECONDS):
        await came.wait()
    wire.clock.advance(timedelta(seconds=courier.LEASE_SECONDS))
    assert await courier.deliver_due(wire.runtime, wire.tenant_id) == 1
    again.set()
    await slow
    [delivery] = await wire.deliveries()
    assert delivery.state is DeliveryState.DELIVERED
    assert [one.status for one in await wire.attempts()] == [200]


async def test_what_was_taken_is_not_sent_once_the_endpoint_is_disabled(wire: Wire) -> None:
    made = await wire.make_endpoint()
    await wire.happen()
    await wire.fan_out()
    [taken] = await courier.take(wire.runtime, wire.tenant_id, made.endpoint.id)
    async with wire.runtime.scope(wire.tenant_id) as scope:
        await disable_endpoint(scope, endpoint_id=made.endpoint.id)
    await courier.deliver(wire.runtime, taken)
    assert wire.receiver.heard == []
    [delivery] = await wire.deliveries()
    assert delivery.state is DeliveryState.CANCELLED
