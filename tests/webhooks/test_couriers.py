"""Couriers that die, that are several, and that meet slow endpoints."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant
from aforo.webhooks import courier
from aforo.webhooks.commands import disable_endpoint
from aforo.webhooks.fan_out import fan_out
from aforo.webhooks.models import DeliveryState
from tests.receivers import Answer, Heard, Receiver, receiving, reply
from tests.webhooks.conftest import Happen, MakeEndpoint
from tests.webhooks.log import attempts_of, deliveries_of, names

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20

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


async def deliver_elsewhere(runtime: Runtime, repository: Path, tenant_id: UUID, fail: str) -> int:
    """Deliver in a process that dies at a fail point; its exit code."""
    settings = runtime.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DELIVER,
        str(tenant_id),
        runtime.clock.now().isoformat(),
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


async def fanned_out(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id) as scope:
        await fan_out(scope)


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
    *,
    runtime: Runtime,
    tenant_id: TenantId,
    clock: MovableClock,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
    run_jobs: Happen,
    repository: Path,
    fail: str,
    sent: int,
) -> None:
    await make_endpoint()
    await happen()
    await fanned_out(runtime, tenant_id)
    assert await deliver_elsewhere(runtime, repository, tenant_id, fail) == -signal.SIGKILL
    assert len(receiver.heard) == sent
    await run_jobs()
    assert len(receiver.heard) == sent, "as long as its lease runs it is taken to be alive"
    clock.advance(timedelta(seconds=courier.LEASE_SECONDS))
    await run_jobs()
    assert len(receiver.heard) == sent + 1
    assert len({(one.body, one.headers["webhook-id"]) for one in receiver.heard}) == 1
    [delivery] = await deliveries_of(runtime, tenant_id)
    assert (delivery.state, delivery.leases) == (DeliveryState.DELIVERED, 2)
    assert [one.number for one in await attempts_of(runtime, tenant_id)] == [1]


async def test_several_couriers_keep_each_objects_order_and_two_calls_at_a_time(
    runtime: Runtime,
    tenant_id: TenantId,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
) -> None:
    await make_endpoint()
    objects = {name: new_id() for name in "abcd"}
    done = asyncio.Event()
    receiver.answer = counting(4 * 8, done)
    async with couriers(runtime, 3):
        for number in range(8):
            for name, object_id in objects.items():
                await happen(f"{name}{number}", object_id=object_id)
            await fanned_out(runtime, tenant_id)
        async with asyncio.timeout(WAIT_SECONDS):
            await done.wait()
    heard = names(receiver.heard)
    for name in objects:
        mine = [one for one in heard if one.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(8)]
    assert receiver.open_max <= courier.IN_FLIGHT_PER_ENDPOINT


async def test_slow_endpoints_of_one_tenant_do_not_hold_up_another_one(
    runtime: Runtime,
    tenant_id: TenantId,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier, "IN_FLIGHT_MAX", 6)
    monkeypatch.setattr(courier, "IN_FLIGHT_PER_TENANT", 4)
    monkeypatch.setattr(courier, "FINISH_SECONDS", 0.1)
    other = TenantId((await create_tenant(runtime, name="Other")).tenant.tenant_id)
    busy, done = asyncio.Event(), asyncio.Event()

    async def hang(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
        if len(slow.heard) == courier.IN_FLIGHT_PER_TENANT:
            busy.set()
        await asyncio.Event().wait()

    receiver.answer = counting(1, done)
    async with receiving(hang) as slow, couriers(runtime, 1):
        for _ in range(4):
            await make_endpoint(slow.url())
        for _ in range(5):
            await happen()
        await fanned_out(runtime, tenant_id)
        async with asyncio.timeout(WAIT_SECONDS):
            await busy.wait()
        await make_endpoint(owner=other)
        await happen("quick", owner=other)
        await fanned_out(runtime, other)
        async with asyncio.timeout(courier.CALL_SECONDS / 2):
            await done.wait()
        assert len(slow.heard) == courier.IN_FLIGHT_PER_TENANT
    assert names(receiver.heard) == ["quick"]
    left = await deliveries_of(runtime, tenant_id)
    assert {(one.state, one.lease_until) for one in left} == {(DeliveryState.PENDING, None)}, (
        "what was cut off is handed back at once"
    )


async def test_a_courier_that_lost_its_lease_records_nothing(
    runtime: Runtime,
    tenant_id: TenantId,
    clock: MovableClock,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
) -> None:
    made = await make_endpoint()
    await happen()
    await fanned_out(runtime, tenant_id)
    came, again = asyncio.Event(), asyncio.Event()

    async def wait(heard: Heard, writer: asyncio.StreamWriter) -> None:
        if len(receiver.heard) == 1:
            came.set()
            await again.wait()
        writer.write(reply(500 if heard is receiver.heard[0] else 200))

    receiver.answer = wait
    [late] = await courier.take(runtime, tenant_id, made.endpoint.id)
    assert await courier.take(runtime, tenant_id, made.endpoint.id) == []
    slow = asyncio.create_task(courier.deliver(runtime, late))
    async with asyncio.timeout(WAIT_SECONDS):
        await came.wait()
    clock.advance(timedelta(seconds=courier.LEASE_SECONDS))
    assert await courier.deliver_due(runtime, tenant_id) == 1
    again.set()
    await slow
    [delivery] = await deliveries_of(runtime, tenant_id)
    assert delivery.state is DeliveryState.DELIVERED
    assert [one.status for one in await attempts_of(runtime, tenant_id)] == [200]


async def test_what_was_taken_is_not_sent_once_the_endpoint_is_disabled(
    runtime: Runtime,
    tenant_id: TenantId,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
) -> None:
    made = await make_endpoint()
    await happen()
    await fanned_out(runtime, tenant_id)
    [taken] = await courier.take(runtime, tenant_id, made.endpoint.id)
    async with runtime.scope(tenant_id) as scope:
        await disable_endpoint(scope, endpoint_id=made.endpoint.id)
    await courier.deliver(runtime, taken)
    assert receiver.heard == []
    [delivery] = await deliveries_of(runtime, tenant_id)
    assert delivery.state is DeliveryState.CANCELLED
