"""Portal tokens: what a customer's users may ask for, and that it is their customer's alone."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from aforo import worker
from aforo.api.app import create_app
from aforo.api.parts.live import Followed
from aforo.api.parts.portal import FOUND_BY_ID, PORTAL
from aforo.metering import rollups
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.live_log import START, Missed
from aforo.storage.scope import Runtime
from tests.api.forms import http, no_such
from tests.api.server import serving, socket_to
from tests.api.walk import Slot, ask, kind_of, root_fields, slots
from tests.api.world import World, event, let_in, make_sibling, make_world
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

MINE, SIBLING = "zzmine", "zzsibling"


@dataclasses.dataclass(frozen=True)
class House:
    """A tenant with two customers, and a client with a portal token of the first."""

    runtime: Runtime
    world: World
    sibling: dict[str, str]
    token: str
    client: httpx2.AsyncClient


@pytest.fixture(scope="module")
async def house(shared_runtime: Runtime) -> AsyncIterator[House]:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    world = await make_world(runtime, MINE)
    sibling = await make_sibling(runtime, world, SIBLING)
    token = await let_in(world, world.ids["Customer"])
    client = http(runtime, world.tenant)
    client.headers["authorization"] = f"Bearer {token}"
    yield House(runtime, world, sibling, token, client)
    await client.aclose()
    await world.client.aclose()


async def answer(client: httpx2.AsyncClient, body: dict[str, Any]) -> tuple[int, bytes]:
    response = await client.post("/graphql", json=body)
    return response.status_code, response.content


# What may be asked for.


@pytest.mark.parametrize(
    ("operation", "name"), [(operation, name) for operation, name, _ in root_fields()]
)
async def test_a_portal_token_gets_in_exactly_where_the_declaration_says(
    house: House, operation: str, name: str
) -> None:
    asked = ask(operation, name, house.world.ids)
    query = asked.query[: asked.query.index("{", asked.query.index(f"{{ {name}") + 2)]
    body = {"query": f"{query} {{ __typename }} }}", "variables": asked.variables}
    response = await house.client.post("/graphql", json=body)
    root = operation.capitalize()
    is_open = name in PORTAL.get(root, ())
    assert (response.status_code != 403) == is_open, response.text
    if not is_open:
        [error] = response.json()["errors"]
        assert error["message"] == f"`{name}` is not to be had with a portal token"


def test_no_mutation_is_open_to_portals() -> None:
    assert "Mutation" not in PORTAL


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("{ invoices { edges { node { cogs } } } }", "invoices.edges.node.cogs"),
        ("{ invoices { edges { node { billRun { id } } } } }", "invoices.edges.node.billRun"),
        ("{ events { edges { node { cost } } } }", "events.edges.node.cost"),
        ("{ portalCustomer { segment } }", "portalCustomer.segment"),
        ('{ node(id: "x") { ... on Signal { id } } }', "node.id"),
        ("{ ...A } fragment A on Query { mine: tenant { createdAt } }", "mine.createdAt"),
    ],
)
async def test_costs_and_the_tenants_own_affairs_are_closed(
    house: House, query: str, path: str
) -> None:
    response = await house.client.post("/graphql", json={"query": query})
    assert response.status_code == 403
    [error] = response.json()["errors"]
    assert error["message"] == f"`{path}` is not to be had with a portal token"


async def test_node_finds_what_is_a_customers_own_and_says_of_no_other_whether_it_is_there(
    house: House,
) -> None:
    query = "query($id: ID!) { node(id: $id) { __typename id } }"
    for kind, id_ in house.world.ids.items():
        bodies = [
            {"query": query, "variables": {"id": each}}
            for each in (id_, house.sibling.get(kind, no_such(kind)), no_such(kind))
        ]
        mine, siblings, nobodys = [await answer(house.client, body) for body in bodies]
        assert siblings == nobodys, kind
        if kind in FOUND_BY_ID:
            assert b'"errors"' not in mine[1], kind
            assert id_.encode() in mine[1], kind
        else:
            assert mine == nobodys, kind
            assert b"FORBIDDEN" in mine[1], kind


async def test_events_are_not_taken_from_a_portal(house: House) -> None:
    response = await house.client.post("/v1/events", json=[])
    assert response.status_code == 403
    assert "portal token" in response.json()["error"]["message"]


# What is seen.

SEEN = """
{
  portalCustomer {
    id
    teams(first: 5) { edges { node { name agents(first: 5) { edges { node { name } } } } } }
    keys(first: 5) { edges { node { name agent { name } } } }
    subscriptions(first: 5) { edges { node { id offering { name } discounts { name } } } }
    quotas { used limit entitlement { name meter { unit } } }
    wallets { balance grants(first: 5) { edges { node { reference } } } }
  }
  subscriptions(first: 5) { edges { node { id } } }
  invoices(first: 5) { edges { node {
    id total lines { name sourceEvents(first: 5) { edges { node { idempotencyKey } } } }
    taxes { name }
  } } }
  events(first: 5) { edges { node { idempotencyKey customer { id } } } }
}
"""


async def test_a_customers_users_see_all_of_their_own_and_nothing_of_a_siblings(
    house: House,
) -> None:
    status, text = await answer(house.client, {"query": SEEN})
    assert status == 200
    assert b'"errors"' not in text, text
    data = (await house.client.post("/graphql", json={"query": SEEN})).json()["data"]
    ids = house.world.ids
    mine = data["portalCustomer"]
    assert mine["id"] == ids["Customer"]
    assert [edge["node"]["name"] for edge in mine["teams"]["edges"]] == [MINE]
    assert mine["teams"]["edges"][0]["node"]["agents"]["edges"][0]["node"]["name"] == MINE
    assert mine["keys"]["edges"][0]["node"] == {"name": MINE, "agent": {"name": MINE}}
    [subscription] = [edge["node"] for edge in mine["subscriptions"]["edges"]]
    assert subscription["offering"]["name"] == subscription["discounts"][0]["name"] == MINE
    assert mine["quotas"][0]["used"] == "100"
    assert mine["wallets"][0]["balance"] == "1"
    assert [edge["node"]["id"] for edge in data["subscriptions"]["edges"]] == [
        ids["CustomerSubscription"]
    ]
    assert [edge["node"]["id"] for edge in data["invoices"]["edges"]] == [ids["Invoice"]]
    keys = [edge["node"]["idempotencyKey"] for edge in data["events"]["edges"]]
    assert keys == [f"{MINE}-2026-11-15", f"{MINE}-2026-10-15"]
    lines = data["invoices"]["edges"][0]["node"]["lines"]
    behind = lines[0]["sourceEvents"]["edges"]
    assert [edge["node"]["idempotencyKey"] for edge in behind] == [f"{MINE}-2026-10-15"]
    for leak in (SIBLING, *house.sibling.values()):
        assert leak.encode() not in text


async def test_totals_count_a_customers_own_alone(house: House) -> None:
    lists = ("subscriptions", "invoices")
    query = "{ " + " ".join(f"{name} {{ totalCount }}" for name in lists) + " }"
    everyones = await house.world.graphql(query)
    mine = (await house.client.post("/graphql", json={"query": query})).json()["data"]
    for name in lists:
        assert mine[name]["totalCount"] == 1
        assert everyones[name]["totalCount"] > 1


OPEN_SLOTS = [
    slot
    for slot in slots()
    if slot.operation == "query" and slot.field in PORTAL["Query"] and slot.path != ("meterId",)
]
"""A meter is no customer's: whose usage of it is shown is another test's."""


@pytest.mark.parametrize("slot", OPEN_SLOTS, ids=str)
async def test_a_siblings_ids_are_answered_as_ids_that_nobody_has(house: House, slot: Slot) -> None:
    asked = ask(slot.operation, slot.field, house.world.ids)
    query = asked.query[: asked.query.index("{", asked.query.index(f"{{ {slot.field}") + 2)]
    [*_, name] = [step for step in slot.path if isinstance(step, str)]
    kind = kind_of(name)
    body = "{ ... on Node { id } }" if slot.field in {"node", "nodes"} else "{ __typename }"
    asked = dataclasses.replace(asked, query=f"{query} {body} }}")
    siblings = await answer(house.client, asked.with_id(slot, house.sibling[kind]))
    nobodys = await answer(house.client, asked.with_id(slot, no_such(kind)))
    assert siblings == nobodys


async def test_usage_is_the_customers_own_whatever_is_asked_for(house: House) -> None:
    query = """
      query($code: String!, $where: UsageFilterInput) {
        usage(meterCode: $code, where: $where,
              period: {start: "2026-10-01T00:00:00Z", end: "2026-12-01T00:00:00Z"}) {
          total { quantity }
          points(bucket: MONTH) { quantity }
          groups(by: {by: CUSTOMER}) { count groups { quantity } }
        }
      }
    """

    async def asked(code: str, customer: str | None) -> list[str]:
        where = None if customer is None else {"customerIds": [customer]}
        response = await house.client.post(
            "/graphql", json={"query": query, "variables": {"code": code, "where": where}}
        )
        usage = response.json()["data"]["usage"]
        points = [point["quantity"] for point in usage["points"]]
        assert Decimal(usage["total"]["quantity"]) == sum(map(Decimal, points))
        assert usage["groups"]["count"] == len(usage["groups"]["groups"]) == bool(points)
        return points

    assert await asked(MINE, None) == ["100", "100"]
    assert await asked(MINE, house.world.ids["Customer"]) == ["100", "100"]
    assert await asked(SIBLING, None) == []
    assert await asked(SIBLING, house.sibling["Customer"]) == []
    async with house.runtime.scope(TenantId(house.world.tenant.tenant.tenant_id)) as scope:
        assert await rollups.roll_up(scope, span_events=1)
    assert await asked(MINE, None) == ["100", "100"]
    assert await asked(SIBLING, house.sibling["Customer"]) == []


async def test_the_live_events_of_a_portal_are_its_customers_own(house: House) -> None:
    app = create_app(house.runtime)
    tenant_id = TenantId(house.world.tenant.tenant.tenant_id)
    await worker.drain(house.runtime, tenant_id)
    async with serving(app) as port, socket_to(port, token=house.token) as socket:
        await socket.initialise()
        await socket.subscribe("subscription { events { idempotencyKey } }")
        for number in range(100):
            for mark in (SIBLING, MINE):
                sent = event(mark, "2026-11-19", idempotencyKey=f"{mark} live {number}")
                await house.world.client.post("/v1/events", json=[sent])
                await worker.drain(house.runtime, tenant_id)
            try:
                async with asyncio.timeout(0.3):
                    message = await socket.receive()
                    break
            except TimeoutError:
                continue
        assert message["payload"]["data"]["events"]["idempotencyKey"].startswith(MINE)


def test_how_much_of_a_stream_was_missed_is_not_told_to_a_portal() -> None:
    """The count is of the tenant's messages, of which most are other customers'."""
    missed = Missed(count=7, after=START, before=None)
    for counts, told in ((True, 7), (False, None)):
        followed = Followed("events", SimpleNamespace(missed=missed, seen=START), counts=counts)  # type: ignore[arg-type]
        assert followed.extensions["missed"]["count"] == told
