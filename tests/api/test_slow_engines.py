"""Engines that are there but give no answer: whoever asks is told when to try again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aforo.api.parts import taking
from aforo.sdk.errors import Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage import redis
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.tables import new_id
from aforo.tenants import queries

pytestmark = pytest.mark.anyio

QUERY = b'{"query":"{ tenant { id } }"}'
JSON = {"Content-Type": "application/json"}
EVENT = {"idempotencyKey": "slow-1", "type": "llm.request", "customer": "nobody"}


@asynccontextmanager
async def held(engines: EmbeddedEngines, table: str) -> AsyncIterator[None]:
    """A table that answers nobody, as all of them do on a server that is frozen."""
    owner = create_async_engine(engines.owner_database_url, poolclass=NullPool)
    try:
        async with owner.begin() as connection:
            await connection.execute(sa.text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
    finally:
        await owner.dispose()


async def test_a_key_that_cannot_be_looked_up_in_time_is_a_503(
    client: httpx2.AsyncClient, engines: EmbeddedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "AUTHENTICATION_TIMEOUT_SECONDS", 0.2)
    async with held(engines, "api_key"):
        events = await client.post("/v1/events", content=b"[]", headers=JSON)
        graphql = await client.post("/graphql", content=QUERY, headers=JSON)
    for response in (events, graphql):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "UNAVAILABLE" in response.text
    assert (await client.post("/graphql", content=QUERY, headers=JSON)).status_code == 200


async def test_a_batch_that_cannot_be_kept_in_time_is_a_503_and_can_be_sent_again(
    client: httpx2.AsyncClient, engines: EmbeddedEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(taking, "INGESTION_TIMEOUT_SECONDS", 0.2)
        async with held(engines, "event_key"):
            late = await client.post("/v1/events", json=[EVENT])
    assert late.status_code == 503
    assert int(late.headers["retry-after"]) > 0
    again = await client.post("/v1/events", json=[EVENT])
    assert again.status_code == 202
    # Whoever gave up does not know, but may ask again: the first of the two is kept, once.
    assert again.json()["quarantined"] + again.json()["duplicates"] == 1


async def test_a_frozen_redis_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # To the end: the client goes away, we never say a word.
        writer.close()

    for patience in ("ANSWER", "APPEND", "FOLLOW"):
        monkeypatch.setattr(redis, f"{patience}_TIMEOUT_SECONDS", 0.2)
    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        live = redis.Live(f"redis://{host}:{port}")
        messages = live.of(TenantId(new_id()))
        async with asyncio.timeout(60):
            messages.announce("signals", {"id": "lost"})
            await messages.flush()
            with pytest.raises(Unavailable):
                await anext(await messages.follow("signals"))
        await live.close()
