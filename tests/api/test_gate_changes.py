"""`GET /v1/entitlements/changes`: whoever remembers answers is told which are no longer good."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.forms import GraphQL, http, made, new_key, poster
from tests.api.gate import ASKED, asker, sell
from tests.api.listening import Reader

pytestmark = pytest.mark.anyio

URL = "/v1/entitlements/changes"
ACME = {"customer": "acme", "missed": None}


@asynccontextmanager
async def following(http: httpx2.AsyncClient, *, last: str | None = None) -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": last} if last else {}
    async with http.stream("GET", URL, headers=headers) as response:
        assert response.status_code == 200
        yield Reader(response)


async def test_customers_are_named_whose_standing_changes_or_whose_quota_is_used_up(
    graphql: GraphQL, client: httpx2.AsyncClient, listener: httpx2.AsyncClient
) -> None:
    sold = await sell(graphql)
    async with following(listener) as reader:
        await reader.opened()
        await made(graphql, "setBlock", customerId=sold.customer_id, reason="fraud")
        assert await reader.next() == ACME
        await made(graphql, "releaseCustomer", customerId=sold.customer_id, kind="BLOCK")
        assert await reader.next() == ACME
        ask = asker(client)
        await ask("consume", **ASKED, quantity="99", idempotencyKey="a")
        await ask("consume", **ASKED, quantity="1", idempotencyKey="b")
        assert await reader.next() == ACME
        used_up = reader.cursor
        await made(graphql, "endSubscription", subscriptionId=sold.subscription_id)
        assert await reader.next() == ACME
    # Who comes again is told what came after, and no more.
    async with following(listener, last=used_up) as reader:
        assert await reader.next() == ACME
        await made(graphql, "setThrottle", customerId=sold.customer_id, reason="margin")
        assert await reader.next() == ACME


async def test_nobody_hears_of_another_tenants_customers(
    graphql: GraphQL, listener: httpx2.AsyncClient, runtime: Runtime
) -> None:
    sold = await sell(graphql)
    stranger = await create_tenant(runtime, name="Another tenant")
    async with http(runtime, stranger) as theirs, following(listener) as reader:
        await reader.opened()
        foreign = poster(theirs)
        id_ = await made(
            foreign, "createCustomer", externalId="theirs", name="Theirs", currency="USD"
        )
        await made(foreign, "setBlock", customerId=id_, reason="fraud")
        await made(graphql, "setBlock", customerId=sold.customer_id, reason="fraud")
        assert await reader.next() == ACME


async def test_a_key_without_the_scope_hears_nothing(
    graphql: GraphQL, client: httpx2.AsyncClient
) -> None:
    _, token = await new_key(graphql, "INGEST")
    refused = await client.get(URL, headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 403
