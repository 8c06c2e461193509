"""Backfills: their events begin and cease to count all at once, at every watermark the same."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from aforo import worker
from aforo.metering import backfills, conservation, queries, reconcile, rollups, sealer
from aforo.metering.conservation import HOUR
from aforo.metering.models import BackfillState
from aforo.metering.rebuild import rebuild
from aforo.metering.usage import UsageOf, usage_total
from aforo.metering.verify import verify
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.sdk.period import Period
from tests.metering.market import Market
from tests.metering.test_corrections import (
    Killed,
    amended,
    codes,
    figures,
    killed_at,
    tokens,
    void,
)

UTC = ZoneInfo("UTC")


async def started(market: Market, name: str = "october") -> UUID:
    async with market.scope() as scope:
        return (await backfills.start(scope, name=name, reason="lost in an outage")).id


async def closed(market: Market, backfill: UUID) -> None:
    async with market.scope() as scope:
        await backfills.close(scope, backfill)


async def reverted(market: Market, backfill: UUID) -> None:
    async with market.scope() as scope:
        await backfills.revert(scope, backfill, reason="counted twice")


async def test_its_events_count_from_the_segment_that_closes_it_to_the_one_that_reverts_it(
    market: Market,
) -> None:
    backfill = await started(market)
    await market.take(market.event("live", **tokens(1)))
    seen: dict[int, Any] = {}

    async def sealed(expected: Any) -> None:
        [done] = await market.seal()
        seen[done.segment_id] = expected
        for watermark, figure in seen.items():
            assert await figures(market, watermark) == figure

    await market.take(
        market.event("a", **tokens(10)),
        market.event("b", **tokens(20), customer="globex"),
        backfill=backfill,
    )
    await sealed({"acme": (1, 1)})
    await market.take(market.event("c", **tokens(40)), backfill=backfill)
    await sealed({"acme": (1, 1)})
    async with market.scope() as scope:
        log = await queries.recent_events(scope, watermark=max(seen), first=10)
        assert [row.idempotency_key for row in log] == ["live"]
        assert await backfills.events_in(scope, [backfill]) == {backfill: 3}
    await closed(market, backfill)
    await sealed({"acme": (51, 3), "globex": (20, 1)})
    await market.take(void("a"), amended(market, "b", "b2", **tokens(2)))
    await sealed({"acme": (43, 3)})
    await reverted(market, backfill)
    await sealed({"acme": (3, 2)})
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []
    await market.runtime.events.command(
        "ALTER TABLE events DELETE WHERE tenant_id = {tenant:UUID} SETTINGS mutations_sync = 1",
        {"tenant": str(market.tenant_id)},
    )
    await rebuild(market.runtime, market.tenant_id)
    for watermark, figure in seen.items():
        assert await figures(market, watermark) == figure


async def test_its_states_only_go_forward(market: Market) -> None:
    backfill, other = await started(market), await started(market, "november")
    with pytest.raises(Conflict, match="already"):
        await started(market)
    await closed(market, backfill)
    with pytest.raises(Conflict, match="closed already"):
        await closed(market, backfill)
    for each in (backfill, other):
        await reverted(market, each)
        for act in (closed, reverted):
            with pytest.raises(Conflict, match="reverted already"):
                await act(market, each)
    async with market.scope() as scope:
        with pytest.raises(NotFound):
            await backfills.close(scope, UUID(int=7))
        with pytest.raises(NotFound):
            await backfills.open_backfill(scope, "unknown")
        with pytest.raises(Conflict):
            await backfills.open_backfill(scope, "october")
        for name, reason in (("", "r"), ("x" * 256, "r"), ("n", ""), ("n", "x" * 501)):
            with pytest.raises(Invalid):
                await backfills.start(scope, name=name, reason=reason)


async def test_a_key_is_one_events_whether_that_is_in_a_backfill_or_not(market: Market) -> None:
    backfill = await started(market)
    await market.take(market.event("a", **tokens(1)))
    assert codes(await market.take(market.event("a", **tokens(1)), backfill=backfill)) == [
        ("DUPLICATE", "DUPLICATE")
    ]
    assert (await market.take(market.event("b", **tokens(2)), backfill=backfill)).accepted == 1
    assert codes(await market.take(market.event("b", **tokens(2)))) == [("DUPLICATE", "DUPLICATE")]


async def test_nothing_in_it_is_set_aside_or_corrects_others(market: Market) -> None:
    backfill = await started(market)
    await market.take(market.event("a"))
    sent = [market.event("x", customer="nobody"), void("a"), amended(market, "a", "a2")]
    assert codes(await market.take(*sent, backfill=backfill)) == [
        ("REJECTED", "UNKNOWN_CUSTOMER"),
        ("REJECTED", "BAD_VALUE"),
        ("REJECTED", "BAD_VALUE"),
    ]
    assert await market.rows("quarantined_event") == []
    assert len(await market.rows("event_key")) == 1


async def test_the_keys_of_a_reverted_one_are_free_once_the_log_says_so(market: Market) -> None:
    backfill = await started(market)
    same = market.event("a", **tokens(10)), market.event("b", **tokens(10))
    await market.take(*same, backfill=backfill)
    await closed(market, backfill)
    await market.take(market.event("live", **tokens(1)))
    await market.seal()
    await reverted(market, backfill)
    async with market.scope() as scope:
        await backfills.free_keys(scope, str(backfill))  # The log does not say so yet.
    assert codes(await market.take(*same)) == [("DUPLICATE", "DUPLICATE")] * 2
    await worker.drain(market.runtime, market.tenant_id)
    [row] = await market.rows("backfill")
    assert row["keys_freed_at"] is not None
    again = await started(market, "october again")
    assert (await market.take(*same, backfill=again)).accepted == 2
    await worker.drain(market.runtime, market.tenant_id)
    assert await figures(market) == {"acme": (1, 1)}
    await closed(market, again)
    await worker.drain(market.runtime, market.tenant_id)
    assert await figures(market) == {"acme": (21, 3)}
    await market.take(void("a"))
    await market.seal()
    assert await figures(market) == {"acme": (11, 2)}
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []


async def test_a_batch_that_comes_while_it_is_closed_counts_as_a_whole_or_is_refused(
    market: Market,
) -> None:
    backfill = await started(market)
    batches = [[market.event(**tokens(1)) for _ in range(5)] for _ in range(12)]

    async def close_soon() -> None:
        await asyncio.sleep(0)
        await closed(market, backfill)

    answers = await asyncio.gather(
        *(market.take(*batch, backfill=backfill) for batch in batches[:6]),
        close_soon(),
        *(market.take(*batch, backfill=backfill) for batch in batches[6:]),
    )
    late = await market.take(*[market.event() for _ in range(3)], backfill=backfill)
    assert codes(late) == [("REJECTED", "BACKFILL_SETTLED")] * 3
    accepted = sum(answer.accepted for answer in answers if answer)
    assert all(answer.accepted in {0, 5} for answer in answers if answer)
    await market.seal()
    assert await figures(market) == ({"acme": (accepted, accepted)} if accepted else {})


async def test_roll_ups_and_the_log_agree_before_and_after(market: Market) -> None:
    backfill = await started(market)
    ago = timedelta(days=3)
    await market.take(*(market.event(ago=ago, **tokens(1)) for _ in range(4)))
    await market.take(market.event("b", ago=ago, **tokens(10)), backfill=backfill)
    watermarks = [(await market.seal())[-1].segment_id]
    for step in (
        closed(market, backfill),
        market.take(void("b")),
        reverted(market, backfill),
    ):
        await step
        watermarks.append((await market.seal())[-1].segment_id)
    expected = [(4, 4), (14, 5), (4, 4), (4, 4)]
    for _ in range(2):
        assert [await total(market, one) for one in watermarks] == expected
        async with market.scope() as scope:
            await rollups.roll_up(scope, span_events=1)
    [found] = await verify(market.runtime, market.tenant_id)
    assert (found.faults, found.spans > 0) == ([], True)


async def total(market: Market, watermark: int) -> tuple[Decimal, int]:
    async with market.scope() as scope:
        now = scope.now.replace(minute=0)
        of = UsageOf(
            meter=market.meters["tokens"],
            period=Period(now - timedelta(days=9), now + timedelta(days=1)),
            watermark=watermark,
            zone=UTC,
        )
        found = await usage_total(scope, of)
    return found.quantity, found.events


async def test_whose_events_begin_and_cease_to_count_is_told_to_those_who_look(
    market: Market,
) -> None:
    backfill = await started(market)
    await market.take(market.event("a"), backfill=backfill)
    [quiet] = await market.seal()
    assert not quiet.corrected
    for act in (closed, reverted):
        await act(market, backfill)
        [done] = await market.seal()
        assert done.corrected == {market.customers["acme"]}
    async with market.scope() as scope:
        assert await reconcile.reconcile(scope) == 0
        now = scope.now
        found = await conservation.balances(scope, Period(now - HOUR, now + HOUR))
    [balance] = found.values()
    assert (balance.balanced, balance.received, balance.in_log) == (True, 3, 3)


@pytest.mark.parametrize("point", ["confirm.inserted", "confirm.corrected", "confirm.projected"])
async def test_a_sealer_that_is_killed_while_it_closes_one_is_followed_by_one_that_finishes(
    market: Market, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    backfill = await started(market)
    await market.take(market.event("a", **tokens(10)), backfill=backfill)
    await closed(market, backfill)
    with monkeypatch.context() as broken:
        broken.setattr(sealer, "reached", killed_at(point))
        with pytest.raises(Killed):
            await market.seal()
    assert await figures(market) == {}
    await market.seal()
    assert await figures(market) == {"acme": (10, 1)}
    [found] = await verify(market.runtime, market.tenant_id)
    assert found.faults == []
    [row] = await market.rows("backfill")
    assert row["state"] == BackfillState.CLOSED
