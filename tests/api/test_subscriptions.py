"""Customers, their hierarchy and subscriptions through GraphQL, on real engines."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName
from aforo.storage.scope import Runtime
from aforo.subscriptions import queries
from aforo.subscriptions.models import Subscription
from tests.api.forms import (
    GraphQL,
    change,
    customer,
    line,
    made,
    meter,
    no_such,
    offering,
    plan,
    problem,
    row_id,
    statements,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)  # When every test begins, by its clock.
KEY = "sk_live_0123456789abcdef"

SUBSCRIPTION = """
query ($id: ID!) {
  node(id: $id) {
    ... on CustomerSubscription {
      state billingMode startsAt endsAt anchorDay graceSeconds billedUntil
      customer { externalId } offering { code } discounts { code }
    }
  }
}
"""


async def read(graphql: GraphQL, subscription_id: str) -> dict[str, Any]:
    node: dict[str, Any] = (await graphql(SUBSCRIPTION, id=subscription_id))["node"]
    return node


async def bill_runs(runtime: Runtime, tenant_id: TenantId) -> list[datetime]:
    """When the scheduled bill runs are due."""
    async with runtime.scope(tenant_id) as scope:
        jobs = await scope.db.scalars(
            sa.select(Job).where(col(Job.name) == JobName.BILL_DUE).order_by(col(Job.run_at))
        )
        found = [(job.run_at, job.arguments) for job in jobs]
    assert all(arguments == {"until": at.isoformat()} for at, arguments in found)
    return [at for at, _ in found]


async def test_a_subscription_starts_now_on_the_local_day(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    clock.move_to(datetime(2026, 11, 30, 20, tzinfo=UTC))  # The 1st of December in India.
    acme = await made(graphql, "createCustomer", **customer(timeZone="Asia/Kolkata"))
    subscription_id = await made(
        graphql, "createSubscription", customerId=acme, offeringId=await offering(graphql)
    )
    assert await read(graphql, subscription_id) == {
        "state": "ACTIVE",
        "billingMode": "POSTPAID",
        "startsAt": "2026-11-30T20:00:00Z",
        "endsAt": None,
        "anchorDay": 1,
        "graceSeconds": 3600,
        "billedUntil": "2026-11-30T20:00:00Z",
        "customer": {"externalId": "acme"},
        "offering": {"code": "pro"},
        "discounts": [],
    }
    # Midnight of the 1st of January in India.
    assert await bill_runs(runtime, tenant_id) == [datetime(2026, 12, 31, 18, 30, tzinfo=UTC)]


async def test_a_subscription_keeps_what_it_was_told(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    percent = {"name": "D", "kind": "PERCENTAGE", "rate": "0.1"}
    discounts = [
        await made(graphql, "createDiscount", code=code, **percent) for code in ("b", "a", "c")
    ]
    subscription_id = await made(
        graphql,
        "createSubscription",
        customerId=acme,
        offeringId=await offering(graphql),
        startsAt="2026-10-31T00:00:00+00:00",
        billingMode="HYBRID",
        anchorDay=31,
        graceSeconds=0,
        discountIds=[discounts[2], discounts[0], discounts[1]],
    )
    found = await read(graphql, subscription_id)
    assert (found["startsAt"], found["billedUntil"]) == ("2026-10-31T00:00:00Z",) * 2
    assert (found["billingMode"], found["anchorDay"], found["graceSeconds"]) == ("HYBRID", 31, 0)
    assert [each["code"] for each in found["discounts"]] == ["c", "b", "a"]


async def test_periods_that_a_backdated_start_has_closed_wait_for_the_running_one(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    offering_id = await offering(graphql)
    starts = ("2026-09-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-12-15T00:00:00Z")
    for number, starts_at in enumerate(starts):
        customer_id = await made(graphql, "createCustomer", **customer(externalId=f"c{number}"))
        await made(
            graphql,
            "createSubscription",
            customerId=customer_id,
            offeringId=offering_id,
            startsAt=starts_at,
            anchorDay=1,
        )
    # The first two share a run; nothing is due before their events could be sent.
    assert await bill_runs(runtime, tenant_id) == [
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"startsAt": "2025-10-16T11:59:59Z"}, "startsAt"),
        ({"startsAt": "2027-12-25T12:00:01Z"}, "startsAt"),
        ({"anchorDay": 0}, "anchorDay"),
        ({"anchorDay": 32}, "anchorDay"),
        ({"graceSeconds": -1}, "graceSeconds"),
        ({"graceSeconds": 2_592_001}, "graceSeconds"),
    ],
)
async def test_a_malformed_subscription_is_refused_and_not_written(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId, wrong: dict[str, Any], field: str
) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    given = {"customerId": acme, "offeringId": await offering(graphql), **wrong}
    refused = await change(graphql, "createSubscription", **given)
    assert problem(refused) == ("InvalidProblem", "INVALID", field)
    nothing = {"subscriptions": {"edges": []}}
    assert await graphql("{ subscriptions { edges { cursor } } }") == nothing
    assert await bill_runs(runtime, tenant_id) == []


async def test_a_start_400_days_back_is_accepted(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    starts_at = (NOW - timedelta(days=400)).isoformat()
    given = {"customerId": acme, "offeringId": await offering(graphql), "startsAt": starts_at}
    await made(graphql, "createSubscription", **given)


async def test_a_customer_is_sold_to_in_its_own_currency(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    euros = await offering(graphql, code="eur", currency="EUR")
    refused = await change(graphql, "createSubscription", customerId=acme, offeringId=euros)
    assert problem(refused) == ("InvalidProblem", "CURRENCY_MISMATCH", "offeringId")

    fixed = {"code": "five", "name": "Five", "kind": "FIXED", "amount": "5", "currency": "EUR"}
    discount = await made(graphql, "createDiscount", **fixed)
    given = {"customerId": acme, "offeringId": await offering(graphql)}
    refused = await change(graphql, "createSubscription", **given, discountIds=[discount])
    assert problem(refused) == ("InvalidProblem", "CURRENCY_MISMATCH", "discountIds.0")

    percent = {"code": "ten", "name": "Ten", "kind": "PERCENTAGE", "rate": "0.1"}
    discount = await made(graphql, "createDiscount", **percent)
    twice = await change(graphql, "createSubscription", **given, discountIds=[discount, discount])
    assert problem(twice) == ("InvalidProblem", "INVALID", "discountIds.1")


async def test_what_is_another_tenants_is_as_unknown_as_nothing_at_all(
    graphql: GraphQL, other: GraphQL
) -> None:
    async def shop(ask: GraphQL) -> dict[str, str]:
        customer_id = await made(ask, "createCustomer", **customer())
        offering_id = await offering(ask)
        team = await made(ask, "createTeam", customerId=customer_id, code="t", name="T")
        percent = {"code": "ten", "name": "Ten", "kind": "PERCENTAGE", "rate": "0.1"}
        return {
            "Customer": customer_id,
            "Offering": offering_id,
            "Team": team,
            "Agent": await made(ask, "createAgent", teamId=team, code="a", name="A"),
            "Discount": await made(ask, "createDiscount", **percent),
            "CustomerSubscription": await made(
                ask, "createSubscription", customerId=customer_id, offeringId=offering_id
            ),
        }

    own, theirs = await shop(graphql), await shop(other)
    key = {"customerId": own["Customer"], "name": "Key", "key": KEY}
    buy = {"customerId": own["Customer"], "offeringId": own["Offering"]}
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("Customer", "createTeam", {"code": "x", "name": "X"}, "customerId"),
        ("Team", "createAgent", {"code": "x", "name": "X"}, "teamId"),
        ("Customer", "registerCustomerKey", key, "customerId"),
        ("Agent", "registerCustomerKey", key, "agentId"),
        ("Customer", "createSubscription", buy, "customerId"),
        ("Offering", "createSubscription", buy, "offeringId"),
        ("Discount", "createSubscription", buy, "discountIds.0"),
        ("CustomerSubscription", "endSubscription", {}, "subscriptionId"),
    ]
    for kind, name, given, field in cases:
        argument = field.partition(".")[0]
        answers = [
            await change(
                graphql,
                name,
                **{**given, argument: [id_] if argument.endswith("Ids") else id_},
            )
            for id_ in (theirs[kind], no_such(kind))
        ]
        assert problem(answers[0]) == ("NotFoundProblem", "NOT_FOUND", field), (name, answers)
        assert answers[0] == answers[1]
    for id_ in theirs.values():
        assert await graphql("query ($id: ID!) { node(id: $id) { id } }", id=id_) == {"node": None}
    document = "query ($id: ID!) { subscriptions(customerId: $id) { edges { cursor } } }"
    assert await graphql(document, id=theirs["Customer"]) == {"subscriptions": {"edges": []}}
    assert (await read(other, theirs["CustomerSubscription"]))["endsAt"] is None


async def test_one_unit_is_never_priced_by_two_subscriptions(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    globex = await made(graphql, "createCustomer", **customer(externalId="globex"))
    pro = await offering(graphql)
    first = await made(graphql, "createSubscription", customerId=acme, offeringId=pro)
    again = await change(graphql, "createSubscription", customerId=acme, offeringId=pro)
    assert problem(again) == ("ConflictProblem", "SUBSCRIPTION_OVERLAPS", "offeringId")

    # Another customer, another meter, or a later start is no overlap.
    await made(graphql, "createSubscription", customerId=globex, offeringId=pro)
    team = await offering(graphql, code="team")
    await made(graphql, "createSubscription", customerId=acme, offeringId=team)
    ends_at = "2026-12-20T00:00:00Z"
    await made(graphql, "endSubscription", subscriptionId=first, endsAt=ends_at)
    given = {"customerId": acme, "offeringId": pro}
    early = await change(graphql, "createSubscription", **given, startsAt="2026-12-19T23:59:59Z")
    assert problem(early) == ("ConflictProblem", "SUBSCRIPTION_OVERLAPS", "offeringId")
    await made(graphql, "createSubscription", **given, startsAt=ends_at)


async def test_of_many_who_subscribe_a_customer_at_once_one_succeeds(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    pro = await offering(graphql)
    results: list[dict[str, Any]] = []

    async def subscribe() -> None:
        results.append(await change(graphql, "createSubscription", customerId=acme, offeringId=pro))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(subscribe)
    names = sorted(result["__typename"] for result in results)
    assert names == ["ConflictProblem"] * 7 + ["CustomerSubscription"]


async def test_a_subscription_ends_now_or_when_its_time_comes(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    first, second = [
        await made(
            graphql,
            "createSubscription",
            customerId=acme,
            offeringId=await offering(graphql, code=code),
            startsAt="2026-11-01T00:00:00Z",
        )
        for code in ("pro", "team")
    ]
    await made(graphql, "endSubscription", subscriptionId=first)
    ended = await read(graphql, first)
    assert (ended["state"], ended["endsAt"]) == ("TERMINATED", "2026-11-20T12:00:00Z")

    ends_at = "2026-11-25T00:00:00Z"
    await made(graphql, "endSubscription", subscriptionId=second, endsAt=ends_at)
    assert (await read(graphql, second))["state"] == "ACTIVE"
    clock.advance(timedelta(days=4, hours=11, minutes=59))
    assert (await read(graphql, second))["state"] == "ACTIVE"
    clock.advance(timedelta(minutes=1))
    assert (await read(graphql, second))["state"] == "TERMINATED"
    # What was used before each end is billed then, beside the run at the end of the period.
    assert await bill_runs(runtime, tenant_id) == [
        NOW,
        datetime(2026, 11, 25, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
    ]


async def test_an_end_only_moves_to_an_earlier_moment_that_is_not_billed_yet(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    subscription_id = await made(
        graphql,
        "createSubscription",
        customerId=acme,
        offeringId=await offering(graphql),
        startsAt="2026-10-01T00:00:00Z",
    )

    async def end(ends_at: str | None) -> tuple[str, str, str | None] | None:
        given = {"subscriptionId": subscription_id, "endsAt": ends_at}
        result = await change(graphql, "endSubscription", **given)
        return problem(result) if "code" in result else None

    assert await end("2026-10-01T00:00:00Z") == ("InvalidProblem", "INVALID", "endsAt")
    assert await end("2028-12-01T00:00:00Z") == ("InvalidProblem", "INVALID", "endsAt")
    async with runtime.scope(tenant_id) as scope:
        subscription = (await scope.db.execute(sa.select(Subscription))).scalar_one()
        subscription.billed_until = datetime(2026, 11, 1, tzinfo=UTC)
    billed = ("ConflictProblem", "SUBSCRIPTION_BILLED", "endsAt")
    assert await end("2026-10-31T23:59:59Z") == billed
    assert await end("2026-12-01T00:00:00Z") is None
    ends = ("ConflictProblem", "SUBSCRIPTION_ENDED", "subscriptionId")
    assert await end("2026-12-01T00:00:01Z") == ends
    assert await end("2026-11-01T00:00:00Z") is None
    assert await end("2026-11-01T00:00:00Z") == ends
    assert await end(None) == ends
    found = await read(graphql, subscription_id)
    assert (found["endsAt"], found["state"]) == ("2026-11-01T00:00:00Z", "TERMINATED")


async def test_lives_name_the_meters_that_are_priced_or_granted(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    priced = await made(graphql, "createMeter", **meter(code="priced"))
    granted = await made(graphql, "createMeter", **meter(code="granted"))
    await made(graphql, "createMeter", **meter(code="neither"))
    quota = {"code": "q", "name": "Q", "kind": "QUOTA", "meterId": granted, "quota": "10"}
    fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "1"}}
    product = await made(graphql, "createProduct", code="llm", name="LLM")
    pro = await made(
        graphql,
        "createOffering",
        code="pro",
        name="Pro",
        productId=product,
        ratePlanId=await made(graphql, "createRatePlan", **plan(fee, line(priced))),
        entitlementIds=[await made(graphql, "createEntitlement", **quota)],
    )
    given = {"customerId": acme, "offeringId": pro}
    old = await made(graphql, "createSubscription", **given, startsAt="2026-10-01T00:00:00Z")
    await made(graphql, "endSubscription", subscriptionId=old, endsAt="2026-11-01T00:00:00Z")
    new = await made(graphql, "createSubscription", **given, startsAt="2026-11-01T00:00:00Z")

    customer_id = row_id(acme, "Customer")
    async with runtime.scope(tenant_id) as scope:
        with statements(runtime) as seen:
            lives = await queries.active_subscriptions(scope, [customer_id, UUID(int=1)])
        due = await queries.subscriptions_due(scope, datetime(2026, 11, 1, tzinfo=UTC))
    assert len(seen) == 2
    assert lives.keys() == {customer_id}
    found = lives[customer_id]
    assert [life.subscription_id for life in found] == [
        row_id(each, "CustomerSubscription") for each in (old, new)
    ]
    meters = {row_id(priced, "Meter"), row_id(granted, "Meter")}
    assert all(life.meter_ids == meters for life in found)
    assert all(life.product_id == row_id(product, "Product") for life in found)
    boundary = datetime(2026, 11, 1, tzinfo=UTC)
    before = boundary - timedelta(microseconds=1)
    assert [life.contains(before) for life in found] == [True, False]
    assert [life.contains(boundary) for life in found] == [False, True]
    assert [each.id for each in due] == [row_id(old, "CustomerSubscription")]
