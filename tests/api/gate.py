"""A gate for tests: what is sold behind it, and how it is asked."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from tests.api.forms import GraphQL, line, made, meter, plan

Ask = Callable[..., Awaitable[dict[str, Any]]]

ASKED = {"customer": "acme", "feature": "tokens"}


@dataclasses.dataclass(frozen=True)
class Sold:
    """What the tenant sells to acme: SSO, and a quota of tokens."""

    graphql: GraphQL
    customer_id: str
    subscription_id: str


async def sell(graphql: GraphQL, *, mode: str = "POSTPAID", **terms: Any) -> Sold:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    plan_id = await made(graphql, "createRatePlan", **plan(line(meter_id)))
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    given = {"quota": "100", "policy": "BLOCK", **terms}
    named = {"code": "tokens", "name": "Tokens", "kind": "QUOTA", "meterId": meter_id}
    quota_id = await made(graphql, "createEntitlement", **named, **given)
    gate_id = await made(graphql, "createEntitlement", code="sso", name="SSO", kind="BOOLEAN")
    offering_id = await made(
        graphql,
        "createOffering",
        code="pro",
        name="Pro",
        productId=product_id,
        ratePlanId=plan_id,
        entitlementIds=[quota_id, gate_id],
    )
    customer_id = await made(
        graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
    )
    subscription_id = await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-11-01T00:00:00Z",
        billingMode=mode,
    )
    return Sold(graphql, customer_id, subscription_id)


def asker(client: httpx2.AsyncClient) -> Ask:
    async def post(name: str = "check", **given: Any) -> dict[str, Any]:
        response = await client.post(f"/v1/entitlements/{name}", json=given)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    return post


async def until(ask: Ask, wanted: Callable[[dict[str, Any]], bool], **given: Any) -> None:
    """Ask again and again until the answer is as wanted, for half a minute at most."""
    async with asyncio.timeout(30):
        while not wanted(await ask(**given)):  # noqa: ASYNC110 (nobody tells a client)
            await asyncio.sleep(0.01)
