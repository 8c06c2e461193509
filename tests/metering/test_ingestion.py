"""Stages 1 to 4 on the real database: verdicts, keys, and what is kept of each event."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from aforo.metering.commands import BatchRefused
from aforo.metering.verdicts import IngestAnswer
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.subscriptions import commands as subscriptions
from aforo.tenants.commands import create_tenant
from tests.metering.market import KEPT, Market, open_market


async def test_every_event_of_a_batch_gets_its_verdict(market: Market) -> None:
    first = await market.take(market.event("seen"), market.event("changed"))
    assert told(first) == []
    answer = await market.take(
        market.event("good"),
        "no object",
        market.event("future", ago=-timedelta(minutes=5, microseconds=1)),
        market.event("old", ago=timedelta(days=90, microseconds=1)),
        market.event("number", properties={"tokens": "NaN"}),
        market.event("seen"),
        market.event("changed", properties={"tokens": 11, "model": "m1"}),
        market.event("stranger", customer="nobody"),
        market.event("meterless", type="unheard.of"),
        market.event("keyless", apiKey="sk_live_unknown"),
        market.event("early", ago=timedelta(days=89)) | {"customer": "latecomer"},
        {"type": "llm.request", "customer": "acme"},
    )
    assert told(answer) == [
        (1, None, "REJECTED", "INGESTION", "BAD_VALUE"),
        (2, "future", "REJECTED", "VALIDATION", "TIMESTAMP_IN_FUTURE"),
        (3, "old", "REJECTED", "VALIDATION", "TIMESTAMP_TOO_OLD"),
        (4, "number", "REJECTED", "VALIDATION", "BAD_VALUE"),
        (5, "seen", "DUPLICATE", "DEDUPLICATION", "DUPLICATE"),
        (6, "changed", "CONFLICT", "DEDUPLICATION", "CONFLICT"),
        (7, "stranger", "QUARANTINED", "VALIDATION", "UNKNOWN_CUSTOMER"),
        (8, "meterless", "QUARANTINED", "VALIDATION", "UNKNOWN_METER"),
        (9, "keyless", "QUARANTINED", "ENRICHMENT", "KEY_UNKNOWN"),
        (10, "early", "QUARANTINED", "VALIDATION", "UNKNOWN_CUSTOMER"),
        (11, None, "REJECTED", "INGESTION", "MISSING_FIELD"),
    ]
    assert counts(answer) == (12, 1, 1, 1, 5, 4)


async def test_duplicates_and_conflicts_name_the_event_that_stands(market: Market) -> None:
    await market.take(market.event("k"))
    [held] = await market.rows("event_key")
    answer = await market.take(market.event("k"), market.event("k", customer="globex"))
    assert [one.event_id for one in answer.verdicts] == [held["event_id"], held["event_id"]]
    [conflict] = await market.rows("event_conflict")
    assert (conflict["idempotency_key"], conflict["event_id"]) == ("k", held["event_id"])
    assert json.loads(conflict["properties"]) == {"tokens": 10, "model": "m1"}


async def test_the_counts_of_every_batch_add_up_and_are_kept(market: Market) -> None:
    answers = [
        await market.take(),
        await market.take(
            market.event("a"),
            market.event("b"),
            market.event("b"),
            market.event("c", customer="nobody"),
        ),
        await market.take(
            market.event("a"),
            market.event("b", customer="globex"),
            market.event("c", customer="nobody"),
        ),
        await market.take(None, market.event("d"), market.event("d", properties={"tokens": 1})),
    ]
    assert [counts(answer) for answer in answers] == [
        (0, 0, 0, 0, 0, 0),
        (4, 2, 1, 0, 0, 1),
        (3, 0, 2, 1, 0, 0),
        (3, 1, 0, 1, 1, 0),
    ]
    kept = await market.rows("ingest_batch", order_by="id")
    assert [
        tuple(
            row[name]
            for name in (
                *("received", "accepted", "duplicates", "conflicts", "rejected", "quarantined"),
            )
        )
        for row in kept
    ] == [counts(answer) for answer in answers]
    assert sum(answer.accepted for answer in answers) == len(await market.waiting())
    assert sum(answer.quarantined for answer in answers) == len(
        await market.rows("quarantined_event")
    )
    assert sum(answer.conflicts for answer in answers) == len(await market.rows("event_conflict"))
    assert len(await market.rows("event_key")) == 4


async def test_of_one_key_in_a_batch_the_first_good_body_stands(market: Market) -> None:
    answer = await market.take(
        market.event("k", properties={"tokens": "none"}),
        market.event("k", properties={"tokens": 1}),
        market.event("k", properties={"tokens": 2}),
        market.event("k", properties={"tokens": "1.0"}),
        market.event("k", properties={"tokens": 1}),
        market.event("k", properties={"tokens": "none"}),
        market.event("k", occurredAt="yesterday"),
    )
    assert [(index, kind) for index, _, kind, _, _ in told(answer)] == [
        (0, "REJECTED"),
        (2, "CONFLICT"),
        (3, "CONFLICT"),
        (4, "DUPLICATE"),
        (5, "CONFLICT"),
        (6, "REJECTED"),
    ]
    assert [event.properties for event in await market.waiting()] == ['{"tokens":1}']


@pytest.mark.parametrize("later", [timedelta(hours=25), timedelta(days=30), timedelta(days=89)])
async def test_a_retry_bills_once_however_late(
    market: Market,
    clock: MovableClock,
    later: timedelta,
) -> None:
    sent = market.event("k")
    await market.take(sent)
    await market.seal()
    clock.advance(later)
    answer = await market.take(sent)
    assert counts(answer) == (1, 0, 1, 0, 0, 0)
    await market.seal()
    assert await market.used("tokens") == 10


async def test_past_ninety_days_a_retry_is_refused_by_its_time(
    market: Market, clock: MovableClock
) -> None:
    sent = market.event("k", ago=timedelta(0))
    await market.take(sent)
    clock.advance(timedelta(days=90))
    assert [one.code for one in (await market.take(sent)).verdicts] == ["DUPLICATE"]
    clock.advance(timedelta(microseconds=1))
    assert [one.code for one in (await market.take(sent)).verdicts] == ["TIMESTAMP_TOO_OLD"]


async def test_without_a_time_an_event_happened_when_it_was_first_received(
    market: Market, clock: MovableClock
) -> None:
    sent = market.event("k", occurredAt=None)
    received_at = clock.now()
    await market.take(sent)
    clock.advance(timedelta(days=30))
    assert [one.code for one in (await market.take(sent)).verdicts] == ["DUPLICATE"]
    timed = sent | {"occurredAt": received_at.isoformat()}
    assert [one.code for one in (await market.take(timed)).verdicts] == ["CONFLICT"]
    [kept] = await market.waiting()
    assert kept.occurred_at == received_at


async def test_a_rejected_event_holds_no_key_and_may_be_mended_and_sent_again(
    market: Market,
) -> None:
    answer = await market.take(market.event("k", properties={"tokens": "many"}))
    assert [one.code for one in answer.verdicts] == ["BAD_VALUE"]
    assert await market.rows("event_key") == []
    assert counts(await market.take(market.event("k"))) == (1, 1, 0, 0, 0, 0)


async def test_a_quarantined_event_holds_its_key(market: Market) -> None:
    sent = market.event("k", customer="nobody", apiKey=None)
    await market.take(sent)
    [quarantined] = await market.rows("quarantined_event")
    again = await market.take(sent, market.event("k"))
    assert [(one.code, one.event_id) for one in again.verdicts] == [
        ("DUPLICATE", quarantined["id"]),
        ("CONFLICT", quarantined["id"]),
    ]
    assert len(await market.rows("quarantined_event")) == 1
    assert quarantined["body"] == {
        "idempotencyKey": "k",
        "type": "llm.request",
        "customer": "nobody",
        "apiKeyHash": None,
        "occurredAt": sent["occurredAt"],
        "properties": '{"model":"m1","tokens":10}',
    }


async def test_a_known_key_is_looked_up_before_anything_that_may_have_changed_since(
    market: Market,
) -> None:
    sent = market.event("k")
    await market.take(sent)
    async with market.scope() as scope:
        await subscriptions.end_subscription(
            scope,
            subscription_id=market.subscriptions["acme"],
            ends_at=scope.now - timedelta(days=1),
        )
    assert [one.code for one in (await market.take(sent)).verdicts] == ["DUPLICATE"]
    answer = await market.take(
        market.event("late"), market.event("inside", ago=timedelta(days=1, microseconds=1))
    )
    assert told(answer) == [
        (0, "late", "QUARANTINED", "VALIDATION", "NO_ACTIVE_SUBSCRIPTION"),
    ]


async def test_ten_senders_of_one_key_at_once_count_once(market: Market) -> None:
    sent = market.event("k")
    answers = await asyncio.gather(*(market.take(sent) for _ in range(10)))
    [kept] = await market.waiting()
    assert sorted(counts(answer) for answer in answers) == [
        *[(1, 0, 1, 0, 0, 0)] * 9,
        (1, 1, 0, 0, 0, 0),
    ]
    told_ids = {one.event_id for answer in answers for one in answer.verdicts}
    assert told_ids == {kept.event_id}


async def test_of_ten_bodies_under_one_key_at_once_one_stands(market: Market) -> None:
    answers = await asyncio.gather(
        *(market.take(market.event("k", properties={"tokens": number})) for number in range(10))
    )
    assert sum(answer.accepted for answer in answers) == 1
    assert sum(answer.conflicts for answer in answers) == 9
    assert len(await market.waiting()) == 1
    assert len(await market.rows("event_conflict")) == 9


async def test_batches_with_the_same_keys_in_opposite_orders_do_not_lock_each_other_out(
    market: Market,
) -> None:
    batch = [market.event(f"k{number}") for number in range(200)]
    answers = await asyncio.gather(
        *(market.take(*batch) for _ in range(3)), *(market.take(*reversed(batch)) for _ in range(3))
    )
    assert sum(answer.accepted for answer in answers) == 200
    assert sum(answer.duplicates for answer in answers) == 1000
    assert len(await market.waiting()) == 200


@pytest.mark.parametrize(
    "bad", [{"customer": "nobody"}, {"properties": {"tokens": "x"}}, {"idempotencyKey": "seen"}]
)
async def test_an_atomic_batch_with_a_bad_event_stores_nothing_at_all(
    market: Market, bad: dict[str, Any]
) -> None:
    await market.take(market.event("seen", properties={"tokens": 99}))
    before = [await market.rows(table) for table in KEPT]
    with pytest.raises(BatchRefused) as refused:
        await market.take(
            market.event("a"), market.event("b", **bad), market.event("a"), atomic=True
        )
    assert [one.index for one in refused.value.answer.verdicts] == [1, 2]
    assert refused.value.answer.refused
    assert [await market.rows(table) for table in KEPT] == before


async def test_duplicates_do_not_fail_an_atomic_batch(market: Market) -> None:
    sent = market.event("seen")
    await market.take(sent)
    assert counts(await market.take(sent, market.event("a"), market.event("a"), atomic=True)) == (
        3,
        1,
        2,
        0,
        0,
        0,
    )
    assert len(await market.waiting()) == 2


async def test_the_bounds_of_the_window_are_taken_and_counted(market: Market) -> None:
    answer = await market.take(
        market.event(ago=timedelta(days=90)), market.event(ago=-timedelta(minutes=5))
    )
    assert counts(answer) == (2, 2, 0, 0, 0, 0)
    await market.seal()
    assert await market.used("tokens") == 20


async def test_two_tenants_may_use_the_same_key(market: Market) -> None:
    tenant = await create_tenant(market.runtime, name="Another")
    other = await open_market(market.runtime, TenantId(tenant.tenant.tenant_id))
    assert counts(await market.take(market.event("k"))) == (1, 1, 0, 0, 0, 0)
    assert counts(await other.take(other.event("k", customer="globex"))) == (1, 1, 0, 0, 0, 0)
    assert len(await market.rows("event_key")) == 1


def told(answer: IngestAnswer) -> list[tuple[int, str | None, str, str, str]]:
    return [
        (one.index, one.idempotency_key, one.kind.value, one.stage.value, one.code)
        for one in answer.verdicts
    ]


def counts(answer: IngestAnswer) -> tuple[int, int, int, int, int, int]:
    """Received, and the five verdicts."""
    assert answer.received == (
        answer.accepted
        + answer.duplicates
        + answer.conflicts
        + answer.rejected
        + answer.quarantined
    )
    return (
        answer.received,
        answer.accepted,
        answer.duplicates,
        answer.conflicts,
        answer.rejected,
        answer.quarantined,
    )
