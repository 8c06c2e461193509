"""The audit log through GraphQL: what a mutation leaves, who may read it, and what it finds."""

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import TenantRow
from aforo.storage.trail import is_audited
from aforo.tenants.commands import NewTenant, create_api_key
from aforo.tenants.keys import make_token
from aforo.tenants.models import Environment
from aforo.tenants.permissions import Permission
from tests.api import people
from tests.api.forms import GraphQL, change, customer, made
from tests.api.walk import ask, root_fields
from tests.api.world import World, event, make_world
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

LOG = """
query ($actorId: ID, $action: String, $objectId: ID, $since: DateTime, $until: DateTime,
       $first: Int, $after: String) {
  auditLog(actorId: $actorId, action: $action, objectId: $objectId, since: $since, until: $until,
           first: $first, after: $after) {
    edges {
      node {
        id action outcome reason requestId createdAt omitted position hash
        actor { kind id label address userAgent }
        changes { type id before after }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""


async def entries(graphql: GraphQL, **wanted: Any) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await graphql(LOG, **wanted))["auditLog"]["edges"]]


async def test_a_mutation_leaves_who_what_before_after_from_where_and_the_request(
    client: httpx2.AsyncClient, graphql: GraphQL, tenant: NewTenant
) -> None:
    body = {
        "query": "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) "
        "{ ... on Customer { id } } }",
        "variables": {"input": customer(email="post@acme.test")},
    }
    answer = await client.post("/graphql", json=body, headers={"User-Agent": "billing export 1"})
    customer_id = answer.json()["data"]["createCustomer"]["id"]
    (entry,) = await entries(graphql, action="createCustomer")
    assert entry["outcome"] == "DONE"
    assert entry["requestId"] == answer.headers["X-Request-Id"]
    assert entry["actor"] == {
        "kind": "API_KEY",
        "id": global_id("ApiKey", tenant.key.row.id),
        "label": tenant.key.row.public_id,
        "address": "127.0.0.1",
        "userAgent": "billing export 1",
    }
    (only,) = entry["changes"]
    assert (only["type"], only["id"], only["before"]) == ("Customer", customer_id, None)
    assert only["after"]["email"] == "post@acme.test"
    assert only["after"]["externalId"] == "acme"
    assert "tenantId" not in only["after"]


async def test_a_change_shows_the_values_that_changed_and_no_secret(
    graphql: GraphQL, tenant: NewTenant, clock: MovableClock
) -> None:
    key = await graphql(
        'mutation { createApiKey(input: {name: "k", scopes: [USAGE_READ]}) '
        "{ ... on NewApiKey { token apiKey { id } } } }"
    )
    token, key_id = key["createApiKey"]["token"], key["createApiKey"]["apiKey"]["id"]
    clock.advance(timedelta(minutes=1))
    await made(graphql, "revokeApiKey", apiKeyId=key_id)
    revoked, created = await entries(graphql, objectId=key_id)
    assert (revoked["action"], created["action"]) == ("revokeApiKey", "createApiKey")
    assert revoked["changes"] == [
        {
            "type": "ApiKey",
            "id": key_id,
            "before": {"revokedAt": None},
            "after": {"revokedAt": "2026-11-20T12:01:00Z"},
        }
    ]
    assert created["changes"][0]["after"]["secretHash"] == "[secret]"
    assert created["changes"][0]["after"]["scopes"] == ["usage_read"]
    assert token.split("_")[3] not in str(created)


async def test_a_mutation_that_changes_nothing_leaves_no_entry(
    graphql: GraphQL, runtime: Runtime
) -> None:
    await entries(graphql)
    await runtime.background.settle()  # The first use of the key has been noted.
    before = await entries(graphql)
    assert (await change(graphql, "createProduct", code="!", name=""))["__typename"].endswith(
        "Problem"
    )
    key = await graphql("{ apiKeys(first: 1) { edges { node { name } } } }")
    assert key
    assert await entries(graphql) == before


async def test_the_log_is_filtered_by_actor_action_object_and_time_and_paged(
    graphql: GraphQL, tenant: NewTenant, clock: MovableClock
) -> None:
    ids = []
    for number in range(5):
        clock.advance(timedelta(minutes=1))
        ids.append(await made(graphql, "createProduct", code=f"p{number}", name="P"))
    team_of = await made(graphql, "createCustomer", **customer())
    await made(graphql, "createTeam", customerId=team_of, code="t", name="T")
    products = await entries(graphql, action="createProduct")
    assert [entry["changes"][0]["id"] for entry in products] == ids[::-1]
    assert [entry["action"] for entry in await entries(graphql, objectId=ids[2])] == [
        "createProduct"
    ]
    mine = await entries(graphql, actorId=global_id("ApiKey", tenant.key.row.id), first=7)
    assert {entry["actor"]["label"] for entry in mine} == {tenant.key.row.public_id}
    assert await entries(graphql, actorId=global_id("ApiKey", tenant.tenant.tenant_id)) == []
    between = await entries(graphql, since=at(2), until=at(4), action="createProduct")
    assert [entry["changes"][0]["id"] for entry in between] == [ids[2], ids[1]]
    seen, after = [], None
    while True:
        page = (await graphql(LOG, first=2, after=after, action="createProduct"))["auditLog"]
        seen += [edge["node"]["changes"][0]["id"] for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        clock.advance(timedelta(minutes=1))  # What is added meanwhile moves no page.
        await made(graphql, "createProduct", code=f"new{len(seen)}", name="P")
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == ids[::-1]


def at(minutes: int) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


async def test_the_log_needs_its_own_permission(
    client: httpx2.AsyncClient, runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="all but one",
            scopes=set(Permission) - {Permission.AUDIT_READ},
            pepper=runtime.settings.key_pepper,
        )
    refused = await client.post(
        "/graphql",
        json={"query": "{ auditLog { edges { cursor } } }"},
        headers={"Authorization": f"Bearer {key.token}"},
    )
    assert refused.status_code == 403


async def test_a_replayed_mutation_is_recorded_once(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    body = {"query": 'mutation { createProduct(input: {code: "p", name: "P"}) { __typename } }'}
    for _ in range(3):
        await client.post("/graphql", json=body, headers={"Idempotency-Key": "key-1"})
    assert len(await entries(graphql, action="createProduct")) == 1


async def test_of_an_operation_with_a_key_each_field_has_an_entry_and_a_failed_one_none(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    query = """
    mutation {
      a: createProduct(input: {code: "a", name: "A"}) { __typename }
      b: createProduct(input: {code: "a", name: "B"}) { __typename }
      c: createMeter(input: {code: "c", name: "C", eventType: "e", aggregation: COUNT}) {
        __typename
      }
    }
    """
    await client.post("/graphql", json={"query": query}, headers={"Idempotency-Key": "key-1"})
    assert len(await entries(graphql, action="createMeter")) == 1
    assert len(await entries(graphql, action="createProduct")) == 1


async def test_what_a_key_may_not_is_recorded_once_a_minute_with_a_count(
    client: httpx2.AsyncClient,
    runtime: Runtime,
    tenant_id: TenantId,
    graphql: GraphQL,
    clock: MovableClock,
) -> None:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="reader",
            scopes=[Permission.CATALOG_READ],
            pepper=runtime.settings.key_pepper,
        )
    body = {"query": 'mutation { createProduct(input: {code: "p", name: "P"}) { __typename } }'}
    headers = {"Authorization": f"Bearer {key.token}"}

    async def refused() -> None:
        response = await client.post("/graphql", json=body, headers=headers)
        assert response.status_code == 403
        await runtime.background.settle()

    for _ in range(5):
        await refused()
    (entry,) = await entries(graphql, action="createProduct")
    assert (entry["outcome"], entry["reason"]) == ("REFUSED", "FORBIDDEN")
    assert entry["actor"]["id"] == global_id("ApiKey", key.row.id)
    assert entry["actor"]["address"] == "127.0.0.1"
    clock.advance(timedelta(minutes=1))
    await refused()
    second, _ = await entries(graphql, action="createProduct")
    assert second["changes"][0]["after"] == {"untoldBefore": 4}


async def test_the_use_of_a_key_that_has_ended_and_of_a_guessed_one_is_recorded(
    client: httpx2.AsyncClient,
    runtime: Runtime,
    tenant: NewTenant,
    tenant_id: TenantId,
    graphql: GraphQL,
) -> None:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="to be revoked",
            scopes=[Permission.CATALOG_READ],
            pepper=runtime.settings.key_pepper,
        )
    guessed = make_token(Environment.LIVE, public_id=key.row.public_id)
    await tried(client, runtime, str(guessed), status=401)
    await tried(client, runtime, key.token, status=200)
    await made(graphql, "revokeApiKey", apiKeyId=global_id("ApiKey", key.row.id))
    await tried(client, runtime, key.token, status=401)
    misused = await entries(graphql, action="authenticate")
    assert {entry["reason"] for entry in misused} == {"REVOKED", "WRONG_SECRET"}
    assert {entry["actor"]["label"] for entry in misused} == {key.row.public_id}
    of_key = await entries(graphql, objectId=global_id("ApiKey", key.row.id))
    assert "useApiKeyFirst" in {entry["action"] for entry in of_key}


async def tried(client: httpx2.AsyncClient, runtime: Runtime, token: str, *, status: int) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
    assert answer.status_code == status
    await runtime.background.settle()


async def test_a_bill_run_that_is_over_is_recorded_as_the_work_of_its_job(
    graphql: GraphQL, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    run_id = await made(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    await run_jobs()
    (entry,) = await entries(graphql, action="billRunFinished")
    assert (entry["actor"]["kind"], entry["actor"]["label"]) == ("JOB", "bill")
    (only,) = entry["changes"]
    assert (only["id"], only["after"]["state"], only["after"]["invoices"]) == (run_id, "DONE", 0)


# Every mutation of the schema.

OF_OWNERS = {"setIdentityProvider", "removeIdentityProvider", "createPasswordReset"}
"""No key may carry them out: test_people_in_the_log.py has owners who do."""
OF_NOTHING = {"sendTestNotification"}
"""They keep nothing: a message that tells of nothing is sent, and forgotten."""
OF_EVENTS = {"ingestEvents"}
"""They change nothing that a person set: events have a log of their own."""
MUTATIONS = [
    name
    for operation, name, _ in root_fields()
    if operation == "mutation" and name not in OF_OWNERS | OF_NOTHING | OF_EVENTS
]


@pytest.fixture(scope="module")
async def world(shared_runtime: Runtime) -> Any:
    clock = MovableClock(NOW)
    runtime = dataclasses.replace(shared_runtime, clock=clock)
    made_world = await make_world(runtime, "zzaudited")
    tenant_id = TenantId(made_world.tenant.tenant.tenant_id)
    async with await people.member(runtime, tenant_id, "owner@zzaudited.test") as owner:
        yield made_world, runtime, owner, clock
    await made_world.client.aclose()


@pytest.mark.parametrize("name", MUTATIONS)
async def test_every_mutation_that_changes_something_says_what(
    world: tuple[World, Runtime, people.Browser, MovableClock], name: str
) -> None:
    """The tables themselves are compared before and after: whatever differs has to be told."""
    ours, runtime, owner, clock = world
    clock.advance(timedelta(seconds=1))
    if name in FIRST:
        await ask_for(owner, FIRST[name], ours.ids_for(name))
    tenant_id = TenantId(ours.tenant.tenant.tenant_id)
    before = await tables(runtime, tenant_id)
    seen = {entry["id"] for entry in await entries(ours.graphql, first=100)}
    await ask_for(owner, name, ours.ids_for(name))
    new = [each for each in await entries(ours.graphql, first=100) if each["id"] not in seen]
    assert {entry["actor"]["kind"] for entry in new} == {"MEMBER"}
    assert {entry["actor"]["label"] for entry in new} == {"owner@zzaudited.test"}
    told = {
        each["type"]: each for entry in new if entry["action"] == name for each in entry["changes"]
    }
    after = await tables(runtime, tenant_id)
    for kind, rows in after.items():
        if rows != before[kind]:
            assert kind in told or GRAPHQL.get(kind) in told, f"{name} changed {kind} untold"
    for each in told.values():
        assert each["id"] is not None
        assert each["before"] or each["after"]
    assert told, f"{name} was carried out and changed nothing; the walk needs better samples"


async def ask_for(owner: people.Browser, name: str, ids: dict[str, str]) -> None:
    body = ask("mutation", name, ids).body
    body["variables"]["input"] |= BETTER.get(name, {})
    answer = (await owner.post("/graphql", **body)).json()
    assert "errors" not in answer, answer
    typename = answer["data"][name]["__typename"]
    assert not typename.endswith("Problem"), f"{answer}; the walk needs better samples"


FIRST = {
    "enableWebhookEndpoint": "disableWebhookEndpoint",
    "removeIdentityProvider": "setIdentityProvider",
    "removePersistedDocuments": "uploadPersistedDocuments",
}
"""What another mutation has to do before, so that there is something to change."""

BETTER: dict[str, dict[str, Any]] = {
    "amendEvent": {"supersedes": "zzaudited-2026-10-15", "event": event("zzaudited", "2026-10-14")},
    "voidEvents": {"idempotencyKeys": ["zzaudited-2026-11-15"]},
    "changeMemberRole": {"role": "ANALYST"},
    "createCustomer": {"email": "walk@acme.test", "country": "DE"},
    "setIdentityProvider": {"issuer": "https://id.acme.test", "defaultRole": "ANALYST"},
    "removeIdentityProvider": {"issuer": "https://id.acme.test"},
    "replayWebhookEvents": {
        "period": {"start": "2026-11-20T00:00:00Z", "end": "2026-11-20T12:00:01Z"}
    },
    "uploadPersistedDocuments": {"documents": [{"documentId": "walk", "text": "{ __typename }"}]},
    "removePersistedDocuments": {"documentIds": ["walk"]},
    "createDiscount": {"kind": "PERCENTAGE", "amount": None, "currency": None},
}
"""Members of inputs for which the walk makes up what is refused."""

GRAPHQL = {"Subscription": "CustomerSubscription"}


async def tables(runtime: Runtime, tenant_id: TenantId) -> dict[str, set[str]]:
    """Every row of every audited table of the tenant, as text."""
    found = {}
    async with runtime.scope(tenant_id) as scope:
        for kind in audited():
            rows = await scope.db.execute(
                sa.text(f'SELECT t::text FROM "{kind.__tablename__}" AS t')
            )
            found[kind.__name__] = {row[0] for row in rows}
    return found


def audited() -> list[type[TenantRow]]:
    kinds = [mapper.class_ for mapper in SQLModel._sa_registry.mappers]  # type: ignore[attr-defined]
    return [kind for kind in kinds if is_audited(kind)]


def test_no_column_that_holds_a_secret_is_shown() -> None:
    suspicious = ("hash", "secret", "token", "password", "totp", "recovery", "sealed", "wrapped")
    shown = [
        f"{kind.__name__}.{column.name}"
        for kind in audited()
        for column in kind.__table__.c  # type: ignore[attr-defined]
        if not column.info.get("secret")
        and (
            isinstance(column.type, sa.LargeBinary)
            or any(word in column.name for word in suspicious)
        )
    ]
    assert sorted(shown) == NO_SECRETS


NO_SECRETS = ["QuarantinedEvent.key_hash"]
"""Columns that look like one; each is shown on purpose."""
