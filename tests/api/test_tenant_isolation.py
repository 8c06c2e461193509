"""The tenant walk: every field, argument and route, asked with another tenant's ids.

What belongs to somebody else is answered byte by byte as what does not exist. The walk follows the
schema itself, so a new field is walked as soon as it is there; where the walk cannot make up a
request that reaches the look-up, it fails and says what it needs.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from graphql import GraphQLObjectType, get_named_type
from starlette.routing import Route, WebSocketRoute

from aforo import worker
from aforo.api.app import create_app
from aforo.api.parts import relay
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.api.forms import no_such
from tests.api.server import serving, socket_to
from tests.api.walk import SCHEMA, Slot, ask, kind_of, root_fields, slots
from tests.api.world import CUSTOMER_KEY, World, event, make_world
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

OURS, THEIRS, NOBODYS = "zzours", "zztheirs", "zznobody"

OF_PEOPLE = {
    "/auth/csrf",
    "/auth/invitation",
    "/auth/oidc/{tenant}/callback",
    "/auth/oidc/{tenant}/start",
    "/auth/password",
    "/auth/password/reset",
    "/auth/session",
    "/auth/sessions",
    "/auth/sessions/end",
    "/auth/sign-in",
    "/auth/sign-out",
    "/auth/sign-out-everywhere",
    "/auth/tenant",
    "/auth/totp",
    "/auth/totp/confirm",
    "/auth/totp/enrol",
    "/auth/totp/remove",
}
"""What they may reach of other tenants is in test_people_and_tenants.py."""

ROUTES = OF_PEOPLE | {
    "/graphql",
    "/graphiql/{name}",
    "/healthz",
    "/readyz",
    "/schema.graphql",
    "/v1/entitlements/changes",
    "/v1/entitlements/check",
    "/v1/entitlements/consume",
    "/v1/entitlements/reserve",
    "/v1/entitlements/finalise",
    "/v1/entitlements/release",
    "/v1/events",
    "/v1/live/events",
    "/v1/persisted-documents",
}
"""Every route that there is. A new one goes here together with a test below, if it takes a name
or an id of anything."""

OF_OWNERS = {"createPasswordReset"}
"""No key may carry them out; what they say of others' ids is in test_password_resets.py."""
SLOTS = [
    slot for slot in slots() if slot.operation != "subscription" and slot.field not in OF_OWNERS
]
_CONTROLS: dict[str, bytes] = {}


@pytest.fixture(scope="module")
async def worlds(shared_runtime: Runtime) -> AsyncIterator[tuple[World, World]]:
    """Ours, and a stranger's: both with one of everything."""
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    ours, theirs = await make_world(runtime, OURS), await make_world(runtime, THEIRS)
    yield ours, theirs
    for world in (ours, theirs):
        await world.client.aclose()


async def _answer(client: httpx2.AsyncClient, body: dict[str, Any]) -> tuple[int, bytes, bytes]:
    """Status, headers and body; the request's own id apart, and how many there were before it."""
    response = await client.post("/graphql", json=body)
    headers = {
        name: value
        for name, value in response.headers.items()
        if name != "x-request-id" and "ratelimit" not in name
    }
    return response.status_code, repr(sorted(headers.items())).encode(), response.content


async def test_the_worlds_have_one_of_every_kind_that_node_can_find(
    worlds: tuple[World, World],
) -> None:
    kinds = {kind.__name__ for kind in relay.node_types()}
    for world in worlds:
        assert world.ids.keys() == kinds


async def test_the_owner_sees_each_of_the_things_that_the_walk_asks_for(
    worlds: tuple[World, World],
) -> None:
    for world in worlds:
        asked = {"query": "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"}
        ids = list(world.ids.values())
        response = await world.client.post("/graphql", json={**asked, "variables": {"ids": ids}})
        found = response.json()["data"]["nodes"]
        assert {node["__typename"]: node["id"] for node in found} == world.ids


NO_IDS = {"AgeOrder", "Int", "String", "Bucket", "UsageGroupingInput"}
"""Types of arguments in which no id can stand."""


def test_ids_are_arguments_of_root_fields_alone() -> None:
    """The walk does not look further down: a field there that takes an id would go unseen."""
    roots = {SCHEMA.query_type, SCHEMA.mutation_type, SCHEMA.subscription_type}
    for kind in SCHEMA.type_map.values():
        if kind.name.startswith("__") or kind in roots:
            continue
        if isinstance(kind, GraphQLObjectType):
            for name, field in kind.fields.items():
                taken = {get_named_type(argument.type).name for argument in field.args.values()}
                assert taken <= NO_IDS, f"{kind.name}.{name} takes {taken}"


@pytest.mark.parametrize("slot", SLOTS, ids=str)
async def test_what_is_theirs_is_answered_as_what_does_not_exist(
    worlds: tuple[World, World], slot: Slot
) -> None:
    ours, theirs = worlds
    asked = ask(slot.operation, slot.field, ours.ids_for(slot.field))
    for kind in ours.ids:
        missing = await _answer(ours.client, asked.with_id(slot, no_such(kind)))
        foreign = await _answer(ours.client, asked.with_id(slot, theirs.ids[kind]))
        assert foreign == missing, f"{slot} tells a foreign {kind} from none"
        assert THEIRS.encode() not in foreign[2]
        if kind == _kind(slot):
            assert foreign[2] != await _control(ours, slot), f"{slot} does not look its id up"


async def _control(ours: World, slot: Slot) -> bytes:
    """The answer where all ids are ours: it must work, else the walk proves nothing."""
    if slot.field not in _CONTROLS:
        asked = ask(slot.operation, slot.field, ours.ids_for(slot.field))
        response = await ours.client.post("/graphql", json=asked.body)
        answer = response.json()
        assert "errors" not in answer, f"{slot}: {answer}; the walk needs better samples"
        result = answer["data"][slot.field]
        typename = result.get("__typename", "") if isinstance(result, dict) else ""
        assert not typename.endswith("Problem"), f"{slot}: {result}; the walk needs better samples"
        assert result, f"{slot}: nothing of ours is found; the world needs more"
        _CONTROLS[slot.field] = response.content
    return _CONTROLS[slot.field]


def _kind(slot: Slot) -> str:
    [*_, name] = [step for step in slot.path if isinstance(step, str)]
    return kind_of(name)


@pytest.mark.parametrize(
    "name", [name for operation, name, _ in root_fields() if operation == "query"]
)
async def test_no_query_shows_anything_of_theirs(worlds: tuple[World, World], name: str) -> None:
    ours, theirs = worlds
    asked = ask("query", name, ours.ids)
    _, _, answer = await _answer(ours.client, asked.body)
    _, _, control = await _answer(theirs.client, ask("query", name, theirs.ids).body)
    assert b'"errors"' not in answer + control
    for leak in (THEIRS, theirs.tenant.key.row.public_id, *theirs.ids.values()):
        assert leak.encode() not in answer


@pytest.mark.parametrize(
    "name",
    [
        name
        for operation, name, field in root_fields()
        if "after" in field.args and operation == "query"
    ],
)
async def test_their_cursors_show_nothing_of_theirs(worlds: tuple[World, World], name: str) -> None:
    ours, theirs = worlds
    query = (
        f"query($after: String) {{ {name}(first: 1, after: $after) "
        "{ edges { node { ... on Node { id } } } pageInfo { endCursor } } }"
    )
    if name == "events":
        query = query.replace("... on Node { id }", "eventId idempotencyKey")
    page = (await theirs.graphql(query))[name]
    after = page["pageInfo"]["endCursor"]
    assert after, f"{name}: the world needs more"
    status, _, answer = await _answer(ours.client, {"query": query, "variables": {"after": after}})
    assert status == 200
    for leak in (THEIRS, *theirs.ids.values()):
        assert leak.encode() not in answer


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for operation, name, field in root_fields()
        for argument, definition in field.args.items()
        if operation == "query"
        and get_named_type(definition.type).name == "String"
        and argument not in {"after", "timeZone"}
    ],
)
async def test_their_names_are_answered_as_names_that_nobody_has(
    worlds: tuple[World, World], name: str, argument: str
) -> None:
    ours, _ = worlds
    query = f"query($name: String) {{ {name}({argument}: $name) {{ __typename }} }}"
    assert len(THEIRS) == len(NOBODYS)
    foreign, missing = [
        await _answer(ours.client, {"query": query, "variables": {"name": value}})
        for value in (THEIRS, NOBODYS)
    ]
    assert foreign == missing
    assert b'"errors"' not in foreign[2]


async def test_events_cannot_name_their_customers_keys_or_types(
    worlds: tuple[World, World],
) -> None:
    ours, _ = worlds

    async def answers(mark: str) -> bytes:
        events = [
            event(OURS, "2026-11-17", customer=mark),
            event(OURS, "2026-11-18", customer=None, apiKey=CUSTOMER_KEY % mark),
            event(OURS, "2026-11-19", apiKey=CUSTOMER_KEY % mark),
            event(OURS, "2026-11-20", type=mark),
        ]
        for number, one in enumerate(events):
            one["idempotencyKey"] = f"{number}-{mark}"
        response = await ours.client.post("/v1/events", json=events)
        assert response.json()["quarantined"] == 4
        return response.content.replace(mark.encode(), b"somebody")

    assert await answers(THEIRS) == await answers(NOBODYS)


async def test_their_idempotency_keys_are_free_for_us(worlds: tuple[World, World]) -> None:
    ours, _ = worlds
    reused = event(OURS, "2026-11-14", idempotencyKey=f"{THEIRS}-2026-10-15")
    response = await ours.client.post("/v1/events", json=[reused])
    assert response.json()["accepted"] == 1


async def test_there_is_no_route_that_the_walk_does_not_know(shared_runtime: Runtime) -> None:
    routes = create_app(shared_runtime).routes
    assert all(isinstance(route, Route | WebSocketRoute) for route in routes)
    assert {route.path for route in routes} == ROUTES  # type: ignore[attr-defined]


async def test_their_streams_are_silent_for_us(
    shared_runtime: Runtime, worlds: tuple[World, World]
) -> None:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    ours, theirs = worlds
    streams = {name for operation, name, _ in root_fields() if operation == "subscription"}
    named = {slot.path for slot in slots() if slot.operation == "subscription"}
    assert named == {("customerId",), ("productId",), ("signalId",)}
    for world in worlds:  # What the tests before this one have sent.
        await worker.drain(runtime, TenantId(world.tenant.tenant.tenant_id))
    fields = {
        "events": "idempotencyKey",
        "liveEvents": "events { idempotencyKey }",
        "signals": "id",
        "actions": "id",
        "invoices": "id",
        "kpis": "__typename",
    }
    assert streams == fields.keys(), "a new stream is listened to here"
    async with (
        serving(create_app(runtime)) as port,
        socket_to(port, token=ours.tenant.key.token) as socket,
    ):
        await socket.initialise()
        for name in streams:
            await socket.subscribe(f"subscription {{ {name} {{ {fields[name]} }} }}", id_=name)
        for slot in (slot for slot in slots() if slot.operation == "subscription"):
            [argument] = slot.path
            await socket.subscribe(
                f"subscription($id: ID) {{ {slot.field}({argument}: $id) "
                f"{{ {fields[slot.field]} }} }}",
                id_=f"{slot} of theirs",
                id=theirs.ids[_kind(slot)],
            )
        seen: list[dict[str, Any]] = []
        for number in range(100):
            for world in (theirs, ours):
                key = f"{world.mark} live {number}"
                sent = event(world.mark, "2026-11-19", idempotencyKey=key)
                await world.client.post("/v1/events", json=[sent])
                await worker.drain(runtime, TenantId(world.tenant.tenant.tenant_id))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    while not any(message["id"] == "events" for message in seen):
                        seen.append(await socket.receive())
            if any(message["id"] == "events" for message in seen):
                break
    # Theirs came first, and more than once; what we see is ours, on our own streams.
    assert seen[-1]["payload"]["data"]["events"]["idempotencyKey"].startswith(OURS)
    assert {message["id"] for message in seen} <= streams
    assert not any(id_ in str(seen) for id_ in theirs.ids.values())


async def test_nothing_of_theirs_was_changed_by_the_walk(worlds: tuple[World, World]) -> None:
    ours, theirs = worlds
    asked = ask("query", "customer", theirs.ids)
    answer = (await theirs.client.post("/graphql", json=asked.body)).text
    assert OURS not in answer
    assert "walk-" not in answer
    keys = await theirs.graphql("{ apiKeys { edges { node { name revokedAt } } } }")
    assert [edge["node"]["revokedAt"] for edge in keys["apiKeys"]["edges"]] == [None, None]
    subscriptions = await theirs.graphql("{ subscriptions { edges { node { endsAt } } } }")
    assert [edge["node"]["endsAt"] for edge in subscriptions["subscriptions"]["edges"]] == [None]
    assert ours.ids.keys() == theirs.ids.keys()
