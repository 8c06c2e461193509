"""Events that take the place of others, or void them: decided once, and counted the same ever."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aforo import worker
from aforo.metering import conservation, corrections, keys, quarantine, queries, sealer
from aforo.metering.conservation import HOUR
from aforo.metering.quarantine import Wanted
from aforo.metering.rebuild import rebuild
from aforo.metering.verdicts import IngestAnswer
from aforo.metering.verify import verify
from aforo.sdk.ids import CustomerId
from aforo.sdk.period import Period
from aforo.storage.clock import MovableClock
from aforo.storage.scope import open_runtime
from tests.metering.market import KEPT, Market

WAIT_SECONDS = 10


def void(target: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    return {"idempotencyKey": key or f"void {target}", "voids": target, **more}


def amended(market: Market, target: str, key: str, **change: Any) -> dict[str, Any]:
    return market.event(key, supersedes=target, **change)


def tokens(number: int) -> dict[str, Any]:
    return {"properties": {"tokens": number, "model": "m1"}}


def codes(answer: IngestAnswer) -> list[tuple[str, str]]:
    return [(verdict.kind, verdict.code) for verdict in answer.verdicts]


async def figures(market: Market, watermark: int | None = None) -> dict[str, tuple[Decimal, int]]:
    """Tokens and number of events of each customer, as of a watermark."""
    async with market.scope() as scope:
        found = await queries.usage_by_customer(
            scope,
            market.meters["tokens"],
            Period(scope.now - timedelta(days=400), scope.now + timedelta(days=400)),
            watermark=await queries.watermark(scope) if watermark is None else watermark,
        )
    used = {name: found.get(CustomerId(id_)) for name, id_ in market.customers.items()}
    return {name: (each.quantity, each.events) for name, each in used.items() if each}


async def test_an_event_that_was_voided_or_amended_counts_no_more_from_then_on(
    market: Market,
) -> None:
    await market.take(
        market.event("a", **tokens(10)),
        market.event("b", **tokens(20)),
        market.event("c", **tokens(40)),
    )
    [first] = await market.seal()
    answer = await market.take(
        void("a", reason="sent by mistake"),
        amended(market, "b", "b2", **tokens(100), customer="globex", reason="theirs"),
    )
    assert (answer.accepted, answer.verdicts) == (2, [])
    assert await figures(market) == {"acme": (70, 3)}
    [second] = await market.seal()
    assert await figures(market) == {"acme": (40, 1), "globex": (100, 1)}
    assert await figures(market, first.segment_id) == {"acme": (70, 3)}
    assert second.corrected == {market.customers["acme"]}
    async with market.scope() as scope:
        log = await queries.recent_events(scope, watermark=second.segment_id, first=10)
        by = await corrections.superseding(scope, [row.event_id for row in log])
    names = {row.event_id: row.idempotency_key for row in log}
    assert sorted(names.values()) == ["a", "b", "b2", "c"]
    assert {names[id_]: (one.idempotency_key, one.is_void) for id_, one in by.items()} == {
        "a": ("void a", True),
        "b": ("b2", False),
    }
    assert {one.reason for one in by.values()} == {"sent by mistake", "theirs"}
    assert {row.supersedes for row in log} == {"", "b"}


async def test_of_a_chain_the_last_one_counts(market: Market) -> None:
    await market.take(market.event("a", **tokens(1)))
    await market.seal()
    seen = {}
    for correction, expected in (
        (amended(market, "a", "a2", **tokens(2)), {"acme": (2, 1)}),
        (amended(market, "a2", "a3", **tokens(3)), {"acme": (3, 1)}),
        (void("a3"), {}),
    ):
        assert (await market.take(correction)).accepted == 1
        [done] = await market.seal()
        seen[done.segment_id] = expected
        assert await figures(market) == expected
    for watermark, expected in seen.items():
        assert await figures(market, watermark) == expected


async def test_a_whole_chain_may_come_in_one_batch(market: Market) -> None:
    answer = await market.take(
        market.event("a", **tokens(1)),
        amended(market, "a", "a2", **tokens(2)),
        market.event("b", **tokens(4)),
        void("b"),
        amended(market, "a2", "a3", **tokens(8)),
    )
    assert answer.accepted == 5
    await market.seal()
    assert await figures(market) == {"acme": (8, 1)}


async def test_what_cannot_be_superseded_is_said_and_its_key_stays_free(market: Market) -> None:
    await market.take(market.event("a"), market.event("q", customer="nobody"), void("a"))
    before = {table: await market.rows(table) for table in ("event_key", "event_inbox")}
    answer = await market.take(
        void("never sent", "1"),
        void("a", "2"),
        amended(market, "a", "3"),
        void("q", "4"),
        void("void a", "5"),
        void("5", "5b"),
    )
    assert codes(answer) == [
        ("REJECTED", "UNKNOWN_EVENT"),
        ("CONFLICT", "ALREADY_SUPERSEDED"),
        ("CONFLICT", "ALREADY_SUPERSEDED"),
        ("REJECTED", "EVENT_QUARANTINED"),
        ("REJECTED", "EVENT_IS_VOID"),
        ("REJECTED", "UNKNOWN_EVENT"),
    ]
    [winner] = {verdict.event_id for verdict in answer.verdicts if verdict.event_id}
    [superseded] = [row for row in before["event_key"] if row["superseded_by"]]
    assert superseded["superseded_by"] == winner
    assert {table: await market.rows(table) for table in before} == before
    recorded = {
        row["idempotency_key"]: row["event_id"] for row in await market.rows("event_conflict")
    }
    assert recorded == {"2": winner, "3": winner}
    assert (await market.take(*(market.event(str(number)) for number in range(1, 6)))).accepted == 5


async def test_the_next_who_wants_the_key_of_one_that_could_not_supersede_gets_it(
    market: Market,
) -> None:
    answer = await market.take(
        void("unknown", "k"),
        void("unknown too", "k"),
        market.event("k", **tokens(7)),
        market.event("k", **tokens(7)),
        void("k", "v"),
        void("unknown", "k"),
    )
    assert codes(answer) == [
        ("REJECTED", "UNKNOWN_EVENT"),
        ("REJECTED", "UNKNOWN_EVENT"),
        ("DUPLICATE", "DUPLICATE"),
        ("CONFLICT", "CONFLICT"),
    ]
    assert answer.accepted == 2
    keys = {row["event_id"] for row in await market.rows("event_key")}
    assert keys == {event.event_id for event in await market.waiting()}
    await market.seal()
    assert await figures(market) == {}


async def test_a_correction_that_is_sent_again_is_a_duplicate_and_another_a_conflict(
    market: Market,
) -> None:
    await market.take(market.event("a"), market.event("b"))
    sent = [void("a", "v", reason="why"), amended(market, "b", "b2", reason="why")]
    assert (await market.take(*sent)).accepted == 2
    assert codes(await market.take(*sent)) == [("DUPLICATE", "DUPLICATE")] * 2
    others = [
        void("a", "v", reason="another"),
        void("b", "v", reason="why"),
        {**sent[1], "reason": None},
        {**sent[1], "supersedes": "a"},
        {**sent[1], **tokens(1)},
        {name: sent[1][name] for name in sent[1] if name not in {"supersedes", "reason"}},
    ]
    assert codes(await market.take(*others)) == [("CONFLICT", "CONFLICT")] * len(others)


async def test_an_atomic_batch_with_one_that_cannot_supersede_keeps_nothing(
    market: Market,
) -> None:
    with pytest.raises(Exception, match="atomic"):
        await market.take(market.event("a"), void("a"), void("unknown"), atomic=True)
    assert {table: await market.rows(table) for table in KEPT} == {table: [] for table in KEPT}
    assert (await market.take(market.event("a"), void("a"), atomic=True)).accepted == 2


@pytest.fixture
async def markets(market: Market) -> AsyncIterator[list[Market]]:
    """The same market in three processes, with pools of their own."""
    one = market.runtime
    others = [open_runtime(one.settings, one.plugins, one.clock) for _ in range(2)]
    yield [market, *(dataclasses.replace(market, runtime=other) for other in others)]
    for other in others:
        await other.close()


async def test_of_many_who_supersede_the_same_events_at_once_one_does(
    market: Market, markets: list[Market]
) -> None:
    names = [f"e{number}" for number in range(20)]
    await market.take(*(market.event(name, **tokens(1)) for name in names))

    async def send(number: int) -> IngestAnswer:
        mine = names if number % 2 else names[::-1]
        return await markets[number % len(markets)].take(
            *(amended(market, name, f"{name} {number}", **tokens(100)) for name in mine)
        )

    answers = await asyncio.gather(*(send(number) for number in range(9)))
    assert sum(answer.accepted for answer in answers) == len(names)
    refused = Counter(code for answer in answers for code in codes(answer))
    assert refused == {("CONFLICT", "ALREADY_SUPERSEDED"): 8 * len(names)}
    await market.seal()
    assert await figures(market) == {"acme": (100 * len(names), len(names))}


async def test_a_quarantined_amendment_takes_a_place_once_it_is_released(market: Market) -> None:
    await market.take(market.event("a", **tokens(1)), market.event("b", **tokens(2)))
    answer = await market.take(
        amended(market, "a", "a2", customer="late", **tokens(10)),
        amended(market, "b", "b2", customer="late", **tokens(20)),
    )
    assert answer.quarantined == 2
    assert codes(await market.take(void("a", "v"))) == [("CONFLICT", "ALREADY_SUPERSEDED")]
    await market.seal()
    assert await figures(market) == {"acme": (3, 2)}  # What does not count takes no place.
    rows = {
        row["body"]["idempotencyKey"]: row["id"] for row in await market.rows("quarantined_event")
    }
    async with market.scope() as scope:
        await quarantine.discard(scope, Wanted(ids=[rows["b2"]]))
    assert (await market.take(void("b", "w"))).accepted == 1
    await market.let_in("late")
    async with market.scope() as scope:
        assert (await quarantine.release(scope, Wanted(ids=[rows["a2"]]))).events == 1
    await market.seal()
    assert await figures(market) == {}
    await market.take(amended(market, "a2", "a3", **tokens(5)))
    await market.seal()
    assert await figures(market) == {"acme": (5, 1)}
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []


async def test_an_event_may_be_corrected_for_as_long_as_its_key_is_known(
    market: Market, clock: MovableClock
) -> None:
    await market.take(market.event("a", **tokens(1)), market.event("b", **tokens(2)))
    await market.seal()
    clock.advance(timedelta(days=95))
    assert (await market.take(void("a"))).accepted == 1
    assert codes(await market.take(amended(market, "b", "b2", ago=timedelta(days=95)))) == [
        ("REJECTED", "TIMESTAMP_TOO_OLD")
    ]
    await market.seal()
    assert await figures(market) == {"acme": (2, 1)}


async def test_a_key_that_another_event_has_by_now_is_not_superseded_by_what_was_meant_before(
    market: Market, clock: MovableClock
) -> None:
    await market.take(market.event("a", **tokens(1)))
    await market.take(void("a"))
    await market.seal()
    clock.advance(keys.KEPT + timedelta(days=1))
    for part in range(keys.PARTS):
        await keys.forget_old(market.runtime, part=part)
    assert await market.rows("event_key") == []
    await market.take(market.event("a", **tokens(50)))
    await market.seal()
    assert await figures(market) == {"acme": (50, 1)}
    await market.take(amended(market, "a", "a2", **tokens(7)))
    await market.seal()
    assert await figures(market) == {"acme": (7, 1)}
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []


async def test_the_identities_of_conservation_hold(market: Market) -> None:
    now = market.runtime.clock.now()
    await market.take(
        market.event("a"), market.event("b"), void("a"), void("a", "v"), void("unknown")
    )
    await market.take(amended(market, "b", "b2", customer="nobody"))
    for _ in range(2):
        async with market.scope() as scope:
            found = await conservation.balances(scope, Period(now - HOUR, now + HOUR))
        [balance] = found.values()
        assert balance.balanced
        assert (balance.received, balance.accepted, balance.conflicts) == (6, 3, 1)
        assert (balance.rejected, balance.quarantined) == (1, 1)
        await market.seal()
    assert balance.in_log == 3


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("point", ["confirm.inserted", "confirm.corrected", "confirm.projected"])
async def test_a_sealer_that_is_killed_in_between_is_followed_by_one_that_finishes(
    market: Market, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    await market.take(market.event("a", **tokens(1)))
    [first] = await market.seal()
    await market.take(amended(market, "a", "a2", **tokens(2)), market.event("b"), void("b"))
    with monkeypatch.context() as broken:
        broken.setattr(sealer, "reached", killed_at(point))
        with pytest.raises(Killed):
            await market.seal()
    assert await figures(market) == await figures(market, first.segment_id) == {"acme": (1, 1)}
    await market.seal()
    assert await figures(market) == {"acme": (2, 1)}
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []


def killed_at(point: str) -> object:
    def reached(name: str) -> None:
        if name == point:
            raise Killed

    return reached


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE event_correction DELETE WHERE tenant_id = {tenant:UUID}",
        "ALTER TABLE event_correction DELETE WHERE tenant_id = {tenant:UUID} AND is_void",
        "ALTER TABLE event_correction UPDATE superseded_position = 7 "
        "WHERE tenant_id = {tenant:UUID}",
        "INSERT INTO event_correction SELECT * REPLACE (position + 9 AS position) "
        "FROM event_correction WHERE tenant_id = {tenant:UUID}",
        "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID}",
    ],
)
async def test_damage_to_what_is_written_down_is_found_and_rebuilt_from_the_archive(
    market: Market, damage: str
) -> None:
    await market.take(*(market.event(name, **tokens(10)) for name in "abc"))
    await market.seal()
    await market.take(void("a"), amended(market, "b", "b2", **tokens(3)))
    await market.seal()
    before = await figures(market)
    assert before == {"acme": (13, 2)}
    settings = " SETTINGS mutations_sync = 1" if damage.startswith("ALTER") else ""
    await market.runtime.events.command(damage + settings, {"tenant": str(market.tenant_id)})
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults
    await rebuild(market.runtime, market.tenant_id)
    [found] = await verify(market.runtime, market.tenant_id)
    assert (found.faults, await figures(market)) == ([], before)


async def test_a_segment_is_not_confirmed_where_what_it_supersedes_is_gone(
    market: Market,
) -> None:
    await market.take(market.event("a"))
    await market.seal()
    await market.take(void("a"))
    await market.runtime.events.command(
        "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID} SETTINGS mutations_sync = 1",
        {"tenant": str(market.tenant_id)},
    )
    with pytest.raises(sealer.SegmentMismatchError, match="supersede"):
        await market.seal()
    await rebuild(market.runtime, market.tenant_id)
    await market.seal()
    assert await figures(market) == {}


async def test_who_watches_sees_events_and_no_voids(market: Market) -> None:
    await market.take(market.event("a"), void("a"))
    assert await worker.seal_all(market.runtime)
    async with market.scope() as scope:
        watermark = await queries.watermark(scope)
        assert await queries.count_events(scope, watermark=watermark) == 1
        costs = await queries.costs_by_subscription(
            scope,
            Period(scope.now - timedelta(days=9), scope.now + timedelta(days=9)),
            watermark=watermark,
        )
    assert costs == {}
    [job] = [row for row in await market.rows("job") if row["name"] == "DETECT_SIGNALS"]
    assert job["arguments"]["customer_ids"] == [str(market.customers["acme"])]
