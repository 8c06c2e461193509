"""`POST /v1/entitlements/…` over HTTP: what is answered, what is held, and what is refused."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from aforo.api import entitlements
from aforo.storage import redis
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, change, http, made
from tests.api.gate import ASKED, Ask, asker, sell, until
from tests.api.shop import call

pytestmark = pytest.mark.anyio

RunJobs = Callable[[], Awaitable[None]]
Send = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def ask(client: httpx2.AsyncClient) -> Ask:
    return asker(client)


@pytest.fixture
async def elsewhere(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """Another process, as far as what it remembers goes."""
    apart = dataclasses.replace(runtime, remembered=type(runtime.remembered)())
    async with http(apart, tenant) as client:
        yield client
    await apart.remembered.close()


async def test_a_quota_is_answered_with_its_numbers(graphql: GraphQL, ask: Ask) -> None:
    await sell(graphql)
    answer = await ask(**ASKED, quantity="30")
    version = answer.pop("version")
    assert version
    assert answer == {
        "customer": "acme",
        "allowed": True,
        "reason": "OK",
        "limit": "100",
        "used": "0",
        "remaining": "100",
        "resetAt": "2026-12-01T00:00:00Z",
        "throttle": None,
        "degraded": False,
        "maxAgeSeconds": 5,
    }
    assert await ask(customer="acme", meter="tokens") == {**answer, "version": version}


async def test_the_hundredth_unit_is_in_and_the_next_is_not(
    graphql: GraphQL, ask: Ask, send: Send, run_jobs: RunJobs
) -> None:
    await sell(graphql)
    await send(call(1, 99, month="2026-11"))
    await run_jobs()
    assert (await ask(**ASKED, quantity="1"))["reason"] == "OK"
    refused = await ask(**ASKED, quantity="1.000000000001")
    assert (refused["allowed"], refused["reason"]) == (False, "LIMIT_REACHED")
    assert (refused["used"], refused["remaining"]) == ("99", "1")


async def test_beyond_a_quota_that_bills_overage_everything_is_allowed(
    graphql: GraphQL, ask: Ask
) -> None:
    await sell(graphql, policy="OVERAGE")
    assert (await ask(**ASKED, quantity="1000"))["reason"] == "OK"
    assert (await ask("consume", **ASKED, quantity="150", idempotencyKey="k"))["used"] == "150"
    assert (await ask(**ASKED))["allowed"]


async def test_features_meters_customers_and_keys_are_told_apart(
    graphql: GraphQL, ask: Ask
) -> None:
    sold = await sell(graphql)
    key = {"customerId": sold.customer_id, "name": "k", "key": "sk_live_0123456789abcdef"}
    await made(graphql, "registerCustomerKey", **key)
    for given, reason in (
        ({"customer": "acme", "feature": "sso"}, "OK"),
        ({"apiKey": "sk_live_0123456789abcdef", "feature": "sso"}, "OK"),
        ({"apiKey": "sk_live_another", "feature": "sso"}, "UNKNOWN_CUSTOMER"),
        ({"customer": "nobody", "feature": "sso"}, "UNKNOWN_CUSTOMER"),
        ({"customer": "acme", "feature": "unknown"}, "NOT_ENTITLED"),
        ({"customer": "acme", "meter": "unknown"}, "NOT_ENTITLED"),
    ):
        assert (await ask(**given))["reason"] == reason, given


async def test_units_are_held_until_the_event_of_the_same_usage_is_in_the_log(
    graphql: GraphQL, ask: Ask, send: Send, run_jobs: RunJobs
) -> None:
    await sell(graphql)
    event = call(1, 30, month="2026-11")
    taken = await ask("consume", **ASKED, quantity="30", idempotencyKey=event["idempotencyKey"])
    assert (taken["used"], taken["hold"]["state"]) == ("30", "CONSUMED")
    again = await ask("consume", **ASKED, quantity="30", idempotencyKey=event["idempotencyKey"])
    assert (again["used"], again["hold"]["id"]) == ("30", taken["hold"]["id"])
    await send(event)
    await run_jobs()
    assert (await ask(**ASKED))["used"] == "30"
    # A retry that comes late takes nothing anew.
    late = await ask("consume", **ASKED, quantity="30", idempotencyKey=event["idempotencyKey"])
    assert (late["used"], late["hold"]["state"]) == ("30", "SETTLED")


async def test_units_of_usage_that_never_comes_are_given_back_in_time(
    graphql: GraphQL, ask: Ask, clock: MovableClock
) -> None:
    await sell(graphql)
    assert (await ask("consume", **ASKED, quantity="100", idempotencyKey="k"))["allowed"]
    clock.advance(timedelta(minutes=59))
    assert not (await ask(**ASKED))["allowed"]
    clock.advance(timedelta(minutes=2))
    assert (await ask(**ASKED))["used"] == "0"


async def test_a_reservation_is_finalised_with_what_was_really_used(
    graphql: GraphQL, ask: Ask, client: httpx2.AsyncClient
) -> None:
    await sell(graphql)
    reserved = await ask("reserve", **ASKED, quantity="80", idempotencyKey="a")
    assert (reserved["remaining"], reserved["hold"]["state"]) == ("20", "RESERVED")
    assert not (await ask("reserve", **ASKED, quantity="21", idempotencyKey="b"))["allowed"]
    hold = reserved["hold"]["id"]
    for _ in range(2):  # A second time it changes nothing.
        done = await ask("finalise", hold=hold, quantity="95")
        assert (done["hold"]["state"], done["hold"]["quantity"]) == ("CONSUMED", "95")
        assert (await ask(**ASKED))["used"] == "95"
    for name, given in (("finalise", {"quantity": "1"}), ("release", {})):
        response = await client.post(f"/v1/entitlements/{name}", json={"hold": hold, **given})
        assert (response.status_code, response.json()["error"]["code"]) == (409, "HOLD_FINISHED")


async def test_a_reservation_is_released_or_runs_out(
    graphql: GraphQL, ask: Ask, clock: MovableClock
) -> None:
    await sell(graphql)
    one = await ask("reserve", **ASKED, quantity="60", idempotencyKey="a")
    two = await ask("reserve", **ASKED, quantity="40", idempotencyKey="b", expiresInSeconds=10)
    for _ in range(2):
        gone = await ask("release", hold=one["hold"]["id"])
        assert gone["hold"]["state"] == "RELEASED"
    assert (await ask(**ASKED))["used"] == "40"
    clock.advance(timedelta(seconds=11))
    assert (await ask(**ASKED))["used"] == "0"
    # The work was done all the same: it counts.
    await ask("finalise", hold=two["hold"]["id"], quantity="5")
    assert (await ask(**ASKED))["used"] == "5"


async def test_a_key_holds_one_quantity(
    graphql: GraphQL, ask: Ask, client: httpx2.AsyncClient
) -> None:
    await sell(graphql)
    await ask("consume", **ASKED, quantity="3", idempotencyKey="k")
    given = {**ASKED, "quantity": "4", "idempotencyKey": "k"}
    response = await client.post("/v1/entitlements/consume", json=given)
    assert (response.status_code, response.json()["error"]["code"]) == (
        409,
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert (await ask(**ASKED))["used"] == "3"


async def test_of_a_thousand_who_take_at_once_exactly_a_hundred_get_the_last_hundred(
    graphql: GraphQL, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entitlements, "CHECK_TIMEOUT_SECONDS", 120)
    await sell(graphql)
    answers = await asyncio.gather(
        *(ask("consume", **ASKED, idempotencyKey=f"k{each}") for each in range(1_000))
    )
    reasons = [answer["reason"] for answer in answers]
    assert (reasons.count("OK"), reasons.count("LIMIT_REACHED")) == (100, 900)
    assert not any(answer["degraded"] for answer in answers)
    assert (await ask(**ASKED))["remaining"] == "0"


async def test_a_block_and_its_release_reach_every_process_within_a_second(
    graphql: GraphQL, elsewhere: httpx2.AsyncClient
) -> None:
    sold = await sell(graphql)
    there = asker(elsewhere)
    version = (await there(**ASKED))["version"]
    blocked = await made(graphql, "setBlock", customerId=sold.customer_id, reason="fraud")
    assert blocked
    await until(there, lambda answer: answer["reason"] == "BLOCKED", **ASKED)
    assert (await there(**ASKED))["version"] != version
    await made(graphql, "releaseCustomer", customerId=sold.customer_id, kind="BLOCK")
    await until(there, lambda answer: answer["version"] == version, **ASKED)
    again = await change(graphql, "releaseCustomer", customerId=sold.customer_id, kind="BLOCK")
    assert again["__typename"] == "NotFoundProblem"


async def test_the_end_of_a_subscription_reaches_every_process_within_a_second(
    graphql: GraphQL, elsewhere: httpx2.AsyncClient
) -> None:
    sold = await sell(graphql)
    there = asker(elsewhere)
    assert (await there(**ASKED))["allowed"]
    await made(graphql, "endSubscription", subscriptionId=sold.subscription_id)
    await until(there, lambda answer: answer["reason"] == "NOT_ENTITLED", **ASKED)


async def test_a_throttle_lowers_the_rate_and_is_counted(
    graphql: GraphQL, ask: Ask, clock: MovableClock
) -> None:
    sold = await sell(graphql, ratePerSecond="20")
    given = {"customerId": sold.customer_id, "reason": "margin", "until": "2026-11-20T13:00:00Z"}
    await made(graphql, "setThrottle", **given)
    await until(ask, lambda answer: answer["throttle"] is not None, **ASKED, quantity="0")
    answer = await ask(**ASKED, quantity="10")
    assert answer["throttle"] == {
        "ratePerSecond": "10",
        "percent": 50,
        "until": "2026-11-20T13:00:00Z",
    }
    assert (answer["allowed"], answer["maxAgeSeconds"]) == (True, 0)
    assert (await ask(**ASKED, quantity="10"))["reason"] == "THROTTLED"
    clock.advance(timedelta(seconds=2))
    assert (await ask(**ASKED, quantity="10"))["reason"] == "OK"
    clock.advance(timedelta(hours=1))
    assert (await ask(**ASKED, quantity="10"))["throttle"] is None


async def test_a_throttle_takes_the_rate_of_the_peak_minute_where_none_is_set(
    graphql: GraphQL, ask: Ask, send: Send, run_jobs: RunJobs
) -> None:
    sold = await sell(graphql, policy="OVERAGE")
    await send(call(1, 600, month="2026-11") | {"occurredAt": "2026-11-19T10:00:00Z"})
    await run_jobs()
    await made(graphql, "setThrottle", customerId=sold.customer_id, reason="r", percent=25)
    await until(ask, lambda answer: answer["throttle"] is not None, **ASKED, quantity="0")
    assert (await ask(**ASKED))["throttle"]["ratePerSecond"] == "2.5"


async def test_a_prepaid_customer_needs_a_balance(graphql: GraphQL, ask: Ask) -> None:
    sold = await sell(graphql, mode="PREPAID")
    assert (await ask(**ASKED))["reason"] == "NO_BALANCE"
    wallet_id = await made(graphql, "createWallet", customerId=sold.customer_id, currency="USD")
    await made(graphql, "grantCredit", walletId=wallet_id, amount="5")
    await until(ask, lambda answer: answer["reason"] == "OK", **ASKED)


@pytest.mark.parametrize(("when", "allowed"), [("OPEN", True), ("CLOSED", False)])
async def test_without_redis_a_feature_is_open_or_closed_and_the_answer_says_so(
    graphql: GraphQL, runtime: Runtime, tenant: NewTenant, when: str, allowed: bool
) -> None:
    await sell(graphql, whenUnavailable=when)
    live = redis.Live("redis://127.0.0.1:1/0")
    async with http(dataclasses.replace(runtime, live=live), tenant) as client:
        away = asker(client)
        answer = await away(**ASKED)
        assert (answer["allowed"], answer["degraded"]) == (allowed, True)
        taken = await away("consume", **ASKED, idempotencyKey="k")
        assert (taken["allowed"], taken["degraded"], taken["hold"]) == (allowed, True, None)
        assert not (await away(customer="acme", feature="sso"))["degraded"]
    await live.close()


async def test_a_quota_begins_anew_with_its_window_and_carries_on_what_is_left(
    graphql: GraphQL, ask: Ask, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await sell(graphql, rolloverPeriods=1, rolloverCap="50")
    await send(call(1, 30, month="2026-11"))
    await run_jobs()
    assert (await ask(**ASKED))["limit"] == "100"
    clock.move_to(clock.now().replace(month=12, day=1, hour=0))
    answer = await ask(**ASKED)
    assert (answer["limit"], answer["used"]) == ("150", "0")
    assert (await ask("consume", **ASKED, quantity="150", idempotencyKey="k"))["allowed"]
    assert not (await ask("consume", **ASKED, quantity="1", idempotencyKey="l"))["allowed"]


async def test_of_a_sliding_window_the_part_that_it_still_covers_counts(
    graphql: GraphQL, ask: Ask, clock: MovableClock
) -> None:
    await sell(graphql, reset="SLIDING", resetSeconds=100)
    # The tests begin 1,684,800 s after the subscription, with a window of their own.
    assert (await ask("consume", **ASKED, quantity="80", idempotencyKey="a"))["allowed"]
    clock.advance(timedelta(seconds=150))
    assert (await ask(**ASKED))["used"] == "40"
    assert not (await ask("consume", **ASKED, quantity="61", idempotencyKey="b"))["allowed"]
    assert (await ask("consume", **ASKED, quantity="60", idempotencyKey="c"))["allowed"]
