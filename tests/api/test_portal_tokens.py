"""Portal tokens: how they are made, how long they are good, and what ends them."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.protocol import streams
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_api_key, create_tenant
from aforo.tenants.permissions import PORTAL_PERMISSIONS, Permission
from aforo.tenants.queries import CallerKind, authenticate
from tests.api.forms import GraphQL, change, http, made, no_such, poster, problem
from tests.api.server import serving, socket_to
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

CREATE = """
mutation($input: CreatePortalTokenInput!) {
  createPortalToken(input: $input) {
    __typename
    ... on NewPortalToken { token portalToken { id expiresAt customer { id } } }
    ... on Problem { code field message }
  }
}
"""


async def _token(graphql: GraphQL, **given: Any) -> dict[str, Any]:
    result: dict[str, Any] = (await graphql(CREATE, input=given))["createPortalToken"]
    return result


@pytest.fixture
async def customer_id(graphql: GraphQL) -> str:
    return await made(graphql, "createCustomer", externalId="acme", name="Acme", currency="USD")


async def test_a_token_speaks_for_its_customer_until_it_expires(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId, customer_id: str, clock: MovableClock
) -> None:
    issued = await _token(graphql, customerId=customer_id)
    assert issued["portalToken"]["expiresAt"] == "2026-11-20T12:15:00Z"
    assert issued["portalToken"]["customer"] == {"id": customer_id}
    token = issued["token"]
    assert token.startswith("afo_portal_")
    caller = await authenticate(runtime, token)
    assert caller is not None
    assert (caller.tenant_id, caller.kind) == (tenant_id, CallerKind.PORTAL)
    assert caller.permissions == PORTAL_PERMISSIONS
    clock.move_to(NOW + timedelta(minutes=15, microseconds=-1))
    assert await authenticate(runtime, token) is not None
    clock.move_to(NOW + timedelta(minutes=15))
    assert await authenticate(runtime, token) is None


async def test_a_revoked_or_forged_token_is_nobodys(
    runtime: Runtime, graphql: GraphQL, customer_id: str
) -> None:
    first = await _token(graphql, customerId=customer_id)
    second = await _token(graphql, customerId=customer_id, lifetimeSeconds=3600)
    forged = first["token"].split("_")
    forged[2] = second["token"].split("_")[2]
    assert await authenticate(runtime, "_".join(forged)) is None
    for _ in range(2):
        ended = await change(graphql, "revokePortalToken", portalTokenId=first["portalToken"]["id"])
        assert ended["__typename"] == "PortalToken"
    assert await authenticate(runtime, first["token"]) is None
    assert await authenticate(runtime, second["token"]) is not None
    listed = await graphql(
        "query($id: ID!) { portalTokens(customerId: $id) { edges { node { id revokedAt } } } }",
        id=customer_id,
    )
    assert [edge["node"]["revokedAt"] for edge in listed["portalTokens"]["edges"]] == [
        "2026-11-20T12:00:00Z",
        None,
    ]


async def test_what_cannot_be_let_in_is_refused_and_not_written(
    runtime: Runtime, graphql: GraphQL, customer_id: str
) -> None:
    stranger = await create_tenant(runtime, name="Stranger")
    async with http(runtime, stranger) as client:
        theirs = await made(
            poster(client), "createCustomer", externalId="x", name="X", currency="USD"
        )
    for lifetime in (59, 3601):
        result = await _token(graphql, customerId=customer_id, lifetimeSeconds=lifetime)
        assert problem(result) == ("InvalidProblem", "INVALID", "lifetimeSeconds")
    missing = await _token(graphql, customerId=no_such("Customer"))
    assert problem(missing) == ("NotFoundProblem", "NOT_FOUND", "customerId")
    assert await _token(graphql, customerId=theirs) == missing
    listed = await graphql(
        "query($id: ID!) { portalTokens(customerId: $id) { edges { cursor } } }", id=customer_id
    )
    assert listed["portalTokens"]["edges"] == []


async def test_a_key_lets_nobody_read_what_it_may_not_read_itself(
    runtime: Runtime,
    client: httpx2.AsyncClient,
    tenant_id: TenantId,
    customer_id: str,
) -> None:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="narrow",
            scopes=[Permission.CUSTOMERS_READ, Permission.CUSTOMERS_WRITE],
            pepper=runtime.settings.key_pepper,
        )
    client.headers["authorization"] = f"Bearer {key.token}"
    result = await _token(poster(client), customerId=customer_id)
    assert problem(result) == ("InvalidProblem", "SCOPE_NOT_HELD", None)
    assert "CATALOG_READ and USAGE_READ and BILLING_READ" in result["message"]


async def test_tokens_that_expired_a_day_ago_go_when_the_next_is_made(
    graphql: GraphQL, customer_id: str, clock: MovableClock
) -> None:
    query = "query($id: ID!) { portalTokens(customerId: $id) { edges { cursor } } }"
    for passed, left in ((0, 1), (24, 2), (25, 2)):
        clock.move_to(NOW + timedelta(hours=passed))
        await _token(graphql, customerId=customer_id)
        listed = await graphql(query, id=customer_id)
        assert len(listed["portalTokens"]["edges"]) == left


async def test_a_customer_has_so_many_good_tokens_at_once(
    graphql: GraphQL, customer_id: str, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aforo.tenants.commands.PORTAL_TOKENS_MAX", 2)
    first = await _token(graphql, customerId=customer_id)
    await _token(graphql, customerId=customer_id)
    refused = await _token(graphql, customerId=customer_id)
    assert problem(refused) == ("ConflictProblem", "TOO_MANY_PORTAL_TOKENS", "customerId")
    await change(graphql, "revokePortalToken", portalTokenId=first["portalToken"]["id"])
    assert (await _token(graphql, customerId=customer_id))["__typename"] == "NewPortalToken"
    clock.move_to(NOW + timedelta(minutes=15))
    assert (await _token(graphql, customerId=customer_id))["__typename"] == "NewPortalToken"


async def test_a_revoked_token_loses_its_streams(
    runtime: Runtime,
    graphql: GraphQL,
    customer_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.1)
    issued = await _token(graphql, customerId=customer_id)
    async with (
        serving(create_app(runtime)) as port,
        socket_to(port, token=issued["token"]) as socket,
    ):
        await socket.initialise()
        await socket.subscribe("subscription { events { eventId } }")
        await change(graphql, "revokePortalToken", portalTokenId=issued["portalToken"]["id"])
        code, _ = await socket.closed()
    assert code == 4401
