"""A shop that is opened through the API: one plan over tokens, one customer."""

from typing import Any

from tests.api.forms import GraphQL, line, made, meter, plan

OCTOBER = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}


class Shop:
    """What the tenant sells, and to whom."""

    def __init__(self, graphql: GraphQL) -> None:
        self._graphql = graphql
        self.meter_id = self.customer_id = self.wallet_id = self.subscription_id = ""

    async def open(self) -> "Shop":
        graphql = self._graphql
        self.meter_id = await made(graphql, "createMeter", **meter(unit="token"))
        await made(
            graphql,
            "createCostRate",
            meterId=self.meter_id,
            unitCost="0.02",
            currency="USD",
            effectiveFrom="2026-10-01T00:00:00Z",
        )
        fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "20"}}
        plan_id = await made(graphql, "createRatePlan", **plan(fee, line(self.meter_id)))
        product_id = await made(graphql, "createProduct", code="llm", name="LLM")
        offering_id = await made(
            graphql,
            "createOffering",
            code="pro",
            name="Pro",
            productId=product_id,
            ratePlanId=plan_id,
        )
        discount_id = await made(
            graphql, "createDiscount", code="ten", name="Ten", kind="PERCENTAGE", rate="0.1"
        )
        rates = [{"name": "Sales tax", "rate": "0.10"}]
        await made(graphql, "setTaxEngine", engine="manual", settings={"rates": rates})
        self.customer_id = await made(
            graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
        )
        self.wallet_id = await made(
            graphql, "createWallet", customerId=self.customer_id, currency="USD"
        )
        await made(graphql, "grantCredit", walletId=self.wallet_id, amount="5.00")
        self.subscription_id = await made(
            graphql,
            "createSubscription",
            customerId=self.customer_id,
            offeringId=offering_id,
            startsAt="2026-10-01T00:00:00Z",
            anchorDay=1,
            graceSeconds=0,
            billingMode="HYBRID",
            discountIds=[discount_id],
        )
        return self


def call(number: int, tokens: object, *, month: str = "2026-10", **more: Any) -> dict[str, Any]:
    return {
        "idempotencyKey": f"{month}-{number}",
        "type": "llm.request",
        "customer": "acme",
        "occurredAt": f"{month}-{10 + number % 10:02}T{number % 24:02}:00:00.000001Z",
        "properties": {"tokens": tokens, "model": "small", **more},
    }
