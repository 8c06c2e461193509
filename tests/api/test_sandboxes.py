"""Sandboxes: empty tenants beside a live one, to which nothing crosses."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from aforo.sdk.ids import TenantId
from aforo.storage.audit import AuditEntry
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants import commands
from aforo.tenants.commands import NewTenant, create_sandbox, create_tenant
from aforo.tenants.models import Environment, Tenant
from aforo.tenants.permissions import EVERY_PERMISSION
from aforo.tenants.queries import authenticate
from tests.api.forms import GraphQL, http, made, poster, problem, row_id

pytestmark = pytest.mark.anyio

CREATE = """
mutation($name: String!) {
  createSandbox(input: {name: $name}) {
    __typename
    ... on NewSandbox { token sandbox { id name tenantId createdAt } }
    ... on Problem { code field message }
  }
}
"""
LISTED = "{ tenant { sandboxes { name } } }"


async def create(graphql: GraphQL, name: str = "staging") -> dict[str, Any]:
    result: dict[str, Any] = (await graphql(CREATE, name=name))["createSandbox"]
    return result


async def names(graphql: GraphQL) -> list[str]:
    return [each["name"] for each in (await graphql(LISTED))["tenant"]["sandboxes"]]


@pytest.fixture
async def inside(
    runtime: Runtime, tenant: NewTenant, graphql: GraphQL
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with the first key of a new sandbox."""
    sandbox = await create(graphql)
    async with http(runtime, tenant) as client:
        client.headers["authorization"] = f"Bearer {sandbox['token']}"
        yield client


async def test_a_sandbox_is_an_empty_tenant_of_its_own_with_a_test_key_for_everything(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId
) -> None:
    made_now = await create(graphql)
    assert made_now["token"].startswith("afo_test_")
    caller = await authenticate(runtime, made_now["token"])
    assert caller is not None
    assert (caller.environment, caller.permissions) == (Environment.TEST, EVERY_PERMISSION)
    assert caller.tenant_id != tenant_id
    assert row_id(made_now["sandbox"]["tenantId"], "Tenant") == caller.tenant_id
    async with runtime.scope(caller.tenant_id) as scope:
        [row] = await scope.db.scalars(sa.select(Tenant))
        assert (row.name, row.live_tenant_id) == ("staging", tenant_id)
    assert await names(graphql) == ["staging"]
    # It holds no more than any tenant that was made a moment ago.
    fresh = await create_tenant(runtime, name="Fresh", environment=Environment.TEST)
    fresh_id = TenantId(fresh.tenant.tenant_id)
    assert await filled(runtime, caller.tenant_id) == await filled(runtime, fresh_id)


async def test_who_made_it_stands_in_both_audit_logs_and_each_tells_of_its_own(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId
) -> None:
    made_now = await create(graphql)
    sandbox_id = row_id(made_now["sandbox"]["tenantId"], "Tenant")
    told = {}
    for each in (tenant_id, sandbox_id):
        async with runtime.scope(each) as scope:
            entries = list(await scope.db.scalars(sa.select(AuditEntry)))
        told[each] = [
            {change["type"] for change in json.loads(entry.changes)}
            for entry in entries
            if entry.action == "createSandbox"
        ]
        assert made_now["token"] not in repr([entry.changes for entry in entries])
    assert told == {tenant_id: [{"Sandbox"}], sandbox_id: [{"Tenant", "ApiKey"}]}


async def filled(runtime: Runtime, tenant_id: TenantId) -> dict[str, int]:
    """How many rows a tenant has, by table; none is absent."""
    no_tenants = {"account", "sign_in_count", "topic_place"}
    tables = set(SQLModel.metadata.tables) - no_tenants
    tables -= {"audit_entry", "audit_object"}  # They tell who made it.
    async with runtime.scope(tenant_id) as scope:
        counts = {
            table: await scope.db.scalar(sa.text(f"SELECT count(*) FROM {table}"))
            for table in sorted(tables)
        }
    return {table: count for table, count in counts.items() if count}


async def test_nothing_crosses_between_a_tenant_and_its_sandbox(
    graphql: GraphQL, inside: httpx2.AsyncClient
) -> None:
    within = poster(inside)
    live = await made(graphql, "createCustomer", externalId="acme", name="Live", currency="USD")
    test = await made(within, "createCustomer", externalId="acme", name="Test", currency="USD")
    seen = "query($id: ID!) { node(id: $id) { id } customers { edges { node { name } } } }"
    for ask, own, others, name in ((graphql, live, test, "Live"), (within, test, live, "Test")):
        assert (await ask(seen, id=own))["node"] == {"id": own}
        found = await ask(seen, id=others)
        assert found["node"] is None
        assert [edge["node"]["name"] for edge in found["customers"]["edges"]] == [name]
    tenant = "{ tenant { id name environment sandboxes { name } } }"
    mine, theirs = (await graphql(tenant))["tenant"], (await within(tenant))["tenant"]
    assert (mine["environment"], theirs["environment"]) == ("LIVE", "TEST")
    assert theirs["name"] == "staging"
    assert theirs["sandboxes"] == []
    for ask, other in ((graphql, theirs["id"]), (within, mine["id"])):
        assert (await ask("query($id: ID!) { node(id: $id) { id } }", id=other))["node"] is None


async def test_a_sandbox_makes_no_sandbox(inside: httpx2.AsyncClient) -> None:
    refused = await create(poster(inside))
    assert problem(refused) == ("ConflictProblem", "IN_SANDBOX", None)


async def test_a_name_is_taken_once_and_checked(graphql: GraphQL) -> None:
    await create(graphql)
    assert problem(await create(graphql)) == ("ConflictProblem", "NAME_TAKEN", "name")
    assert problem(await create(graphql, " ")) == ("InvalidProblem", "INVALID", "name")
    assert await names(graphql) == ["staging"]


async def test_a_tenant_has_so_many_sandboxes_also_when_they_are_made_at_once(
    graphql: GraphQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "SANDBOXES_MAX", 3)
    results = await asyncio.gather(*(create(graphql, f"box {number}") for number in range(6)))
    codes = [result.get("code") for result in results]
    assert sorted(codes, key=str) == [None] * 3 + ["TOO_MANY_SANDBOXES"] * 3
    assert len(await names(graphql)) == 3


async def test_a_transaction_that_fails_leaves_neither_the_sandbox_nor_what_is_known_of_it(
    runtime: Runtime, graphql: GraphQL, tenant_id: TenantId
) -> None:
    made_within = []

    async def fail() -> None:
        async with runtime.scope(tenant_id) as scope:
            made_within.append(await create_sandbox(runtime, scope, name="half"))
            assert scope.db.sync_session.info["tenant_id"] == tenant_id
            assert await scope.db.scalar(sa.text("SELECT count(*) FROM tenant")) == 1
            raise RuntimeError("the work went wrong")

    with pytest.raises(RuntimeError, match="the work went wrong"):
        await fail()
    assert await names(graphql) == []
    assert await authenticate(runtime, made_within[0].key.token) is None


async def test_what_fails_inside_a_new_tenant_leaves_the_scope_where_it_was(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async def fail() -> None:
        async with runtime.scope(tenant_id) as scope:
            try:
                async with runtime.founded(scope, TenantId(new_id())) as inside:
                    assert inside.tenant_id != tenant_id
                    raise RuntimeError("the work went wrong")
            finally:
                assert scope.db.sync_session.info["tenant_id"] == tenant_id

    with pytest.raises(RuntimeError, match="the work went wrong"):
        await fail()


async def test_a_sandbox_is_made_once_for_one_idempotency_key(
    client: httpx2.AsyncClient, graphql: GraphQL, clock: MovableClock
) -> None:
    body = {"query": CREATE, "variables": {"name": "staging"}}
    headers = {"Idempotency-Key": "make-the-sandbox"}
    first = await client.post("/graphql", json=body, headers=headers)
    again = await client.post("/graphql", json=body, headers=headers)
    assert first.json()["data"] == again.json()["data"]
    assert first.json()["data"]["createSandbox"]["__typename"] == "NewSandbox"
    assert await names(graphql) == ["staging"]
