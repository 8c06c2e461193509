"""graphql-transport-ws with real frames against a real server."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed

from aforo.api.app import create_app
from aforo.api.protocol import documents, operations, streams, websocket
from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_api_key, revoke_api_key
from aforo.tenants.models import Environment
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import Caller, CallerKind
from tests.api import small
from tests.api.server import Socket, serving, socket_to

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def port(shared_runtime: Runtime) -> AsyncIterator[int]:
    """A server with the small schema."""
    async with serving(create_app(shared_runtime, schema=small.schema)) as opened:
        yield opened


@pytest.fixture
async def socket(port: int, tenant: NewTenant) -> AsyncIterator[Socket]:
    """An initialised socket."""
    async with socket_to(port) as opened:
        yield await opened.initialise({"Authorization": f"Bearer {tenant.key.token}"})


async def test_a_subscription_gives_its_results_and_completes(socket: Socket) -> None:
    assert socket.connection.subprotocol == "graphql-transport-ws"
    await socket.subscribe("subscription($to: Int!) { count(to: $to) }", to=3)
    for number in range(3):
        assert await socket.receive() == {
            "type": "next",
            "id": "1",
            "payload": {"data": {"count": number}},
        }
    assert await socket.receive() == {"type": "complete", "id": "1"}


async def test_queries_and_mutations_run_over_a_socket_too(socket: Socket) -> None:
    for query, data in (
        ("{ hello }", {"hello": "hello you"}),
        ("mutation { change }", {"change": "changed"}),
    ):
        await socket.subscribe(query)
        assert (await socket.receive())["payload"]["data"] == data
        assert (await socket.receive())["type"] == "complete"


async def test_an_id_is_free_again_once_its_operation_has_ended(socket: Socket) -> None:
    for _ in range(3):
        await socket.subscribe("{ hello }")
        assert (await socket.receive())["type"] == "next"
        assert (await socket.receive())["type"] == "complete"


async def test_operations_run_side_by_side(socket: Socket) -> None:
    await socket.subscribe("subscription { forever }", id_="slow")
    assert (await socket.receive())["id"] == "slow"
    await socket.subscribe("{ hello }", id_="quick")
    assert (await socket.receive())["id"] == "quick"
    assert await socket.receive() == {"type": "complete", "id": "quick"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { count }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription($to: Int!) { count(to: $to) }", "BAD_USER_INPUT"),
        ("query A { hello } query B { hello }", "OPERATION_NAME_NEEDED"),
        ("{ " + "hello " * 501 + "}", "LIMIT_EXCEEDED"),
        ("", "BAD_REQUEST"),
    ],
)
async def test_a_bad_document_is_an_error_and_the_socket_goes_on(
    socket: Socket, query: str, code: str
) -> None:
    await socket.subscribe(query)
    error = await socket.receive()
    assert (error["type"], error["id"]) == ("error", "1")
    assert error["payload"][0]["extensions"]["code"] == code
    await socket.subscribe("{ hello }")
    assert (await socket.receive())["type"] == "next"


async def test_a_stream_that_breaks_is_masked(socket: Socket) -> None:
    await socket.subscribe("subscription { breaks }")
    assert (await socket.receive())["payload"] == {"data": {"breaks": 1}}
    broken = await socket.receive()
    assert broken["payload"]["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert small.SECRET not in str(broken)
    assert (await socket.receive())["type"] == "complete"


async def test_a_bug_before_execution_is_masked_and_the_socket_goes_on(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError(small.SECRET)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "_chosen", broken)
        await socket.subscribe("{ hello }")
        failed = await socket.receive()
    assert failed["type"] == "error"
    assert failed["payload"][0]["extensions"]["code"] == "INTERNAL"
    assert small.SECRET not in str(failed)
    await socket.subscribe("{ hello }")
    assert (await socket.receive())["type"] == "next"


async def test_complete_ends_a_subscription(socket: Socket) -> None:
    small.WATCH.closed.clear()
    await socket.subscribe("subscription { forever }")
    assert (await socket.receive())["type"] == "next"
    await socket.send({"type": "complete", "id": "1"})
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()
    await socket.subscribe("{ hello }")
    assert (await socket.receive())["payload"]["data"] == {"hello": "hello you"}


async def test_a_cancellation_that_was_lost_keeps_no_subscription(socket: Socket) -> None:
    small.WATCH.closed.clear()
    await socket.subscribe("subscription { stubborn }")
    assert (await socket.receive())["type"] == "next"
    await socket.send({"type": "complete", "id": "1"})
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()


async def test_a_cancellation_that_was_lost_keeps_no_socket(socket: Socket) -> None:
    await socket.subscribe("subscription { stubborn }")
    assert (await socket.receive())["type"] == "next"
    await socket.subscribe("subscription { stubborn }")  # Under an id that is in use.
    assert (await socket.closed())[0] == 4409


async def test_a_client_that_leaves_ends_its_subscriptions(port: int, tenant: NewTenant) -> None:
    small.WATCH.closed.clear()
    async with socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise()
        await socket.subscribe("subscription { forever }")
        assert (await socket.receive())["type"] == "next"
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()


async def test_a_pong_echoes_the_payload(socket: Socket) -> None:
    assert await socket.exchange({"type": "ping"}) == {"type": "pong"}
    payload = {"payload": {"n": "0.10", "deep": [1, {"x": None}]}}
    assert await socket.exchange({"type": "ping"} | payload) == {"type": "pong"} | payload
    await socket.send({"type": "pong"})
    assert await socket.exchange({"type": "ping"}) == {"type": "pong"}


async def test_a_ping_is_answered_before_the_key_is_known(port: int) -> None:
    async with socket_to(port) as socket:
        assert await socket.exchange({"type": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize("name", ["Authorization", "authorization", "apiKey"])
async def test_the_key_comes_in_the_payload(port: int, tenant: NewTenant, name: str) -> None:
    async with socket_to(port) as socket:
        await socket.initialise({name: tenant.key.token})


async def test_the_key_may_come_in_the_handshake(port: int, tenant: NewTenant) -> None:
    async with socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise({})


@pytest.mark.parametrize(
    "payload", [None, {}, {"Authorization": "Bearer nonsense"}, {"Authorization": 1}]
)
async def test_without_a_key_the_socket_is_closed(port: int, payload: object) -> None:
    async with socket_to(port) as socket:
        await socket.send({"type": "connection_init", "payload": payload})
        assert (await socket.closed())[0] == 4401


async def test_subscribing_before_initialising_is_unauthorized(port: int) -> None:
    async with socket_to(port) as socket:
        await socket.subscribe("{ hello }")
        assert (await socket.closed())[0] == 4401


async def test_initialising_twice_is_too_often(socket: Socket) -> None:
    await socket.send({"type": "connection_init"})
    assert (await socket.closed())[0] == 4429


async def test_one_id_for_two_running_operations_is_a_clash(socket: Socket) -> None:
    for _ in range(2):
        await socket.subscribe("subscription { forever }")
    assert (await socket.closed())[0] == 4409


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "null",
        "1",
        "[]",
        "{}",
        '{"type": 1}',
        '{"type": "start"}',
        '{"type": "connection_ack"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": "1"}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ hello }"}}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ hello }"}}',
        '{"type": "subscribe", "id": "1", "payload": "{ hello }"}',
        '{"type": "complete"}',
        "[" * 5_000,
        '{"type": "ping", "payload": ' + "9" * 5_000 + "}",
        b'{"type": "ping"}',
        b"\xff",
    ],
)
async def test_a_malformed_message_is_a_bad_request(socket: Socket, frame: str | bytes) -> None:
    await socket.connection.send(frame)
    code, reason = await socket.closed()
    assert code == 4400
    assert reason


async def test_a_message_has_128_kib_at_most(socket: Socket) -> None:
    frame = '{"type": "ping", "payload": {"x": "%s"}}'
    room = websocket.MESSAGE_BYTES_MAX - len(frame % "")
    await socket.connection.send(frame % ("x" * room))
    assert (await socket.receive())["type"] == "pong"
    await socket.connection.send(frame % ("x" * (room + 1)))
    assert (await socket.closed())[0] == 1009


async def test_who_says_nothing_is_sent_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert websocket.INIT_TIMEOUT_SECONDS == 10
    monkeypatch.setattr(websocket, "INIT_TIMEOUT_SECONDS", 0.2)
    async with socket_to(port) as socket:
        assert (await socket.closed())[0] == 4408


@pytest.mark.parametrize("protocols", [(), ("graphql-ws",), ("other", "graphql-ws")])
async def test_no_other_protocol_is_spoken(port: int, protocols: tuple[str, ...]) -> None:
    async with socket_to(port, protocols=protocols) as socket:
        assert (await socket.closed())[0] == 4406


async def test_a_socket_runs_so_many_operations_and_no_more(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "OPERATIONS_MAX", 2)
    for id_ in ("a", "b", "c"):
        await socket.subscribe("subscription { forever }", id_=id_)
    answers = {(answer["id"], answer["type"]) for answer in [await socket.receive() for _ in "abc"]}
    assert answers == {("a", "next"), ("b", "next"), ("c", "error")}


async def test_a_process_runs_so_many_subscriptions_and_no_more(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "STREAMS_MAX", 1)
    await socket.subscribe("subscription { forever }", id_="a")
    assert (await socket.receive())["payload"] == {"data": {"forever": "first"}}
    await socket.subscribe("subscription { forever }", id_="b")
    [error] = (await socket.receive())["payload"]["errors"]
    assert error["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
    assert (await socket.receive())["type"] == "complete"
    await socket.send({"type": "complete", "id": "a"})
    small.WATCH.closed.clear()
    await socket.subscribe("{ hello }", id_="c")
    assert (await socket.receive())["payload"]["data"] == {"hello": "hello you"}


async def test_a_key_without_the_permission_is_told_so_per_operation(
    port: int, runtime: Runtime, tenant: NewTenant
) -> None:
    async with runtime.scope(tenant.key.row.tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="reader",
            scopes=[Permission.CATALOG_READ],
            pepper=runtime.settings.key_pepper,
        )
    async with socket_to(port, token=key.token) as socket:
        await socket.initialise()
        await socket.subscribe("mutation { change }")
        error = await socket.receive()
        assert error["payload"][0]["extensions"]["code"] == "FORBIDDEN"
        await socket.subscribe("{ hello }")
        assert (await socket.receive())["type"] == "next"


async def test_a_revoked_key_loses_its_streams(
    port: int, runtime: Runtime, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert streams.RECHECK_SECONDS < 5
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.1)
    small.WATCH.closed.clear()
    async with socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise()
        await socket.subscribe("subscription { forever }")
        assert (await socket.receive())["type"] == "next"
        async with runtime.scope(tenant.key.row.tenant_id) as scope:
            await revoke_api_key(scope, api_key_id=tenant.key.row.id)
        code, reason = await socket.closed()
    assert (code, "revoked" in reason) == (4401, True)
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()


async def test_a_revoked_key_runs_nothing_more_on_a_socket_that_is_open(
    port: int, runtime: Runtime, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 600)
    async with socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise()
        async with runtime.scope(tenant.key.row.tenant_id) as scope:
            await revoke_api_key(scope, api_key_id=tenant.key.row.id)
        await socket.subscribe("{ hello }")
        [error] = (await socket.receive())["payload"]
    assert error["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_tenant_and_the_portals_of_a_customer_have_their_part_of_the_streams(
    port: int, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "STREAMS_OF_TENANT_MAX", 1)
    small.WATCH.closed.clear()
    async with socket_to(port, token=tenant.key.token) as socket:
        await socket.initialise()
        await socket.subscribe("subscription { forever }", id_="a")
        assert "data" in (await socket.receive())["payload"]
        await socket.subscribe("subscription { forever }", id_="b")
        [error] = (await socket.receive())["payload"]["errors"]
        assert error["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
        assert (await socket.receive())["type"] == "complete"
        await socket.send({"type": "complete", "id": "a"})
        async with asyncio.timeout(60):
            await small.WATCH.closed.wait()
        await socket.subscribe("subscription { count(to: 1) }", id_="c")
        assert (await socket.receive())["payload"]["data"] == {"count": 0}


def test_a_portal_counts_for_its_customer_its_tenant_and_everybody() -> None:
    tenant_id, customer_id = TenantId(uuid4()), CustomerId(uuid4())
    key = Caller(tenant_id, CallerKind.API_KEY, uuid4(), frozenset(), Environment.LIVE)
    portal = dataclasses.replace(key, kind=CallerKind.PORTAL, customer_id=customer_id)
    assert operations.rooms(key) == {"everybody": 2_000, tenant_id: 1_500}
    of_customer = {(tenant_id, customer_id): 100}
    assert operations.rooms(portal) == operations.rooms(key) | of_customer


async def test_a_reader_that_takes_nothing_costs_no_memory(socket: Socket) -> None:
    flood = small.Flood()
    await socket.subscribe("subscription { flood }")
    assert (await socket.receive())["type"] == "next"
    stood = await flood.until_it_stands()
    # What the two sockets and the server's own buffer hold, and not one message more.
    assert stood * small.FLOOD_BYTES < 20_000_000


async def test_a_reader_that_takes_nothing_is_cut_off_and_told_so_if_it_reads_again(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "SEND_TIMEOUT_SECONDS", 1)
    flood = small.Flood()
    await socket.subscribe("subscription { flood }")
    await flood.until_it_stands()
    async with asyncio.timeout(60):
        await flood.ended.wait()
        with suppress(ConnectionClosed):
            async for _ in socket.connection:
                pass
    code, reason = await socket.closed()
    assert (code, "too slow" in reason) == (4413, True)
