"""How an endpoint fares that fails: gone at once, or warned and disabled days later."""

import json
from datetime import datetime

import pytest

from aforo.storage.event_types import EventType
from aforo.storage.tables import new_id
from aforo.webhooks.models import (
    DeliveryState,
    DisabledReason,
    EndpointState,
)
from aforo.webhooks.schedule import DISABLED_AFTER, PAUSES
from tests.receivers import answers, receiving
from tests.webhooks.wire import Wire, names

pytestmark = pytest.mark.anyio


async def test_410_disables_at_once_cancels_the_rest_and_tells_the_owners_other_endpoints(
    wire: Wire,
) -> None:
    made = await wire.make_endpoint(wire.receiver.url("/hook?token=secret"))
    async with receiving() as other:
        await wire.make_endpoint(other.url(), EventType.WEBHOOK_DISABLED)
        wire.receiver.answer = answers(410)
        object_id = new_id()
        await wire.happen("first", object_id=object_id)
        await wire.happen("second", object_id=object_id)
        await wire.run_jobs()
        assert names(wire.receiver.heard) == ["first"]
        endpoint = await wire.endpoint(made)
        assert (endpoint.state, endpoint.disabled_reason) == (
            EndpointState.DISABLED,
            DisabledReason.GONE,
        )
        mine = [
            (one.state, one.failure)
            for one in await wire.deliveries()
            if one.endpoint_id == made.endpoint.id
        ]
        assert mine == [
            (DeliveryState.CANCELLED, "it answered with status 410"),
            (DeliveryState.CANCELLED, "the endpoint was disabled (GONE)"),
        ]
        [heard] = other.heard
        told = json.loads(heard.body)
        assert (told["type"], told["data"]["reason"]) == ("webhook.disabled", "GONE")
        assert told["data"]["url"] == wire.receiver.url("/hook")
        await wire.happen("third")
        await wire.run_jobs()
        assert len(wire.receiver.heard) == 1, "who is gone is told nothing more"


async def test_an_endpoint_is_disabled_only_after_a_warning_and_five_days(wire: Wire) -> None:
    made = await wire.make_endpoint()
    wire.receiver.answer = answers(500)

    async def exhaust(count: int) -> None:
        for _ in range(count):
            await wire.happen()
        for pause in PAUSES:
            await wire.run_jobs(after=pause)

    await exhaust(2)
    endpoint = await wire.endpoint(made)
    assert (endpoint.exhausted, endpoint.warned_at) == (2, None)
    await exhaust(1)
    warned = await wire.endpoint(made)
    assert warned.is_enabled
    assert warned.warned_at is not None
    [warning] = await wire.told(EventType.WEBHOOK_FAILING)
    assert datetime.fromisoformat(json.loads(warning.body)["data"]["disabledFrom"]) == (
        warned.warned_at + DISABLED_AFTER
    )
    await exhaust(1)
    assert (await wire.endpoint(made)).is_enabled, "three days"
    await exhaust(1)
    disabled = await wire.endpoint(made)
    assert disabled.disabled_reason is DisabledReason.FAILING
    assert disabled.disabled_at is not None
    assert disabled.disabled_at >= warned.warned_at + DISABLED_AFTER
    assert len(await wire.told(EventType.WEBHOOK_DISABLED)) == 1
    assert len(await wire.told(EventType.WEBHOOK_FAILING)) == 1


async def test_a_success_takes_the_warning_back(wire: Wire) -> None:
    made = await wire.make_endpoint()
    wire.receiver.answer = answers(500)
    for _ in range(3):
        await wire.happen()
    for pause in PAUSES:
        await wire.run_jobs(after=pause)
    assert (await wire.endpoint(made)).warned_at is not None
    wire.receiver.answer = answers()
    await wire.happen()
    await wire.run_jobs()
    endpoint = await wire.endpoint(made)
    assert (endpoint.exhausted, endpoint.warned_at, endpoint.failing_since) == (0, None, None)
