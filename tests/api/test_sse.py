"""Server-sent events, byte by byte, against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.protocol import sse, streams
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, revoke_api_key
from tests.api import small
from tests.api.server import serving

pytestmark = pytest.mark.anyio

COMPLETE = "event: complete\ndata:\n\n"


def _next(data: object) -> str:
    return f"event: next\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


@pytest.fixture(scope="module")
async def port(shared_runtime: Runtime) -> AsyncIterator[int]:
    """A server with the small schema."""
    async with serving(create_app(shared_runtime, schema=small.schema)) as opened:
        yield opened


@pytest.fixture
async def reader(port: int, tenant: NewTenant) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that wants event streams."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={
            "Authorization": f"Bearer {tenant.key.token}",
            "Accept": "text/event-stream",
        },
        timeout=60,
    ) as opened:
        yield opened


async def _whole(reader: httpx2.AsyncClient, query: str, **more: Any) -> httpx2.Response:
    return await reader.post("/graphql", json={"query": query}, **more)


@asynccontextmanager
async def _stream(reader: httpx2.AsyncClient, query: str) -> AsyncIterator[Callable[[], Any]]:
    async with reader.stream("POST", "/graphql", json={"query": query}) as response:
        chunks = response.aiter_text()
        yield lambda: asyncio.wait_for(anext(chunks, None), 10)


async def test_a_subscription_is_a_stream_of_next_and_one_complete(
    reader: httpx2.AsyncClient,
) -> None:
    response = await _whole(reader, "subscription { count(to: 2) }")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.text == _next({"data": {"count": 0}}) + _next({"data": {"count": 1}}) + COMPLETE
    assert "\r" not in response.text


async def test_a_query_can_be_read_as_a_stream(reader: httpx2.AsyncClient) -> None:
    response = await _whole(reader, "{ hello }")
    cost = {"cost": {"requested": 1, "maximum": 1000}}
    answer = {"data": {"hello": "hello you"}, "extensions": cost}
    assert response.text == _next(answer) + COMPLETE


async def test_a_subscription_can_be_asked_for_by_get(reader: httpx2.AsyncClient) -> None:
    response = await reader.get("/graphql", params={"query": "subscription { count(to: 1) }"})
    assert response.text == _next({"data": {"count": 0}}) + COMPLETE


async def test_a_subscription_without_a_stream_is_not_run_as_a_query(
    reader: httpx2.AsyncClient,
) -> None:
    for accept in ("application/json", "application/graphql-response+json", "*/*"):
        response = await _whole(reader, "subscription { count(to: 2) }", headers={"Accept": accept})
        assert response.status_code == 406
        assert response.json()["errors"][0]["extensions"]["code"] == "NOT_ACCEPTABLE"


async def test_a_bad_document_is_an_error_in_the_stream(reader: httpx2.AsyncClient) -> None:
    for query in ("{", "{ nothing }", "subscription { nothing }"):
        response = await _whole(reader, query)
        assert response.status_code == 200
        event, data, *rest = response.text.split("\n")
        assert event == "event: next"
        assert json.loads(data.removeprefix("data: "))["errors"]
        assert response.text.endswith(COMPLETE)
        assert rest


async def test_a_refused_request_is_no_stream(reader: httpx2.AsyncClient) -> None:
    response = await _whole(reader, "{ hello }", headers={"Authorization": ""})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    response = await reader.post(
        "/graphql", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400


async def test_a_stream_that_breaks_is_masked_and_completed(reader: httpx2.AsyncClient) -> None:
    response = await _whole(reader, "subscription { breaks }")
    assert response.text.startswith(_next({"data": {"breaks": 1}}))
    assert '"code":"INTERNAL"' in response.text
    assert small.SECRET not in response.text
    assert response.text.endswith(COMPLETE)


async def test_a_reader_that_leaves_ends_the_subscription(reader: httpx2.AsyncClient) -> None:
    small.WATCH.closed.clear()
    async with _stream(reader, "subscription { forever }") as chunk:
        assert await chunk() == _next({"data": {"forever": "first"}})
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()


async def test_a_quiet_stream_shows_that_it_lives(
    reader: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sse.HEARTBEAT_SECONDS == 10
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.1)
    async with _stream(reader, "subscription { forever }") as chunk:
        assert await chunk() == _next({"data": {"forever": "first"}})
        for _ in range(3):
            assert (await chunk()).startswith(":\n\n")


async def test_a_revoked_key_loses_its_stream(
    reader: httpx2.AsyncClient,
    runtime: Runtime,
    tenant: NewTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert streams.RECHECK_SECONDS < 5
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.1)
    small.WATCH.closed.clear()
    async with _stream(reader, "subscription { forever }") as chunk:
        assert await chunk() == _next({"data": {"forever": "first"}})
        async with runtime.scope(tenant.key.row.tenant_id) as scope:
            await revoke_api_key(scope, api_key_id=tenant.key.row.id)
        text = ""
        while (more := await chunk()) is not None:
            text += more
    assert '"code":"UNAUTHENTICATED"' in text
    assert text.endswith(COMPLETE)
    async with asyncio.timeout(60):
        await small.WATCH.closed.wait()


async def test_a_reader_that_takes_nothing_costs_no_memory_and_is_cut_off(
    port: int, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "SEND_TIMEOUT_SECONDS", 1)
    flood = small.Flood()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    body = json.dumps({"query": "subscription { flood }"}).encode()
    writer.write(
        b"POST /graphql HTTP/1.1\r\nHost: aforo.test\r\nContent-Type: application/json\r\n"
        b"Accept: text/event-stream\r\nAuthorization: Bearer " + tenant.key.token.encode() + b"\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    stood = await flood.until_it_stands()
    assert stood * small.FLOOD_BYTES < 20_000_000
    async with asyncio.timeout(60):
        await flood.ended.wait()
        while await reader.read(1_000_000):
            pass
    writer.close()
    assert flood.sent == stood
