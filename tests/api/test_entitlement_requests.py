"""`POST /v1/entitlements/…`: which requests are refused, and that tenants are apart."""

from typing import Any

import httpx2
import pytest

from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.forms import GraphQL, http, new_key
from tests.api.gate import ASKED, Ask, asker, sell

pytestmark = pytest.mark.anyio


@pytest.fixture
def ask(client: httpx2.AsyncClient) -> Ask:
    return asker(client)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"feature": "tokens"}, "customer"),
        ({"customer": "acme", "apiKey": "k", "feature": "tokens"}, "customer"),
        ({"customer": "acme"}, "feature"),
        ({"customer": "acme", "feature": "a", "meter": "b"}, "feature"),
        ({**ASKED, "quantity": "1e3"}, "quantity"),
        ({**ASKED, "quantity": "-1"}, "quantity"),
        ({**ASKED, "quantity": True}, "quantity"),
        ({**ASKED, "qty": "1"}, "qty"),
        ({"customer": 5, "feature": "tokens"}, "customer"),
        ({"customer": "a\x00", "feature": "tokens"}, "customer"),
    ],
)
async def test_a_question_that_is_malformed_is_refused_by_its_field(
    client: httpx2.AsyncClient, given: dict[str, Any], field: str
) -> None:
    response = await client.post("/v1/entitlements/check", json=given)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)


async def test_a_key_needs_the_scope_and_a_body_its_form(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    url = "/v1/entitlements/check"
    _, token = await new_key(graphql, "INGEST")
    for headers, content, status in (
        ({"Authorization": "Bearer afo_live_no"}, b"{}", 401),
        ({"Authorization": f"Bearer {token}"}, b"{}", 403),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({}, b"{", 400),
        ({}, b"[]", 400),
        ({}, b'{"customer": "' + b"a" * 20_000 + b'"}', 413),
    ):
        sent = {"Content-Type": "application/json", **headers}
        response = await client.post(url, content=content, headers=sent)
        assert response.status_code == status


async def test_another_tenants_customer_is_unknown_and_its_holds_are_not_there(
    graphql: GraphQL, ask: Ask, runtime: Runtime
) -> None:
    await sell(graphql)
    taken = await ask("reserve", **ASKED, quantity="5", idempotencyKey="k")
    stranger = await create_tenant(runtime, name="Another tenant")
    async with http(runtime, stranger) as client:
        assert (await asker(client)(**ASKED))["reason"] == "UNKNOWN_CUSTOMER"
        response = await client.post("/v1/entitlements/release", json={"hold": taken["hold"]["id"]})
        assert response.status_code == 404
    assert (await ask(**ASKED))["used"] == "5"
