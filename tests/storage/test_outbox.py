"""The outbox: what is published is told if, and only if, the transaction commits."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.api.parts import relay
from aforo.api.schema import schema
from aforo.sdk.ids import TenantId
from aforo.storage.event_types import SHAPES, EventType, Member
from aforo.storage.outbox import OutboxEvent, body_of, message_id
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)


async def published(runtime: Runtime, tenant_id: TenantId) -> list[OutboxEvent]:
    """The tenant's events that are of customers, in order."""
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.db.scalars(
            sa.select(OutboxEvent)
            .where(col(OutboxEvent.type) == EventType.CUSTOMER_CREATED)
            .order_by(col(OutboxEvent.position))
        )
        return list(rows)


def customer(name: str = "Ada") -> dict[str, object]:
    return {
        "customer": new_id(),
        "externalId": "ada",
        "name": name,
        "currency": "USD",
        "timeZone": "UTC",
    }


async def test_an_event_is_told_if_its_transaction_commits_and_not_otherwise(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    data = customer()

    async def fail() -> None:
        async with runtime.scope(tenant_id) as scope:
            await scope.publish(EventType.CUSTOMER_CREATED, object_id=new_id(), data=data)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await published(runtime, tenant_id) == []
    async with runtime.scope(tenant_id) as scope:
        await scope.publish(EventType.CUSTOMER_CREATED, object_id=new_id(), data=data)
    [row] = await published(runtime, tenant_id)
    assert json.loads(row.body) == {
        "id": message_id(row.id),
        "type": "customer.created",
        "version": 1,
        "timestamp": "2026-11-20T12:00:00Z",
        "data": {**data, "customer": relay.global_id("Customer", data["customer"])},  # type: ignore[arg-type]
    }


async def test_positions_follow_the_order_of_transactions_that_wait_for_each_other(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    turn = asyncio.Lock()

    async def tell(name: str) -> None:
        async with turn, runtime.scope(tenant_id) as scope:
            await scope.publish(
                EventType.CUSTOMER_CREATED, object_id=tenant_id, data=customer(name)
            )

    await asyncio.gather(*(tell(str(number)) for number in range(10)))
    rows = await published(runtime, tenant_id)
    assert [json.loads(row.body)["data"]["name"] for row in rows] == [str(n) for n in range(10)]
    other = TenantId(new_id())
    assert await published(runtime, other) == [], "of its own tenant alone"


async def test_many_events_are_written_at_once(runtime: Runtime, tenant_id: TenantId) -> None:
    async with runtime.scope(tenant_id) as scope:
        await scope.publish_all(
            EventType.CUSTOMER_CREATED, [(new_id(), customer(str(n))) for n in range(1_201)]
        )
    names = [json.loads(row.body)["data"]["name"] for row in await published(runtime, tenant_id)]
    assert names == [str(n) for n in range(1_201)]


def test_amounts_are_text_and_moments_are_in_utc() -> None:
    data = {
        "wallet": new_id(),
        "grant": new_id(),
        "customer": new_id(),
        "currency": "KWD",
        "amount": Decimal("0.10000000000000000000001"),
        "expiresAt": datetime.fromisoformat("2027-01-01T00:30:00+01:00"),
        "reference": None,
    }
    told = json.loads(body_of(new_id(), EventType.WALLET_CREDITED, data, NOW))
    assert told["timestamp"] == "2026-11-20T12:00:00.250000Z"
    assert told["data"]["amount"] == "0.10000000000000000000001"
    assert told["data"]["expiresAt"] == "2026-12-31T23:30:00Z"
    assert told["data"]["reference"] is None


@pytest.mark.parametrize(
    "wrong",
    [{}, {"more": "x"}, {"name": None}, {"customer": "ada"}],
    ids=["nothing missing", "too much", "null", "no id"],
)
def test_data_of_another_shape_is_a_bug(wrong: dict[str, object]) -> None:
    data = customer() | wrong
    if not wrong:
        del data["currency"]
    with pytest.raises((AssertionError, AttributeError)):
        body_of(new_id(), EventType.CUSTOMER_CREATED, data, NOW)


def test_every_type_has_a_shape_whose_ids_lead_to_things_that_can_be_read() -> None:
    assert set(SHAPES) == set(EventType)
    kinds = {
        member.kind
        for shape in SHAPES.values()
        for member in shape.members.values()
        if member.form == "id"
    }
    fetched = {kind.__name__ for kind in relay.node_types()}
    assert schema is not None, "it registers what can be read"
    assert kinds <= fetched
    assert Member("text", "May be null.", nullable=True).rendered(None) is None
