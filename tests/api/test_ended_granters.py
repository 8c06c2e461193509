"""Whoever is ended while he hands rights on: one of the two comes first, and the other knows."""

import asyncio
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
import strawberry

from aforo.api.parts.relay import global_id, local_id
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime, Scope
from aforo.tenants import commands, members
from aforo.tenants.commands import IssuedKey, NewTenant, create_api_key
from aforo.tenants.members import OPERATOR
from aforo.tenants.permissions import EVERY_PERMISSION, Role
from aforo.tenants.queries import authenticate
from aforo.tenants.standing import standing
from tests.api.forms import GraphQL, made
from tests.api.people import Browser, member

pytestmark = pytest.mark.anyio

WAITS = sa.text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
    "AND (classid::bigint << 32 | objid::bigint) "
    "= hashtextextended('aforo.grants.' || :tenant_id, 0)"
)
COUNTS = """{ portalTokens { edges { cursor } } invitations { edges { cursor } }
  tenant { sandboxes { id } } apiKeys { edges { node { name previousTokenUntil } } } }"""


@pytest.fixture
async def granter(runtime: Runtime, tenant_id: TenantId) -> IssuedKey:
    """A second key, which may do everything, and is about to be revoked."""
    async with runtime.scope(tenant_id) as scope:
        return await create_api_key(
            scope,
            name="Granter",
            scopes=EVERY_PERMISSION,
            pepper=runtime.settings.key_pepper,
        )


async def customer(graphql: GraphQL) -> str:
    return await made(graphql, "createCustomer", externalId="acme", name="Acme", currency="USD")


def mutation(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The body of a request."""
    text = (
        f"mutation($input: {name[0].upper()}{name[1:]}Input!) {{ result: {name}(input: $input) "
        "{ __typename ... on Problem { code } } }"
    )
    return {"query": text, "variables": {"input": given}}


async def waits(runtime: Runtime, tenant_id: TenantId, task: asyncio.Task[Any]) -> bool:
    """Whether a request comes to wait for what another transaction holds, before it is done."""
    async with asyncio.timeout(60), runtime.scope(tenant_id) as scope:
        while not task.done():
            if await scope.db.scalar(WAITS, {"tenant_id": str(tenant_id)}):
                return True
            await asyncio.sleep(0.005)
    return False


async def asked_meanwhile(
    runtime: Runtime, scope: Scope, client: httpx2.AsyncClient, body: dict[str, Any], **headers: str
) -> asyncio.Task[httpx2.Response]:
    """A request that waits for the transaction of a scope to be over."""
    task = asyncio.create_task(client.post("/graphql", json=body, headers=headers))
    assert await waits(runtime, scope.tenant_id, task), (await task).text
    return task


def refusal(response: httpx2.Response) -> str:
    [error] = response.json()["errors"]
    assert "you were let go meanwhile" in error["message"]
    code: str = error["extensions"]["code"]
    return code


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("createPortalToken", {"customerId": "acme"}),
        ("createApiKey", {"name": "Late", "scopes": ["CATALOG_READ"]}),
        ("rotateApiKey", {"apiKeyId": "first"}),
        ("createSandbox", {"name": "Late"}),
        ("inviteMember", {"email": "late@late.example", "role": "ANALYST"}),
    ],
)
async def test_a_key_that_is_revoked_meanwhile_hands_nothing_on(
    runtime: Runtime,
    client: httpx2.AsyncClient,
    graphql: GraphQL,
    tenant: NewTenant,
    tenant_id: TenantId,
    granter: IssuedKey,
    name: str,
    given: dict[str, Any],
) -> None:
    ids = {"acme": await customer(graphql), "first": global_id("ApiKey", tenant.key.row.id)}
    given = {field: ids.get(str(value), value) for field, value in given.items()}
    before = await graphql(COUNTS)
    async with runtime.scope(tenant_id) as scope:
        await commands.revoke_api_key(scope, api_key_id=granter.row.id)
        task = await asked_meanwhile(
            runtime, scope, client, mutation(name, given), Authorization=f"Bearer {granter.token}"
        )
    assert refusal(await task) == "FORBIDDEN"
    assert await graphql(COUNTS) == before


async def test_what_was_handed_on_first_is_there_before_the_key_is_revoked(
    runtime: Runtime,
    client: httpx2.AsyncClient,
    graphql: GraphQL,
    tenant_id: TenantId,
    granter: IssuedKey,
) -> None:
    key_id = global_id("ApiKey", granter.row.id)
    await customer(graphql)
    caller = await authenticate(runtime, granter.token)
    assert caller is not None
    async with runtime.scope(tenant_id) as scope:
        assert (await standing(scope, caller)).permissions == EVERY_PERMISSION
        body = mutation("revokeApiKey", {"apiKeyId": key_id})
        task = await asked_meanwhile(runtime, scope, client, body)
        late = await create_api_key(
            scope,
            name="In time",
            scopes=EVERY_PERMISSION,
            pepper=runtime.settings.key_pepper,
        )
    assert (await task).json()["data"]["result"]["__typename"] == "ApiKey"
    assert await authenticate(runtime, granter.token) is None
    assert await authenticate(runtime, late.token) is not None


async def test_two_who_hand_on_do_not_wait_for_each_other(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId, granter: IssuedKey
) -> None:
    caller = await authenticate(runtime, granter.token)
    assert caller is not None
    async with runtime.scope(tenant_id) as scope:
        await standing(scope, caller)
        async with asyncio.timeout(60):
            body = mutation("createPortalToken", {"customerId": await customer(graphql)})
            answer = await graphql(body["query"], **body["variables"])
    assert answer["result"]["__typename"] == "NewPortalToken"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("createPortalToken", {"customerId": "acme"}),
        ("inviteMember", {"email": "late@late.example", "role": "ANALYST"}),
        ("removeMember", {"memberId": "boss"}),
    ],
)
async def test_a_member_who_is_removed_meanwhile_does_nothing_to_others(
    runtime: Runtime,
    graphql: GraphQL,
    tenant_id: TenantId,
    name: str,
    given: dict[str, Any],
) -> None:
    mark = tenant_id.hex[-12:]
    boss = await member(runtime, tenant_id, f"boss@{mark}.example")
    async with boss, await member(runtime, tenant_id, f"bea@{mark}.example") as bea:
        ids = {"acme": await customer(graphql), "boss": await id_of(boss)}
        given = {field: ids.get(str(value), value) for field, value in given.items()}
        bea_id = local_id("Member", await id_of(bea), field="id")
        before = await graphql(COUNTS)
        async with runtime.scope(tenant_id) as scope:
            await members.remove_member(scope, granter=OPERATOR, member_id=bea_id)
            headers = {"X-CSRF-Token": bea.csrf or ""}
            task = await asked_meanwhile(
                runtime, scope, bea.client, mutation(name, given), **headers
            )
        assert refusal(await task) == "FORBIDDEN"
        assert await graphql(COUNTS) == before
        assert await boss.is_signed_in()


async def test_a_member_whose_role_shrinks_meanwhile_hands_on_what_is_left_of_it(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId
) -> None:
    email = f"bea@{tenant_id.hex[-12:]}.example"
    async with await member(runtime, tenant_id, email, Role.ADMIN) as bea:
        bea_id = local_id("Member", await id_of(bea), field="id")
        async with runtime.scope(tenant_id) as scope:
            await members.change_role(
                scope,
                granter=OPERATOR,
                member_id=bea_id,
                role=Role.ANALYST,
            )
            body = mutation("createApiKey", {"name": "Late", "scopes": ["BILLING_WRITE"]})
            headers = {"X-CSRF-Token": bea.csrf or ""}
            task = await asked_meanwhile(runtime, scope, bea.client, body, **headers)
        answer = (await task).json()["data"]["result"]
        assert (answer["__typename"], answer["code"]) == ("InvalidProblem", "SCOPE_NOT_HELD")
        names = [each["node"]["name"] for each in (await graphql(COUNTS))["apiKeys"]["edges"]]
        assert "Late" not in names


async def id_of(browser: Browser) -> strawberry.ID:
    found: strawberry.ID = (await browser.get("/auth/session")).json()["member"]["id"]
    return found
