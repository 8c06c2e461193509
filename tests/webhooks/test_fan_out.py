"""From the outbox to deliveries: many at once, too many, and those that kill their courier."""

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk import Period
from aforo.storage.event_types import EventType
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.webhooks import fan_out
from aforo.webhooks.commands import replay
from aforo.webhooks.models import DeliveryState, WebhookDelivery
from aforo.webhooks.outcomes import LEASES_MAX
from tests.webhooks.wire import Wire, customer, names

pytestmark = pytest.mark.anyio


async def test_many_events_are_fanned_out_in_batches_and_in_order(wire: Wire) -> None:
    await wire.make_endpoint()
    object_id = new_id()
    async with wire.runtime.scope(wire.tenant_id) as scope:
        await scope.publish_all(
            EventType.CUSTOMER_CREATED, [(object_id, customer(str(n))) for n in range(1_100)]
        )
    counts = [await wire.fan_out() for _ in range(4)]
    # Beside ours the event of the key that came with the tenant.
    assert counts == [500, 500, 101, 0]
    async with wire.runtime.scope(wire.tenant_id) as scope:
        rows = await scope.db.execute(
            sa.select(col(WebhookDelivery.state)).order_by(col(WebhookDelivery.position))
        )
        states = [state for (state,) in rows]
    assert states == [DeliveryState.PENDING, *[DeliveryState.WAITING] * 1_099]


async def test_a_transaction_asks_once_for_all_that_it_publishes(wire: Wire) -> None:
    async with wire.runtime.scope(wire.tenant_id) as scope:
        before = await asked(scope)
        for name in "abc":
            await scope.publish(EventType.CUSTOMER_CREATED, object_id=new_id(), data=customer(name))
        assert await asked(scope) == before + 1


async def asked(scope: Scope) -> int:
    """Fan-outs that wait."""
    count = await scope.db.scalar(
        sa.select(sa.func.count())
        .select_from(Job)
        .where(col(Job.name) == JobName.FAN_OUT_EVENTS, col(Job.state) == JobState.QUEUED)
    )
    return count or 0


async def test_more_than_the_backlog_is_given_up_at_once_and_can_be_replayed(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await wire.make_endpoint()
    monkeypatch.setattr(fan_out, "BACKLOG_MAX", 2)
    for name in "abcd":
        await wire.happen(name)
    await wire.run_jobs()
    assert sorted(names(wire.receiver.heard)) == ["a", "b"]
    lost = [one for one in await wire.deliveries() if one.attempts == 0]
    assert {one.state for one in lost} == {DeliveryState.EXHAUSTED}
    assert all("replay the event" in (one.failure or "") for one in lost)
    monkeypatch.undo()
    async with wire.runtime.scope(wire.tenant_id) as scope:
        around = Period(scope.now - fan_out.KEPT, scope.now + fan_out.KEPT)
        again = await replay(scope, endpoint_id=made.endpoint.id, period=around)
    assert again.events == 4
    await wire.run_jobs()
    assert sorted(names(wire.receiver.heard)) == ["a", "a", "b", "b", "c", "d"]


async def test_a_delivery_that_takes_its_courier_with_it_every_time_is_given_up(wire: Wire) -> None:
    await wire.make_endpoint()
    await wire.happen()
    await wire.fan_out()
    async with wire.runtime.scope(wire.tenant_id) as scope:
        await scope.db.execute(sa.update(WebhookDelivery).values(leases=LEASES_MAX))
    await wire.run_jobs()
    assert wire.receiver.heard == []
    [delivery] = await wire.deliveries()
    assert delivery.state is DeliveryState.EXHAUSTED
    [attempt] = await wire.attempts()
    assert "its courier was gone 40 times" in (attempt.failure or "")
