"""What ingestion knows of a tenant: read once for many, and never mistaken for all there is."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from aforo.catalog import commands as catalog
from aforo.metering.verdicts import IngestAnswer
from aforo.storage import lately
from aforo.storage.clock import MovableClock
from aforo.storage.scope import open_runtime
from aforo.subscriptions import commands as subscriptions
from tests.api.forms import statements
from tests.metering.market import Market


@pytest.fixture
async def rival(market: Market, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Market]:
    """The same tenant, served by another process: with pools and a memory of its own, and what it
    changes is not noted here."""
    runtime = market.runtime
    monkeypatch.setattr(lately.CHANGES, "note", lambda _tenant_id: None)
    other = open_runtime(runtime.settings, runtime.plugins, runtime.clock)
    yield dataclasses.replace(market, runtime=other)
    await other.close()


def codes(answer: IngestAnswer) -> list[str]:
    return [verdict.code for verdict in answer.verdicts]


async def test_batches_that_come_at_the_same_time_share_one_look(market: Market) -> None:
    with statements(market.runtime) as seen:
        answers = await asyncio.gather(*(market.take(market.event()) for _ in range(20)))
    assert sum(answer.accepted for answer in answers) == 20
    assert len([each for each in seen if "FROM meter" in each]) == 1


async def test_what_was_named_before_is_looked_for_together_with_the_first_that_is_named_again(
    market: Market, clock: MovableClock
) -> None:
    await market.take(market.event(), market.event(customer="globex"))
    clock.advance(timedelta(seconds=lately.KEPT_SECONDS))
    with statements(market.runtime) as seen:
        await market.take(market.event())
        await market.take(market.event(customer="globex"))
    assert len([each for each in seen if "FROM meter" in each]) == 1


async def test_what_another_process_has_just_made_is_never_missed(
    market: Market, rival: Market
) -> None:
    sent = [market.event(f"k{number}", customer="initech") for number in range(3)]
    assert codes(await market.take(sent[0])) == ["UNKNOWN_CUSTOMER"]
    async with rival.scope() as scope:
        customer = await subscriptions.create_customer(
            scope, external_id="initech", name="Initech", currency="USD"
        )
    assert codes(await market.take(sent[1])) == ["NO_ACTIVE_SUBSCRIPTION"]
    async with rival.scope() as scope:
        [offering] = (await market.rows("offering"))[:1]
        await subscriptions.create_subscription(
            scope,
            customer_id=customer.id,
            offering_id=offering["id"],
            starts_at=scope.now - timedelta(days=1),
        )
    assert codes(await market.take(sent[2])) == []


async def test_a_change_of_this_process_holds_for_the_next_event(market: Market) -> None:
    await market.take(market.event("before"))
    async with market.scope() as scope:
        await catalog.create_cost_rate(
            scope,
            meter_id=market.meters["tokens"].id,
            unit_cost=Decimal(2),
            currency="USD",
            effective_from=scope.now - timedelta(days=1),
        )
    await market.take(market.event("after"))
    costs = {event.idempotency_key: event.cost for event in await market.waiting()}
    assert costs == {"before": Decimal("0.000000300"), "after": Decimal(20)}


async def test_a_change_of_another_process_holds_half_a_second_later(
    market: Market, rival: Market, clock: MovableClock
) -> None:
    await market.take(market.event("before"))  # From here on it is known.
    async with rival.scope() as scope:
        await catalog.create_cost_rate(
            scope,
            meter_id=market.meters["tokens"].id,
            unit_cost=Decimal(2),
            currency="USD",
            effective_from=scope.now - timedelta(days=1),
        )
    await market.take(market.event("too soon"))
    clock.advance(timedelta(seconds=lately.KEPT_SECONDS))
    await market.take(market.event("after"))
    costs = {event.idempotency_key: event.cost for event in await market.waiting()}
    before = Decimal("0.000000300")
    assert costs == {"before": before, "too soon": before, "after": Decimal(20)}
