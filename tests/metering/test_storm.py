"""Many senders of the same keys at the same time: each key counts once."""

import asyncio
from collections import Counter

from aforo.metering.verdicts import IngestAnswer
from tests.metering.market import Market

CLIENTS = 500
KEYS = 100


async def test_five_hundred_senders_of_a_hundred_keys_leave_a_hundred_events(
    market: Market,
) -> None:
    batch = [market.event(f"k{number}") for number in range(KEYS)]

    async def send(client: int) -> IngestAnswer:
        turned = client % KEYS  # Each in an order of his own.
        return await market.take(*batch[turned:], *batch[:turned])

    answers = await asyncio.gather(*map(send, range(CLIENTS)))
    assert sum(answer.accepted for answer in answers) == KEYS
    assert sum(answer.duplicates for answer in answers) == (CLIENTS - 1) * KEYS
    assert len(await market.rows("event_key")) == KEYS
    kept = await market.waiting()
    assert sorted(event.idempotency_key for event in kept) == sorted(f"k{n}" for n in range(KEYS))
    # Everybody is told the same first event.
    told: dict[str | None, set[object]] = {}
    for answer in answers:
        for verdict in answer.verdicts:
            told.setdefault(verdict.idempotency_key, set()).add(verdict.event_id)
    assert {key: {*ids} for key, ids in told.items()} == {
        event.idempotency_key: {event.event_id} for event in kept
    }
    await market.seal()
    assert await market.used("tokens") == 10 * KEYS


async def test_of_many_bodies_under_each_key_one_stands_and_the_others_are_told_so(
    market: Market,
) -> None:
    senders = 50

    def sent(sender: int) -> list[dict[str, object]]:
        return [market.event(f"k{key}", properties={"tokens": sender + 1}) for key in range(20)]

    answers = await asyncio.gather(*(market.take(*sent(sender)) for sender in range(senders)))
    kinds = Counter[str]()
    for answer in answers:
        kinds["ACCEPTED"] += answer.accepted
        kinds.update(verdict.kind.value for verdict in answer.verdicts)
    assert kinds == {"ACCEPTED": 20, "CONFLICT": 20 * (senders - 1)}
    assert len(await market.rows("event_conflict")) == 20 * (senders - 1)
