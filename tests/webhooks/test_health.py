"""How an endpoint fares that fails: gone at once, or warned and disabled days later."""

import json
from datetime import datetime

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.event_types import EventType
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.webhooks.models import (
    DeliveryState,
    DisabledReason,
    EndpointState,
)
from aforo.webhooks.schedule import DISABLED_AFTER, PAUSES
from tests.receivers import Receiver, answers, receiving
from tests.webhooks.conftest import Happen, MakeEndpoint
from tests.webhooks.log import deliveries_of, endpoint_of, names, told_of

pytestmark = pytest.mark.anyio


async def test_410_disables_at_once_cancels_the_rest_and_tells_the_owners_other_endpoints(
    runtime: Runtime,
    tenant_id: TenantId,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
    run_jobs: Happen,
) -> None:
    made = await make_endpoint(receiver.url("/hook?token=secret"))
    async with receiving() as other:
        await make_endpoint(other.url(), EventType.WEBHOOK_DISABLED)
        receiver.answer = answers(410)
        object_id = new_id()
        await happen("first", object_id=object_id)
        await happen("second", object_id=object_id)
        await run_jobs()
        assert names(receiver.heard) == ["first"]
        endpoint = await endpoint_of(runtime, tenant_id, made)
        assert (endpoint.state, endpoint.disabled_reason) == (
            EndpointState.DISABLED,
            DisabledReason.GONE,
        )
        mine = [
            (one.state, one.failure)
            for one in await deliveries_of(runtime, tenant_id)
            if one.endpoint_id == made.endpoint.id
        ]
        assert mine == [
            (DeliveryState.CANCELLED, "it answered with status 410"),
            (DeliveryState.CANCELLED, "the endpoint was disabled (GONE)"),
        ]
        [heard] = other.heard
        told = json.loads(heard.body)
        assert (told["type"], told["data"]["reason"]) == ("webhook.disabled", "GONE")
        assert told["data"]["url"] == receiver.url("/hook")
        await happen("third")
        await run_jobs()
        assert len(receiver.heard) == 1, "who is gone is told nothing more"


async def test_an_endpoint_is_disabled_only_after_a_warning_and_five_days(
    runtime: Runtime,
    tenant_id: TenantId,
    clock: MovableClock,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
    run_jobs: Happen,
) -> None:
    made = await make_endpoint()
    receiver.answer = answers(500)

    async def exhaust(count: int) -> None:
        for _ in range(count):
            await happen()
        for pause in PAUSES:
            clock.advance(pause)
            await run_jobs()

    await exhaust(2)
    endpoint = await endpoint_of(runtime, tenant_id, made)
    assert (endpoint.exhausted, endpoint.warned_at) == (2, None)
    await exhaust(1)
    warned = await endpoint_of(runtime, tenant_id, made)
    assert warned.is_enabled
    assert warned.warned_at is not None
    [warning] = await told_of(runtime, tenant_id, EventType.WEBHOOK_FAILING)
    assert datetime.fromisoformat(json.loads(warning.body)["data"]["disabledFrom"]) == (
        warned.warned_at + DISABLED_AFTER
    )
    await exhaust(1)
    assert (await endpoint_of(runtime, tenant_id, made)).is_enabled, "three days"
    await exhaust(1)
    disabled = await endpoint_of(runtime, tenant_id, made)
    assert disabled.disabled_reason is DisabledReason.FAILING
    assert disabled.disabled_at is not None
    assert disabled.disabled_at >= warned.warned_at + DISABLED_AFTER
    assert len(await told_of(runtime, tenant_id, EventType.WEBHOOK_DISABLED)) == 1
    assert len(await told_of(runtime, tenant_id, EventType.WEBHOOK_FAILING)) == 1


async def test_a_success_takes_the_warning_back(
    runtime: Runtime,
    tenant_id: TenantId,
    clock: MovableClock,
    receiver: Receiver,
    make_endpoint: MakeEndpoint,
    happen: Happen,
    run_jobs: Happen,
) -> None:
    made = await make_endpoint()
    receiver.answer = answers(500)
    for _ in range(3):
        await happen()
    for pause in PAUSES:
        clock.advance(pause)
        await run_jobs()
    assert (await endpoint_of(runtime, tenant_id, made)).warned_at is not None
    receiver.answer = answers()
    await happen()
    await run_jobs()
    endpoint = await endpoint_of(runtime, tenant_id, made)
    assert (endpoint.exhausted, endpoint.warned_at, endpoint.failing_since) == (0, None, None)
