"""A customer's quotas through the API: the limit, what was used, and what lies beyond."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aforo.storage.clock import MovableClock
from tests.api.forms import GraphQL, line, made, meter, plan
from tests.api.shop import call

pytestmark = pytest.mark.anyio

QUOTAS = """
{ customer(externalId: "acme") { quotas {
  entitlement { code } periodStart periodEnd limit used remaining overage
} } }
"""


async def test_a_quota_is_used_up_event_by_event_and_starts_anew_with_the_period(
    graphql: GraphQL,
    send: Callable[..., Awaitable[dict[str, Any]]],
    run_jobs: Callable[[], Awaitable[None]],
    clock: MovableClock,
) -> None:
    await _open(graphql, quota="100")
    assert await _use(graphql) == ("100", "0", "100", "0")
    for number, tokens, use in (
        (1, 99, ("100", "99", "1", "0")),
        (2, 1, ("100", "100", "0", "0")),
        (3, "0.5", ("100", "100.5", "0", "0.5")),
    ):
        await send(call(number, tokens, month="2026-11"))
        await run_jobs()
        assert await _use(graphql) == use
    [quota] = (await graphql(QUOTAS))["customer"]["quotas"]
    assert quota["entitlement"] == {"code": "tokens"}
    assert quota["periodStart"] == "2026-11-01T00:00:00Z"
    clock.move_to(clock.now().replace(month=12, day=1, hour=0))
    assert await _use(graphql) == ("100", "0", "100", "0")


async def _open(graphql: GraphQL, *, quota: str) -> None:
    meter_id = await made(graphql, "createMeter", **meter(unit="token"))
    plan_id = await made(graphql, "createRatePlan", **plan(line(meter_id)))
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    entitlement_id = await made(
        graphql,
        "createEntitlement",
        code="tokens",
        name="Tokens",
        kind="QUOTA",
        meterId=meter_id,
        quota=quota,
    )
    offering_id = await made(
        graphql,
        "createOffering",
        code="pro",
        name="Pro",
        productId=product_id,
        ratePlanId=plan_id,
        entitlementIds=[entitlement_id],
    )
    customer_id = await made(
        graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
    )
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-11-01T00:00:00Z",
    )


async def _use(graphql: GraphQL) -> tuple[str, str, str, str]:
    [quota] = (await graphql(QUOTAS))["customer"]["quotas"]
    return quota["limit"], quota["used"], quota["remaining"], quota["overage"]
