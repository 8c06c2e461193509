"""Quarantined events: released once and as of their own moment, discarded, corrected."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from aforo.catalog import commands as catalog
from aforo.catalog.models import Aggregation
from aforo.metering import quarantine, queries
from aforo.metering.models import QuarantinedEvent
from aforo.metering.quarantine import Correction, Settled, Wanted
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.storage.clock import MovableClock
from aforo.storage.tables import new_id
from aforo.subscriptions import commands as subscriptions
from tests.conftest import NOW
from tests.metering.market import Market


async def release(market: Market, **wanted: Any) -> Settled:
    async with market.scope() as scope:
        return await quarantine.release(scope, Wanted(**wanted))


async def discard(market: Market, **wanted: Any) -> Settled:
    async with market.scope() as scope:
        return await quarantine.discard(scope, Wanted(**wanted))


async def correct(market: Market, event_id: UUID, **given: Any) -> QuarantinedEvent:
    async with market.scope() as scope:
        return await quarantine.correct(
            scope,
            event_id,
            Correction(given=frozenset(given), **given),
            pepper=market.runtime.settings.key_pepper,
        )


async def ids(market: Market) -> list[UUID]:
    return [row["id"] for row in await market.rows("quarantined_event", order_by="id")]


async def test_a_released_event_counts_as_of_its_own_moment(market: Market) -> None:
    sent = market.event("late", customer="newcomer", ago=timedelta(days=3))
    assert (await market.take(sent)).quarantined == 1
    customer_id = await market.let_in("newcomer")
    assert isinstance(market.runtime.clock, MovableClock)
    market.runtime.clock.move_to(NOW + timedelta(days=5))
    assert await release(market, code="UNKNOWN_CUSTOMER") == Settled(1, {}, None)
    [confirmed] = await market.seal()
    [event] = confirmed.events()
    [row] = await market.rows("quarantined_event")
    assert (event.event_id, event.customer_id) == (row["id"], customer_id)
    assert event.received_at == NOW
    assert event.occurred_at == NOW - timedelta(days=3)
    assert event.cost == Decimal("0.0000003")
    assert (row["state"], row["settled_at"]) == ("RELEASED", NOW + timedelta(days=5))
    [key] = await market.rows("event_key")
    assert (key["state"], key["event_id"]) == ("ACCEPTED", row["id"])
    market = replace(market, customers={"newcomer": customer_id})
    assert await market.used("tokens", "newcomer") == 10


async def test_an_event_without_a_time_happened_when_it_first_came(market: Market) -> None:
    await market.take(market.event(customer="newcomer", occurredAt=None))
    await market.let_in("newcomer")
    assert isinstance(market.runtime.clock, MovableClock)
    market.runtime.clock.move_to(NOW + timedelta(days=2))
    await release(market, customer="newcomer")
    [event] = await market.waiting()
    assert (event.occurred_at, event.received_at) == (NOW, NOW)


async def test_the_window_of_ingestion_is_not_held_against_a_release(market: Market) -> None:
    await market.take(market.event(customer="newcomer", ago=timedelta(days=89)))
    await market.let_in("newcomer")
    assert isinstance(market.runtime.clock, MovableClock)
    market.runtime.clock.move_to(NOW + timedelta(days=200))
    assert (await release(market, customer="newcomer")).events == 1


async def test_what_cannot_be_placed_yet_stays_and_says_why(market: Market) -> None:
    await market.take(
        market.event(customer="newcomer"),
        market.event(type="unheard.of"),
        market.event(customer="newcomer", ago=timedelta(days=80)),
    )
    async with market.scope() as scope:
        await subscriptions.create_customer(
            scope, external_id="newcomer", name="newcomer", currency="USD"
        )
    every = await ids(market)
    settled = await release(market, ids=every)
    assert settled == Settled(0, {"NO_ACTIVE_SUBSCRIPTION": 2, "UNKNOWN_METER": 1}, None)
    rows = await market.rows("quarantined_event", order_by="id")
    assert [row["code"] for row in rows] == [
        "NO_ACTIVE_SUBSCRIPTION",
        "UNKNOWN_METER",
        "NO_ACTIVE_SUBSCRIPTION",
    ]
    assert "no subscription that is active" in rows[0]["message"]
    assert {row["state"] for row in rows} == {"QUARANTINED"}
    assert {row["state"] for row in await market.rows("event_key")} == {"QUARANTINED"}
    assert await market.waiting() == []


async def test_a_new_meter_that_cannot_read_the_event_leaves_it_where_it_is(
    market: Market,
) -> None:
    await market.take(market.event(type="image", properties={"pixels": "many"}))
    async with market.scope() as scope:
        await catalog.create_meter(
            scope,
            code="pixels",
            name="pixels",
            event_type="image",
            aggregation=Aggregation.SUM,
            property_name="pixels",
        )
    assert await release(market, event_type="image") == Settled(0, {"BAD_VALUE": 1}, None)
    [event_id] = await ids(market)
    await correct(market, event_id, properties={"pixels": Decimal("12.5")})
    assert await release(market, event_type="image") == Settled(1, {}, None)
    [event] = await market.waiting()
    assert event.properties == '{"pixels":12.5}'


async def test_releasing_again_changes_nothing(market: Market) -> None:
    await market.take(market.event(customer="newcomer"))
    await market.let_in("newcomer")
    every = await ids(market)
    assert (await release(market, ids=every)).events == 1
    before = await market.rows("quarantined_event")
    assert await release(market, ids=every) == Settled(0, {}, None)
    assert await release(market, customer="newcomer") == Settled(0, {}, None)
    assert await discard(market, ids=every) == Settled(0, {}, None)
    assert await market.rows("quarantined_event") == before
    assert len(await market.waiting()) == 1
    assert len(await market.rows("event_key")) == 1


async def test_of_many_releases_at_once_each_event_goes_in_once(market: Market) -> None:
    await market.take(*(market.event(customer="newcomer") for _ in range(20)))
    await market.let_in("newcomer")
    every = await ids(market)
    settled = await asyncio.gather(
        *(release(market, customer="newcomer") for _ in range(3)),
        *(release(market, ids=every[place:]) for place in range(3)),
        discard(market, ids=every[:5]),
    )
    rows = await market.rows("quarantined_event")
    released = {row["id"] for row in rows if row["state"] == "RELEASED"}
    assert sum(one.events for one in settled) == len(every)
    assert sorted(event.event_id for event in await market.waiting()) == sorted(released)
    assert len(await market.rows("event_key")) == len(released)


async def test_a_discarded_event_gives_its_key_back(market: Market) -> None:
    sent = market.event("twice", customer="newcomer")
    await market.take(sent)
    assert (await market.take(sent)).duplicates == 1
    assert await discard(market, code="UNKNOWN_CUSTOMER") == Settled(1, {}, None)
    assert await market.rows("event_key") == []
    assert (await market.take({**sent, "customer": "acme"})).accepted == 1
    assert await release(market, ids=await ids(market)) == Settled(0, {}, None)
    assert len(await market.waiting()) == 1


async def test_a_retry_of_the_original_is_a_duplicate_whatever_became_of_it(
    market: Market,
) -> None:
    sent = market.event("first", customer="newcomer", properties={"tokens": 3})
    await market.take(sent)
    [event_id] = await ids(market)
    row = await correct(market, event_id, customer="acme", properties={"tokens": 4})
    assert row.body["customer"] == "newcomer"
    assert row.corrected == {"customer": "acme", "properties": '{"tokens":4}'}
    for _ in range(2):
        assert (await market.take(sent)).duplicates == 1
        mended = {**sent, "customer": "acme", "properties": {"tokens": 4}}
        assert (await market.take(mended)).conflicts == 1
        await release(market, ids=[event_id])
    [event] = await market.waiting()
    assert event.properties == '{"tokens":4}'
    assert event.customer_id == market.customers["acme"]


async def test_a_correction_may_be_taken_back(market: Market) -> None:
    await market.take(market.event(customer="newcomer"))
    [event_id] = await ids(market)
    await correct(market, event_id, customer="acme", type="other")
    [row] = await market.rows("quarantined_event")
    assert (row["customer"], row["event_type"]) == ("acme", "other")
    await correct(market, event_id, customer="newcomer", type="llm.request")
    [row] = await market.rows("quarantined_event")
    assert (row["customer"], row["corrected"]) == ("newcomer", None)


async def test_a_key_may_take_the_place_of_a_customer_and_is_kept_as_a_hash(
    market: Market,
) -> None:
    key = "sk_live_of_acme_and_long_enough"
    async with market.scope() as scope:
        await subscriptions.register_customer_key(
            scope,
            customer_id=market.customers["acme"],
            name="key",
            key=key,
            pepper=market.runtime.settings.key_pepper,
            valid_from=scope.now - timedelta(days=1),
        )
    await market.take(market.event(customer="newcomer"))
    [event_id] = await ids(market)
    await correct(market, event_id, customer=None, api_key=key)
    assert key not in repr(await market.rows("quarantined_event"))
    assert (await release(market, ids=[event_id])).events == 1
    [event] = await market.waiting()
    assert event.customer_id == market.customers["acme"]
    assert event.customer_key_id is not None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, None),
        ({"type": ""}, "type"),
        ({"type": None}, "type"),
        ({"customer": "a\x00b"}, "customer"),
        ({"customer": None}, None),
        ({"api_key": "x" * 256}, "apiKey"),
        ({"properties": [1]}, "properties"),
        ({"properties": {"a": {"b": "\ud800"}}}, "properties"),
    ],
)
async def test_a_correction_that_ingestion_would_refuse_changes_nothing(
    market: Market, given: dict[str, Any], field: str | None
) -> None:
    await market.take(market.event(customer="newcomer"))
    before = await market.rows("quarantined_event")
    with pytest.raises(Invalid) as refused:
        await correct(market, before[0]["id"], **given)
    assert refused.value.field == field
    assert await market.rows("quarantined_event") == before


async def test_what_is_settled_is_not_corrected(market: Market) -> None:
    await market.take(market.event(customer="newcomer"))
    [event_id] = await ids(market)
    await discard(market, ids=[event_id])
    before = await market.rows("quarantined_event")
    with pytest.raises(Conflict) as refused:
        await correct(market, event_id, customer="acme")
    assert refused.value.code == "QUARANTINE_SETTLED"
    assert await market.rows("quarantined_event") == before


@pytest.mark.parametrize("command", [release, discard])
async def test_a_call_must_say_which_events_and_only_ones_that_are_there(
    market: Market, command: Any
) -> None:
    await market.take(market.event(customer="newcomer"))
    known = await ids(market)
    before = await market.rows("quarantined_event")
    with pytest.raises(Invalid):
        await command(market)
    with pytest.raises(Invalid):
        await command(market, ids=[new_id() for _ in range(quarantine.SETTLED_AT_ONCE + 1)])
    with pytest.raises(NotFound) as refused:
        await command(market, ids=[*known, new_id()])
    assert refused.value.field == "quarantinedEventIds.1"
    assert await market.rows("quarantined_event") == before
    assert await command(market, ids=known, code="UNKNOWN_METER") == Settled(0, {}, None)


async def test_calls_go_on_behind_each_other(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "SETTLED_AT_ONCE", 2)
    customers = ["nobody", "nobody", "nobody", "newcomer", "newcomer"]
    for customer in customers:
        await market.take(market.event(customer=customer))
    await market.let_in("newcomer")
    every = await ids(market)
    released, failed, after = 0, 0, None
    for last in (every[1], every[3], None):
        settled = await release(market, code="UNKNOWN_CUSTOMER", after=after)
        released += settled.events
        failed += sum(settled.failures.values())
        after = settled.last
        assert after == last
    assert (released, failed) == (2, 3)


async def test_a_list_shows_each_state(market: Market) -> None:
    await market.take(*(market.event(customer=f"c{place}") for place in range(3)))
    first, second, third = await ids(market)
    await market.let_in("c0")
    await release(market, ids=[first])
    await discard(market, ids=[second])
    async with market.scope() as scope:
        for state, event_id in (("RELEASED", first), ("DISCARDED", second), ("QUARANTINED", third)):
            listing = queries.quarantined_events(state=quarantine.QuarantineState(state))
            assert [row.id for row in await listing.page(scope, first=5)] == [event_id]
