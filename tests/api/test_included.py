"""A QUOTA line that takes what is included from an entitlement, up to the invoice."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from aforo.storage.clock import MovableClock
from tests.api.forms import GraphQL, made, meter, plan
from tests.api.shop import call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

INVOICES = """
{ invoices(first: 5, orderBy: PERIOD_START_ASC) { edges { node {
  periodStart lines { code quantity amount } } } } }
"""
CREATE = """
mutation($input: %sInput!) { %s(input: $input) {
  __typename ... on Problem { code message field } } }
"""
LINE = {
    "code": "tokens",
    "name": "Tokens",
    "model": "QUOTA",
    "settings": {"entitlement": "tokens", "overageUnitPrice": "0.5"},
}


async def test_the_invoice_includes_what_the_entitlement_grants_and_carries_on(
    graphql: GraphQL, send: Send, run_jobs: RunJobs, clock: MovableClock
) -> None:
    """60 of 100 in the first month leave 30, which is the cap; 150 in the second are 20 over."""
    clock.move_to(datetime(2026, 10, 20, tzinfo=UTC))
    await _sell(graphql, quota="100", rolloverPeriods=1, rolloverCap="30")
    await send(call(1, 60, month="2026-10"))
    await run_jobs()
    clock.move_to(datetime(2026, 11, 25, tzinfo=UTC))
    await send(call(1, 150, month="2026-11"))
    await run_jobs()
    clock.move_to(datetime(2026, 12, 2, tzinfo=UTC))
    await run_jobs()
    amounts = [
        (line["quantity"], line["amount"])
        for edge in (await graphql(INVOICES))["invoices"]["edges"]
        for line in edge["node"]["lines"]
    ]
    assert amounts == [("60", "0.00"), ("150", "10.00")]


async def test_what_is_included_is_said_once(graphql: GraphQL) -> None:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    for settings, field in (
        ({"overageUnitPrice": "1"}, "lines.0.settings.included"),
        (
            {"overageUnitPrice": "1", "included": "1", "entitlement": "tokens"},
            "lines.0.settings.entitlement",
        ),
    ):
        given = plan({**LINE, "meterId": meter_id, "settings": settings})
        problem = await _refused(graphql, "createRatePlan", given)
        assert (problem["__typename"], problem["field"]) == ("InvalidProblem", field)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (None, "pin it as well"),
        ({"reset": "CALENDAR", "resetUnit": "DAY"}, "a bill needs one of BILLING_PERIOD"),
        ({"other": True}, "no quota over the line's meter"),
    ],
)
async def test_an_offering_pins_the_entitlement_that_its_plan_names(
    graphql: GraphQL, terms: dict[str, Any] | None, says: str
) -> None:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    other_id = await made(graphql, "createMeter", **meter(code="other"))
    plan_id = await made(graphql, "createRatePlan", **plan({**LINE, "meterId": meter_id}))
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    pinned = []
    if terms is not None:
        over = other_id if terms.pop("other", False) else meter_id
        pinned = [await _entitlement(graphql, over, quota="1", **terms)]
    given = {
        "code": "pro",
        "name": "Pro",
        "productId": product_id,
        "ratePlanId": plan_id,
        "entitlementIds": pinned,
    }
    problem = await _refused(graphql, "createOffering", given)
    assert problem["field"] == "entitlementIds"
    assert says in problem["message"]
    found = await graphql("{ offerings { edges { node { code } } } }")
    assert found["offerings"]["edges"] == []


async def _sell(graphql: GraphQL, **terms: Any) -> None:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    plan_id = await made(graphql, "createRatePlan", **plan({**LINE, "meterId": meter_id}))
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    offering_id = await made(
        graphql,
        "createOffering",
        code="pro",
        name="Pro",
        productId=product_id,
        ratePlanId=plan_id,
        entitlementIds=[await _entitlement(graphql, meter_id, **terms)],
    )
    customer_id = await made(
        graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
    )
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-10-01T00:00:00Z",
    )


async def _entitlement(graphql: GraphQL, meter_id: str, **terms: Any) -> str:
    named = {"code": "tokens", "name": "Tokens", "kind": "QUOTA", "meterId": meter_id}
    return await made(graphql, "createEntitlement", **named, **terms)


async def _refused(graphql: GraphQL, mutation: str, given: dict[str, Any]) -> dict[str, Any]:
    kind = mutation[0].upper() + mutation[1:]
    document = CREATE % (kind, mutation)
    problem: dict[str, Any] = (await graphql(document, input=given))[mutation]
    return problem
