"""Live streams through the API: filtered, resumed, told what they missed, and ended in order."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.api.auth import callers
from aforo.api.parts import relay
from aforo.api.parts.cursors import cursor_at
from aforo.api.protocol import streams
from aforo.sdk.ids import TenantId
from aforo.storage import live_log
from aforo.storage.scope import Runtime
from aforo.tenants import queries
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, change
from tests.api.listening import Frame, listening, wait_for
from tests.api.server import Socket, socket_to

pytestmark = pytest.mark.anyio

EVENTS = "subscription($after: String) { events(after: $after) { idempotencyKey } }"
ALL = "subscription { events { idempotencyKey } }"


@pytest.fixture
async def socket(live_port: int, tenant: NewTenant) -> AsyncIterator[Socket]:
    async with socket_to(live_port, token=tenant.key.token) as opened:
        yield await opened.initialise()


def announce_events(runtime: Runtime, tenant_id: TenantId) -> Callable[..., Awaitable[None]]:
    """Announce events as the sealer does, without any."""

    async def announce(*numbers: int, text: str = "") -> None:
        live = runtime.live.of(tenant_id)
        for number in numbers:
            live.announce("events", event(number, text=text))
        await live.flush()

    return announce


def event(number: int, *, text: str = "") -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "segmentId": 1,
        "idempotencyKey": str(number),
        "type": "llm.request" if number % 2 else "llm.answer",
        "customerId": f"00000000-0000-0000-0000-{number % 3:012}",
        "occurredAt": "2026-11-20T12:00:00+00:00",
        "receivedAt": "2026-11-20T12:00:00+00:00",
        "properties": json.dumps({"text": text}),
        "cost": None,
        "costCurrency": None,
    }


def number_of(body: Frame) -> int:
    return int(body["data"]["events"]["idempotencyKey"])


async def test_a_stream_goes_on_where_its_reader_left_it(
    runtime: Runtime, tenant_id: TenantId, listener: httpx2.AsyncClient, socket: Socket
) -> None:
    announce = announce_events(runtime, tenant_id)
    async with listening(listener, EVENTS) as reader:
        await reader.opened()
        beginning = reader.cursor
        await announce(1, 2)
        first = await reader.next()
        assert number_of(first) == 1
        assert first["extensions"] == {"cursor": reader.cursor}
        left = reader.cursor
    await announce(3)
    async with listening(listener, EVENTS, after=left) as reader:
        assert [number_of(await reader.next()) for _ in range(2)] == [2, 3]
    # What a browser sends on its own when it reconnects is newer than what it asked at first.
    async with listening(listener, EVENTS, after=beginning, last=left) as reader:
        assert number_of(await reader.next()) == 2
    async with listening(listener, EVENTS, after=beginning) as reader:
        assert [number_of(await reader.next()) for _ in range(3)] == [1, 2, 3]
        await announce(4)
        assert number_of(await reader.next()) == 4
    await socket.subscribe(EVENTS, after=left)
    messages = [await socket.receive() for _ in range(3)]
    assert [number_of(message["payload"]) for message in messages] == [2, 3, 4]
    assert all(message["payload"]["extensions"]["cursor"] for message in messages)


async def test_a_reader_for_whom_nothing_was_does_not_begin_anew(
    runtime: Runtime,
    tenant_id: TenantId,
    listener: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aforo.api.protocol.sse.HEARTBEAT_SECONDS", 0.1)
    announce = announce_events(runtime, tenant_id)
    nothing = 'subscription { events(type: "nothing") { idempotencyKey } }'
    async with listening(listener, nothing) as reader:
        beginning = (await reader.opened()).cursor
        await announce(1)
        while reader.cursor == beginning:
            assert "data" not in await reader.frame()
        after = reader.cursor
    await announce(2)
    async with listening(listener, ALL, last=after) as reader:
        assert number_of(await reader.next()) == 2


async def test_events_are_filtered_by_customer_and_type(
    runtime: Runtime, tenant_id: TenantId, listener: httpx2.AsyncClient
) -> None:
    query = """subscription($customerId: ID, $type: String) {
        events(customerId: $customerId, type: $type) { idempotencyKey } }"""
    customer = relay.global_id("Customer", event(1)["customerId"])
    async with (
        listening(listener, query, customerId=customer) as of_customer,
        listening(listener, query, type="llm.answer") as of_type,
        listening(listener, query, customerId=customer, type="llm.answer") as of_both,
    ):
        readers = (of_customer, of_type, of_both)
        for reader in readers:
            await reader.opened()
        await announce_events(runtime, tenant_id)(*range(10))
        wanted = ([1, 4, 7], [0, 2, 4, 6, 8], [4])
        for reader, numbers in zip(readers, wanted, strict=True):
            assert [number_of(await reader.next()) for _ in numbers] == numbers


async def test_who_comes_back_too_late_is_told_how_much_is_gone(
    runtime: Runtime,
    tenant_id: TenantId,
    listener: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_log, "LOG_MESSAGES_MAX", 5)
    announce = announce_events(runtime, tenant_id)
    async with listening(listener, EVENTS) as reader:
        left = (await reader.opened()).cursor
    await announce(*range(20))
    async with listening(listener, EVENTS, after=left) as reader:
        first = await reader.next()
        assert number_of(first) == 15
        missed = {"count": 15, "after": left, "before": reader.cursor}
        assert first["extensions"] == {"cursor": reader.cursor, "missed": missed}
        rest = [await reader.next() for _ in range(4)]
        assert [number_of(body) for body in rest] == [16, 17, 18, 19]
        assert all("missed" not in body["extensions"] for body in rest)


@pytest.mark.parametrize("cursor", ["x", "", "c2lnbmFscyAx", cursor_at("signals", 1, 2, 3, 4)])
async def test_a_cursor_of_something_else_is_refused(
    listener: httpx2.AsyncClient, cursor: str
) -> None:
    async with listening(listener, EVENTS, last=cursor or None, after=cursor or "?") as reader:
        [error] = (await reader.next())["errors"]
        assert error["extensions"]["code"] == "BAD_CURSOR"
        assert await reader.next() == {"event": "complete"}


async def test_stuck_readers_slow_nobody_and_are_told_what_they_missed(
    runtime: Runtime,
    tenant_id: TenantId,
    tenant: NewTenant,
    live_port: int,
    listener: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aforo.storage.live_topic.RING_MESSAGES_MAX", 100)
    announce = announce_events(runtime, tenant_id)
    query = "subscription { events { idempotencyKey properties } }"
    stuck = [await _stuck_reader(live_port, tenant, query) for _ in range(20)]
    async with listening(listener, query) as quick:
        await quick.opened()
        seen = []
        for number in range(0, 600, 10):
            await announce(*range(number, number + 10), text="x" * 10_000)
            seen += [number_of(await quick.next()) for _ in range(10)]
        assert seen == [*range(600)]
        topic = runtime.live.hub._topics[f"aforo:{tenant_id}:events"]
        assert topic.held_bytes < 2_000_000
        for reader, writer in stuck:
            told = await _last_words(reader)
            [error] = told["errors"]
            assert error["extensions"]["code"] == "TOO_SLOW"
            assert error["extensions"]["missed"]["count"] > 0
            cursor = error["extensions"]["cursor"]
            async with listening(listener, EVENTS, after=cursor) as again:
                first = number_of(await again.next())
            assert 600 - first == error["extensions"]["missed"]["count"]
            writer.close()


async def _stuck_reader(
    live_port: int, tenant: NewTenant, query: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Whoever asks for a stream, and reads only how it begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live_port, limit=20_000)
    body = json.dumps({"query": query}).encode()
    head = (
        "POST /graphql HTTP/1.1\r\nHost: aforo.test\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nAuthorization: Bearer {tenant.key.token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    async with asyncio.timeout(60):
        await reader.readuntil(b"id: ")  # It is open.
    return reader, writer


async def _last_words(reader: asyncio.StreamReader) -> Frame:
    """Read on to the end; the last event before `complete`."""
    text = b""
    async with asyncio.timeout(60):
        while b"event: complete" not in text:
            text = text[-100_000:] + await reader.read(100_000)
    body: Frame = json.loads(
        text.split(b"event: complete")[0].rsplit(b"data: ", 1)[1].split(b"\n")[0]
    )
    return body


async def test_many_streams_of_one_key_are_looked_up_at_once_and_end_with_it(
    runtime: Runtime,
    tenant: NewTenant,
    listener: httpx2.AsyncClient,
    graphql: GraphQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.2)
    asked: list[int] = []
    look_up = queries.authenticate_all

    async def counted(runtime: Runtime, tokens: set[str]) -> Any:
        asked.append(len(tokens))
        return await look_up(runtime, tokens)

    monkeypatch.setattr(callers, "authenticate_all", counted)
    async with asyncio.TaskGroup() as tasks:
        ends = [tasks.create_task(_to_the_end(listener)) for _ in range(40)]
        await wait_for(lambda: len(asked) >= 3)
        key = relay.global_id("ApiKey", tenant.key.row.id)
        await change(graphql, "revokeApiKey", apiKeyId=key)
    assert {end.result() for end in ends} == {"UNAUTHENTICATED"}
    assert set(asked) == {1}


async def _to_the_end(listener: httpx2.AsyncClient) -> str:
    async with listening(listener, ALL) as reader:
        [error] = (await reader.next())["errors"]
        assert await reader.next() == {"event": "complete"}
        code: str = error["extensions"]["code"]
        return code
