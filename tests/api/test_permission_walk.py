"""The permission walk: every field of every root, asked by a key of every role.

A request is let in exactly where the role has what the published schema says is needed, be the ids
in it ours or another tenant's, and what is refused has written nothing. The walk follows the
schema, so a new field is walked as soon as it is there.
"""

import dataclasses
import re
from collections.abc import AsyncIterator

import httpx2
import pytest
import sqlalchemy as sa
from graphql import FieldNode, GraphQLField, TypeInfo, TypeInfoVisitor, Visitor, parse, visit
from graphql import get_named_type as named
from sqlmodel import SQLModel

from aforo.api.parts.permissions import READ
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_api_key
from aforo.tenants.permissions import Permission, Role, permissions_of, read_in
from tests.api.forms import http
from tests.api.walk import SCHEMA, ask, root_fields
from tests.api.world import World, make_world
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

FIELDS = [(operation, name) for operation, name, _ in root_fields()]
ONE_DOMAIN = [frozenset({permission}) for permission in Permission]


@dataclasses.dataclass(frozen=True)
class Walkers:
    """Two tenants with one of everything, and keys of ours for each role and each permission."""

    runtime: Runtime
    ours: World
    theirs: World
    clients: dict[frozenset[Permission], httpx2.AsyncClient]


@pytest.fixture(scope="module")
async def walkers(shared_runtime: Runtime) -> AsyncIterator[Walkers]:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    ours, theirs = await make_world(runtime, "walkours"), await make_world(runtime, "walktheirs")
    clients = {}
    for permissions in {*map(permissions_of, Role), *ONE_DOMAIN}:
        async with runtime.scope(TenantId(ours.tenant.tenant.tenant_id)) as scope:
            key = await create_api_key(
                scope, name="walker", scopes=permissions, pepper=runtime.settings.key_pepper
            )
        clients[permissions] = http(runtime, dataclasses.replace(ours.tenant, key=key))
    yield Walkers(runtime, ours, theirs, clients)
    for client in (ours.client, theirs.client, *clients.values()):
        await client.aclose()


def said(field: GraphQLField) -> set[Permission]:
    """What the published description of a field says that it needs."""
    return {Permission[name] for name in re.findall(r"Needs `(\w+)`", field.description or "")}


def needed(document: str) -> set[Permission]:
    """What a document needs by the words of the schema: found in another way than the server's."""
    found: set[Permission] = set()
    own_domain: set[Permission | None] = set()
    info = TypeInfo(SCHEMA)

    class Collect(Visitor):
        def enter_field(self, _node: FieldNode, *_place: object) -> None:
            field, parent = info.get_field_def(), info.get_parent_type()
            assert field
            assert parent
            found.update(said(field))
            if parent is SCHEMA.mutation_type:
                own_domain.update(map(read_in, said(field)))
            for kind in (named(field.type).name, parent.name):
                item = re.sub("(Connection|Edge)$", "", kind)
                found.update({READ[item]} if item in READ else ())

    visit(parse(document), TypeInfoVisitor(info, Collect()))
    return found - own_domain


@pytest.mark.parametrize(("operation", "name"), FIELDS, ids=lambda each: each)
async def test_a_role_gets_in_exactly_where_it_has_what_the_schema_says(
    walkers: Walkers, operation: str, name: str
) -> None:
    for world in (walkers.ours, walkers.theirs):
        asked = ask(operation, name, world.ids_for(name))
        needs = needed(asked.query)
        for permissions, client in walkers.clients.items():
            if world is walkers.theirs and permissions in ONE_DOMAIN:
                continue
            response = await client.post("/graphql", json=asked.body)
            refused = response.status_code == 403
            assert refused == (not needs <= permissions), (needs, permissions, response.text)
            if refused:
                [error] = response.json()["errors"]
                assert error["extensions"] == {"code": "FORBIDDEN"}
                assert all(each.name in error["message"] for each in needs - permissions)


async def test_what_is_refused_has_written_nothing(walkers: Walkers) -> None:
    before = await everything(walkers)
    refused = 0
    for operation, name in FIELDS:
        if operation != "mutation":
            continue
        asked = ask(operation, name, walkers.ours.ids_for(name))
        for permissions, client in walkers.clients.items():
            if not needed(asked.query) <= permissions:
                response = await client.post("/graphql", json=asked.body)
                assert response.status_code == 403
                refused += 1
    assert refused > 100
    assert await everything(walkers) == before


async def everything(walkers: Walkers) -> dict[str, str]:
    """A digest of every row that the tenant has, by table; what tells of the refusals apart."""
    no_tenants = {"account", "sign_in_count", "topic_place"}
    told = {"audit_entry", "audit_object", "api_key"}  # The last use of a key, too.
    tables = sorted(set(SQLModel.metadata.tables) - no_tenants - told)
    async with walkers.runtime.scope(TenantId(walkers.ours.tenant.tenant.tenant_id)) as scope:
        return {
            table: await scope.db.scalar(
                sa.text(f"SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM \"{table}\" r")
            )
            for table in tables
        }


async def test_node_asks_for_the_permission_of_what_it_is_to_find(walkers: Walkers) -> None:
    query = "query($id: ID!) { node(id: $id) { __typename id } }"
    for world in (walkers.ours, walkers.theirs):
        for kind, id_ in world.ids.items():
            body = {"query": query, "variables": {"id": id_}}
            for permissions, client in walkers.clients.items():
                answer = (await client.post("/graphql", json=body)).json()
                forbidden = kind in READ and READ[kind] not in permissions
                assert ("errors" in answer) == forbidden, (kind, permissions, answer)
                found = answer["data"]["node"]
                if world is walkers.theirs or forbidden:
                    assert found is None
                else:
                    assert found == {"__typename": kind, "id": id_}


async def test_events_are_taken_from_who_has_ingest_alone(walkers: Walkers) -> None:
    for permissions, client in walkers.clients.items():
        response = await client.post("/v1/events", json=[])
        assert response.status_code == (202 if Permission.INGEST in permissions else 403)


def test_every_permission_to_change_is_needed_by_a_mutation() -> None:
    mutations = [field for operation, _, field in root_fields() if operation == "mutation"]
    written = {permission for field in mutations for permission in said(field)}
    # Who sends events reads nothing by it but what became of them.
    assert {permission for permission in written if read_in(permission) is None} == {
        Permission.INGEST
    }
