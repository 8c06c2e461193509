"""What is kept of an event that was taken: whose it is, what it cost, and no secret."""

import json
from datetime import timedelta

from aforo.metering import queries
from aforo.sdk.ids import SubscriptionId
from aforo.sdk.period import Period
from aforo.subscriptions import commands as subscriptions
from tests.metering.market import KEPT, Market

SECRET = "sk_live_a_secret_of_the_customer"


async def test_a_key_of_the_customer_leads_to_agent_team_and_customer_as_of_the_event(
    market: Market,
) -> None:
    async with market.scope() as scope:
        acme = market.customers["acme"]
        team = await subscriptions.create_team(scope, customer_id=acme, code="t", name="T")
        agent = await subscriptions.create_agent(scope, team_id=team.id, code="a", name="A")
        key = await subscriptions.register_customer_key(
            scope,
            customer_id=acme,
            name="key",
            key=SECRET,
            pepper=market.runtime.settings.key_pepper,
            agent_id=agent.id,
            valid_from=scope.now - timedelta(days=10),
            valid_to=scope.now - timedelta(days=1),
        )
    tick = timedelta(microseconds=1)
    answer = await market.take(
        market.event("by key", customer=None, apiKey=SECRET, ago=timedelta(days=10)),
        market.event("both", apiKey=SECRET, ago=timedelta(days=1) + tick),
        market.event("before", customer=None, apiKey=SECRET, ago=timedelta(days=10) + tick),
        market.event("after", customer=None, apiKey=SECRET, ago=timedelta(days=1)),
        market.event("another's", customer="globex", apiKey=SECRET, ago=timedelta(days=5)),
        market.event("nobody's", customer="nobody", apiKey=SECRET, ago=timedelta(days=5)),
        market.event("unheard of", customer=None, apiKey=SECRET + "x", ago=timedelta(days=5)),
    )
    assert [(one.idempotency_key, one.code) for one in answer.verdicts] == [
        ("before", "KEY_UNKNOWN"),
        ("after", "KEY_UNKNOWN"),
        ("another's", "KEY_UNKNOWN"),
        ("nobody's", "UNKNOWN_CUSTOMER"),
        ("unheard of", "KEY_UNKNOWN"),
    ]
    for kept in await market.waiting():
        assert (kept.customer_id, kept.team_id, kept.agent_id, kept.customer_key_id) == (
            acme,
            team.id,
            agent.id,
            key.id,
        )


async def test_the_key_of_a_customer_is_nowhere_to_be_read(market: Market) -> None:
    async with market.scope() as scope:
        await subscriptions.register_customer_key(
            scope,
            customer_id=market.customers["acme"],
            name="key",
            key=SECRET,
            pepper=market.runtime.settings.key_pepper,
        )
    answers = [
        await market.take(market.event("in", customer=None, apiKey=SECRET, ago=timedelta(0))),
        await market.take(market.event("in", apiKey=SECRET)),
        await market.take(market.event("out", customer="globex", apiKey=SECRET)),
        await market.take(market.event("unknown", customer="nobody", apiKey=SECRET)),
        await market.take(market.event("bad", apiKey=SECRET, properties={"tokens": "x"})),
        await market.take(market.event("odd", apiKey=SECRET, more=1)),
    ]
    assert [answer.received for answer in answers] == [1] * 6
    everything = [await market.rows(table) for table in [*KEPT, "customer_key", "job"]]
    assert all(everything[:5])
    for text in (repr(everything), repr(answers)):
        assert SECRET not in text
        assert SECRET.encode().hex() not in text


async def test_the_cost_of_an_event_and_its_rate_version_are_fixed_when_it_comes_in(
    market: Market,
) -> None:
    await market.take(
        market.event(properties={"tokens": "374"}),
        market.event(properties={"tokens": 26}),
        market.event(properties={}),  # No meter that has a rate counts it.
    )
    await market.seal()
    async with market.scope() as scope:
        costs = await queries.costs_by_subscription(
            scope,
            Period(scope.now - timedelta(days=1), scope.now),
            watermark=await queries.watermark(scope),
        )
    found = costs[SubscriptionId(market.subscriptions["acme"])]
    assert (format(found.amount, "f"), found.currency, found.uncosted_events) == (
        "0.000012",
        "USD",
        1,
    )


async def test_odd_texts_survive_the_way_into_the_log(market: Market) -> None:
    odd = {"tokens": 1, "model": 'say "x"\\\n\x00\u2028é😀', "'": "';--", "nested": {"a": [None]}}
    key = "kéy 😀 \"quoted\" \\ 'single'"
    assert (await market.take(market.event(key, properties=odd))).accepted == 1
    [confirmed] = await market.seal()
    async with market.scope() as scope:
        [row] = await queries.recent_events(scope, watermark=confirmed.segment_id, first=5)
    assert row.idempotency_key == key
    assert json.loads(row.properties) == odd
