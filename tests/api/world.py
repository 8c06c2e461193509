"""A tenant that has one of everything, for tests that ask who may see it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from aforo import worker
from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_tenant
from aforo.tenants.members import join
from aforo.tenants.permissions import Role
from tests.api.forms import GraphQL, http, line, made, meter, plan, poster

CUSTOMER_KEY = "sk_live_of_the_customer_of_%s"


@dataclass(frozen=True, slots=True)
class World:
    """Everything of one tenant."""

    mark: str
    """Stands in the name of each of its things."""
    tenant: NewTenant
    client: httpx2.AsyncClient
    graphql: GraphQL
    ids: dict[str, str]
    """One id of each kind of thing."""
    newcomer: str
    """A customer who has bought nothing yet."""
    spare_endpoints: dict[str, str]
    """Of webhooks, by the mutation that changes whether one works."""
    spare_events: dict[str, str]
    """Quarantined ones, by the mutation that settles them."""

    def ids_for(self, field: str) -> dict[str, str]:
        """Ids with which a root field works: nobody buys the same thing twice, and whoever is let
        go is another one than the one whose restraint is looked at."""
        if field in {"createSubscription", "releaseCustomer"}:
            return {**self.ids, "Customer": self.newcomer}
        if field in self.spare_endpoints:
            return {**self.ids, "WebhookEndpoint": self.spare_endpoints[field]}
        if field in self.spare_events:
            return {**self.ids, "QuarantinedEvent": self.spare_events[field]}
        if field == "auditLog":
            first_key = global_id("ApiKey", self.tenant.key.row.id)
            return {**self.ids, "ApiKey": first_key}
        return self.ids


async def make_world(runtime: Runtime, mark: str) -> World:
    """A new tenant with one of each kind of thing, all of them named with the mark."""
    tenant = await create_tenant(runtime, name=mark)
    client = http(runtime, tenant)
    graphql = poster(client)
    ids = await _sell(graphql, mark)
    await _use(client, mark)
    tenant_id = TenantId(tenant.tenant.tenant_id)
    await worker.drain(runtime, tenant_id)
    ids["BillRun"] = await made(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    await worker.drain(runtime, tenant_id)
    await client.post("/v1/persisted-documents", json={mark: "{ tenant { name } }"})
    ids["Backfill"] = await made(graphql, "startBackfill", name=mark, reason=mark)
    found = await graphql(_FOUND)
    for kind, path in _PATHS.items():
        thing: Any = found
        for step in path:
            thing = thing[step]
        ids[kind] = thing["id"]
    ids |= await _people(runtime, tenant_id, graphql, mark)
    sandbox = await graphql(
        "mutation($name: String!) { createSandbox(input: {name: $name}) "
        "{ ... on NewSandbox { sandbox { id } } } }",
        name=mark,
    )
    ids["Sandbox"] = sandbox["createSandbox"]["sandbox"]["id"]
    token = await graphql(_LET_IN, customer=ids["Customer"])
    ids["PortalToken"] = token["createPortalToken"]["portalToken"]["id"]
    ids["StageVersion"] = await made(
        graphql,
        "changeStageSettings",
        stage="DEDUPLICATION",
        settings={"suspectedWithinSeconds": 6},
        reason=mark,
        expectedVersion=0,
    )
    ids["WebhookEndpoint"] = await _endpoint(graphql, mark)
    ids["WebhookDelivery"] = await made(
        graphql, "sendTestWebhook", webhookEndpointId=ids["WebhookEndpoint"]
    )
    await worker.drain(runtime, tenant_id)  # It fails, and waits for its next try.
    newcomer = await made(
        graphql, "createCustomer", externalId=f"{mark}-new", name=mark, currency="USD"
    )
    await made(graphql, "setThrottle", customerId=newcomer, reason=mark)
    spare = {
        name: await _endpoint(graphql, mark)
        for name in (
            "deleteWebhookEndpoint",
            "disableWebhookEndpoint",
            "enableWebhookEndpoint",
        )
    }
    resting = spare["enableWebhookEndpoint"]
    await made(graphql, "disableWebhookEndpoint", webhookEndpointId=resting)
    aside = await graphql(_QUARANTINED, customer=f"{mark}-new")
    edges = aside["quarantinedEvents"]["edges"]
    settled = ("releaseQuarantinedEvents", "discardQuarantinedEvents")
    events = {name: edge["node"]["id"] for name, edge in zip(settled, edges, strict=True)}
    return World(mark, tenant, client, graphql, ids, newcomer, spare, events)


async def _endpoint(graphql: GraphQL, mark: str) -> str:
    """An endpoint of webhooks, where nobody listens."""
    made = await graphql(
        "mutation($url: String!) { createWebhookEndpoint(input: {url: $url}) "
        "{ ... on NewWebhookSecret { endpoint { id } } } }",
        url=f"http://127.0.0.1:9/{mark}",
    )
    endpoint_id: str = made["createWebhookEndpoint"]["endpoint"]["id"]
    return endpoint_id


async def _people(
    runtime: Runtime, tenant_id: TenantId, graphql: GraphQL, mark: str
) -> dict[str, str]:
    """A member who may go, one who stays, and somebody who is asked in."""
    async with runtime.scope(tenant_id) as scope:
        goes, _stays = [
            await join(
                scope,
                email=f"{name}@{mark}.example",
                name=mark,
                role=Role.DEVELOPER,
                account_id=None,
            )
            for name in ("goes", "stays")
        ]
    asked_in = await graphql(
        "mutation($email: String!) { inviteMember(input: {email: $email, role: DEVELOPER}) "
        "{ ... on NewInvitation { invitation { id } } } }",
        email=f"new@{mark}.example",
    )
    return {
        "Member": global_id("Member", goes.id),
        "Invitation": asked_in["inviteMember"]["invitation"]["id"],
    }


async def make_sibling(runtime: Runtime, world: World, mark: str) -> dict[str, str]:
    """Another customer of a world's tenant, with one of everything; ids by kind."""
    ids = await _sell(world.graphql, mark)
    await _use(world.client, mark)
    tenant_id = TenantId(world.tenant.tenant.tenant_id)
    await worker.drain(runtime, tenant_id)
    await made(world.graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    await worker.drain(runtime, tenant_id)
    found = await world.graphql(
        "query($id: ID) { invoices(customerId: $id, first: 1) "
        "{ edges { node { id lines { id } } } } }",
        id=ids["Customer"],
    )
    [edge] = found["invoices"]["edges"]
    ids["Invoice"], ids["InvoiceLine"] = edge["node"]["id"], edge["node"]["lines"][0]["id"]
    return ids


async def let_in(world: World, customer_id: str) -> str:
    """A portal token of a customer."""
    made = await world.graphql(_LET_IN, customer=customer_id)
    token: str = made["createPortalToken"]["token"]
    return token


async def _sell(graphql: GraphQL, mark: str) -> dict[str, str]:
    ids: dict[str, str] = {}

    async def make(kind: str, mutation: str, /, **given: Any) -> str:
        ids[kind] = await made(graphql, mutation, **given)
        return ids[kind]

    meter_id = await make("Meter", "createMeter", **meter(code=mark, name=mark, eventType=mark))
    await make("CostRate", "createCostRate", **_rate(meter_id))
    plan_id = await make(
        "RatePlan", "createRatePlan", **plan(line(meter_id, name=mark), code=mark, name=mark)
    )
    named = {"code": mark, "name": mark}
    product_id = await make("Product", "createProduct", **named)
    entitlement_id = await make(
        "Entitlement", "createEntitlement", **named, kind="QUOTA", meterId=meter_id, quota="5"
    )
    offering_id = await make(
        "Offering",
        "createOffering",
        **named,
        productId=product_id,
        ratePlanId=plan_id,
        entitlementIds=[entitlement_id],
    )
    discount_id = await make("Discount", "createDiscount", **named, kind="PERCENTAGE", rate="0.1")
    settings = {"rates": [{"name": mark, "rate": "0.10"}]}
    await make("TaxSettings", "setTaxEngine", engine="manual", settings=settings)
    bank = {"gateway": "standard.manual", "settings": {"payee": mark, "account": mark}}
    await make("PaymentGatewaySettings", "setPaymentGateway", **bank)
    chat = {"notifier": "standard.chat", "settings": {"prefix": mark}}
    await make("NotifierSettings", "setNotifier", **chat)
    customer_id = await make(
        "Customer", "createCustomer", externalId=mark, name=mark, currency="USD"
    )
    await _hierarchy(make, mark, customer_id)
    wallet_id = await make(
        "Wallet", "createWallet", customerId=customer_id, currency="USD", name=mark
    )
    await make("WalletGrant", "grantCredit", walletId=wallet_id, amount="1", reference=mark)
    await make(
        "CustomerSubscription",
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-10-01T00:00:00Z",
        anchorDay=1,
        graceSeconds=0,
        discountIds=[discount_id],
    )
    await graphql(
        "mutation($name: String!) { createApiKey(input: {name: $name, scopes: [USAGE_READ]}) "
        "{ ... on NewApiKey { apiKey { id } } } }",
        name=mark,
    )
    return ids


async def _hierarchy(make: Callable[..., Awaitable[str]], mark: str, customer_id: str) -> None:
    named = {"code": mark, "name": mark}
    team_id = await make("Team", "createTeam", customerId=customer_id, **named)
    agent_id = await make("Agent", "createAgent", teamId=team_id, **named)
    await make(
        "CustomerKey",
        "registerCustomerKey",
        customerId=customer_id,
        agentId=agent_id,
        name=mark,
        key=CUSTOMER_KEY % mark,
        validFrom="2026-10-01T00:00:00Z",
    )
    # Of its rates, and not blocked: the rest of the world goes on.
    await make("Restraint", "setThrottle", customerId=customer_id, reason=mark, percent=99)
    await make(
        "CustomerAlias",
        "registerCustomerAlias",
        customerId=customer_id,
        externalId=f"{mark}-alias",
        validFrom="2026-10-01T00:00:00Z",
    )


def _rate(meter_id: str) -> dict[str, Any]:
    return {
        "meterId": meter_id,
        "unitCost": "1",
        "currency": "USD",
        "effectiveFrom": "2026-10-01T00:00:00Z",
    }


async def _use(client: httpx2.AsyncClient, mark: str) -> None:
    events = [
        event(mark, "2026-10-15"),
        event(mark, "2026-11-15", apiKey=CUSTOMER_KEY % mark),
        event(mark, "2026-11-16", customer=f"{mark} unknown"),
        event(mark, "2026-11-17", customer=f"{mark}-new"),  # Who comes later.
        event(mark, "2026-11-18", customer=f"{mark}-new"),
    ]
    answer = (await client.post("/v1/events", json=events)).json()
    assert (answer["accepted"], answer["quarantined"]) == (2, 3), answer


def event(mark: str, day: str, **more: Any) -> dict[str, Any]:
    """An event of the world's customer."""
    return {
        "idempotencyKey": f"{mark}-{day}",
        "type": mark,
        "customer": mark,
        "occurredAt": f"{day}T10:00:00Z",
        "properties": {"tokens": "100", "note": mark},
        **more,
    }


_LET_IN = """
mutation($customer: ID!) {
  createPortalToken(input: {customerId: $customer}) {
    ... on NewPortalToken { token portalToken { id } }
  }
}
"""
_QUARANTINED = """
query($customer: String) {
  quarantinedEvents(customer: $customer) { edges { node { id } } }
}
"""
_FOUND = """
{
  tenant { id }
  apiKeys(first: 2) { edges { node { id } } }
  ratePlans(first: 1) { edges { node { lines { id } } } }
  quarantinedEvents(first: 1) { edges { node { id } } }
  invoices(first: 1) { edges { node { id lines { id } } } }
  signals(first: 1) { edges { node { id } } }
  actions(first: 1) { edges { node { id } } }
  auditLog(first: 1) { edges { node { id } } }
  persistedDocuments(first: 1) { edges { node { id } } }
}
"""
_PATHS: dict[str, tuple[str | int, ...]] = {
    "Tenant": ("tenant",),
    "AuditEntry": ("auditLog", "edges", 0, "node"),
    "ApiKey": ("apiKeys", "edges", 1, "node"),
    "RatePlanLine": ("ratePlans", "edges", 0, "node", "lines", 0),
    "QuarantinedEvent": ("quarantinedEvents", "edges", 0, "node"),
    "Invoice": ("invoices", "edges", 0, "node"),
    "InvoiceLine": ("invoices", "edges", 0, "node", "lines", 0),
    "Signal": ("signals", "edges", 0, "node"),
    "Action": ("actions", "edges", 0, "node"),
    "PersistedDocument": ("persistedDocuments", "edges", 0, "node"),
}
