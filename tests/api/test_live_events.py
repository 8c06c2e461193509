"""The live view of ingestion: every verdict, exact counts, few frames, and nobody held up by it."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from aforo.metering.commands import ingest
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime, open_runtime
from aforo.tenants.commands import NewTenant, create_tenant
from tests.api.forms import GraphQL, made, meter, new_key
from tests.api.listening import Frame, Reader
from tests.api.server import socket_to
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
KINDS = ("accepted", "duplicates", "conflicts", "rejected", "quarantined")
UNKNOWN = {**call(900, 1), "customer": "nobody"}
WRONG = {"idempotencyKey": "wrong", "type": "llm.request", "customer": "acme", "color": "red"}


@asynccontextmanager
async def watching(
    http: httpx2.AsyncClient, *, last: str | None = None, **query: Any
) -> AsyncIterator[Reader]:
    """Read the stream once it has begun."""
    headers = {"Last-Event-ID": last} if last else {}
    url = "/v1/live/events"
    async with http.stream("GET", url, params=query, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        reader = Reader(response)
        yield reader if last else await reader.opened()


async def until(reader: Reader, received: int) -> list[Frame]:
    """Frames until so many events were received."""
    frames = [await reader.next()]
    while frames[-1]["totals"]["received"] < received:
        frames.append(await reader.next())
    return frames


def shown(frames: list[Frame]) -> list[dict[str, Any]]:
    return [event for frame in frames for event in frame["events"]]


def check_sums(frames: list[Frame]) -> None:
    """Frames add up to their totals, and received is shown and dropped."""
    for name in ("received", "shown", "dropped", *KINDS):
        assert sum(frame["counts"][name] for frame in frames) == frames[-1]["totals"][name]
    for frame in frames:
        counts = frame["counts"]
        assert counts["received"] == counts["shown"] + counts["dropped"]
        assert counts["received"] == sum(counts[kind] for kind in KINDS)
        assert counts["shown"] == len(frame["events"])


async def test_every_verdict_is_shown_with_where_it_came_from_and_what_it_is(
    listener: httpx2.AsyncClient, shop: Shop, send: Send, graphql: GraphQL
) -> None:
    async with watching(listener) as reader:
        await send(call(1, 2))
        await send(call(1, 2), call(1, 3), UNKNOWN, WRONG, "no event", call(2, "many"))
        frames = await until(reader, 7)
    check_sums(frames)
    assert {kind: frames[-1]["totals"][kind] for kind in KINDS} == {
        "accepted": 1,
        "duplicates": 1,
        "conflicts": 1,
        "rejected": 3,
        "quarantined": 1,
    }
    first, *others = shown(frames)
    event_id = first.pop("eventId")
    subscribed = await graphql(
        "query($id: ID!) { node(id: $id) { ... on Customer { subscriptions { edges { node {"
        " id offering { product { id } } } } } } } }",
        id=shop.customer_id,
    )
    [edge] = subscribed["node"]["subscriptions"]["edges"]
    assert first == {
        "receivedAt": "2026-11-20T12:00:00Z",
        "verdict": "ACCEPTED",
        "source": "JSON",
        "stage": None,
        "code": None,
        "message": None,
        "validation": "PASSED",
        "idempotencyKey": "2026-10-1",
        "type": "llm.request",
        "customer": "acme",
        "customerId": shop.customer_id,
        "teamId": None,
        "agentId": None,
        "customerKeyId": None,
        "subscriptionId": edge["node"]["id"],
        "productId": edge["node"]["offering"]["product"]["id"],
        "meters": ["tokens"],
        "occurredAt": "2026-10-11T01:00:00.000001Z",
        "properties": {"model": "small", "tokens": 2},
        "cost": "0.04",
        "costCurrency": "USD",
        "supersedes": None,
        "isVoid": False,
    }
    told = [(each["verdict"], each["code"], each["validation"]) for each in others]
    assert told == [
        ("DUPLICATE", "DUPLICATE", "PASSED"),
        ("CONFLICT", "CONFLICT", "PASSED"),
        ("QUARANTINED", "UNKNOWN_CUSTOMER", "FAILED"),
        ("REJECTED", "BAD_VALUE", "NOT_REACHED"),
        ("REJECTED", "BAD_VALUE", "NOT_REACHED"),
        ("REJECTED", "BAD_VALUE", "FAILED"),
    ]
    assert [each["eventId"] == event_id for each in others[:2]] == [True, True]
    assert [each["eventId"] is None for each in others[2:]] == [False, True, True, True]
    # Also what was refused is the customer's, as far as it can be said.
    ids = [each["customerId"] for each in others]
    assert ids == [shop.customer_id] * 2 + [None, shop.customer_id, None, shop.customer_id]


@pytest.mark.parametrize(
    ("source", "content_type", "body", "agent"),
    [
        ("LINES", "application/x-ndjson", b'{"idempotencyKey": "1"}', "curl"),
        ("IMPORT", "application/x-ndjson", b'{"idempotencyKey": "1"}', "aforo-import"),
        ("CLOUD_EVENTS", "application/cloudevents+json", b'{"id": "1", "source": "here"}', "curl"),
    ],
)
async def test_the_source_is_the_form_in_which_an_event_came(
    listener: httpx2.AsyncClient, source: str, content_type: str, body: bytes, agent: str
) -> None:
    headers = {"Content-Type": content_type, "User-Agent": agent}
    async with watching(listener) as reader:
        assert (await listener.post("/v1/events", content=body, headers=headers)).is_success
        [event] = (await reader.next())["events"]
    assert (event["source"], event["verdict"]) == (source, "REJECTED")
    key = "here 1" if source == "CLOUD_EVENTS" else "1"
    assert event["idempotencyKey"] == key


async def test_a_customers_key_places_an_event_and_is_not_shown(
    listener: httpx2.AsyncClient, shop: Shop, send: Send, graphql: GraphQL
) -> None:
    team = await made(graphql, "createTeam", customerId=shop.customer_id, code="t", name="T")
    agent = await made(graphql, "createAgent", teamId=team, code="a", name="A")
    secret = "sk_live_a_key_of_acme"
    key_id = await made(
        graphql,
        "registerCustomerKey",
        customerId=shop.customer_id,
        agentId=agent,
        name="K",
        key=secret,
        validFrom="2026-10-01T00:00:00Z",
    )
    async with watching(listener) as reader:
        sent = call(1, 1)
        del sent["customer"]
        await send(sent | {"apiKey": secret}, sent | {"apiKey": secret + "?", "color": "red"})
        frames = await until(reader, 2)
    assert secret not in json.dumps(frames)
    placed = shown(frames)[0]
    assert placed["verdict"] == "ACCEPTED"
    ids = (placed["customerId"], placed["teamId"], placed["agentId"], placed["customerKeyId"])
    assert ids == (shop.customer_id, team, agent, key_id)


async def test_what_is_filtered_out_is_neither_counted_nor_shown(
    listener: httpx2.AsyncClient, shop: Shop, send: Send, graphql: GraphQL
) -> None:
    await made(graphql, "createMeter", **meter(code="calls", eventType="tool.call"))
    found = await graphql("{ products(first: 1) { edges { node { id } } } }")
    product_id = found["products"]["edges"][0]["node"]["id"]
    tool, unheard = {**call(2, 1), "type": "tool.call"}, {**call(7, 1), "type": "unheard.of"}
    batch = [call(1, 1), tool, UNKNOWN, WRONG, call(1, 1), unheard]
    keys = {"a": "2026-10-1", "tool": "2026-10-2", "wrong": "wrong", "unheard": "2026-10-7"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"customerId": shop.customer_id}, "a tool wrong a unheard"),
        ({"productId": product_id}, "a tool a"),
        ({"type": "tool.call"}, "tool"),
        ({"verdict": ["REJECTED", "DUPLICATE"]}, "wrong a"),
        ({"verdict": "ACCEPTED", "type": "llm.request"}, "a"),
    ]

    async def check(query: dict[str, Any], wanted: str) -> None:
        async with watching(listener, **query) as reader:
            ready.release()
            expected = [keys[name] for name in wanted.split()]
            frames = await until(reader, len(expected))
        check_sums(frames)
        assert [event["idempotencyKey"] for event in shown(frames)] == expected
        assert frames[-1]["totals"]["received"] == len(expected)

    ready = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for query, wanted in cases:
            group.create_task(check(query, wanted))
        for _ in cases:
            await ready.acquire()
        await send(*batch)


async def test_five_thousand_events_in_a_second_are_counted_exactly_in_ten_frames(
    listener: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    async with watching(listener, shownMax=20) as reader:
        begun = time.monotonic()
        batches = [[call(1000 * part + at, 1) for at in range(1000)] for part in range(5)]
        frames, *_ = await asyncio.gather(until(reader, 5_000), *(send(*each) for each in batches))
        seconds = time.monotonic() - begun
    check_sums(frames)
    totals = frames[-1]["totals"]
    assert (totals["received"], totals["accepted"]) == (5_000, 5_000)
    assert totals["dropped"] > 0
    assert len(frames) <= seconds * 10 + 1
    assert max(frame["counts"]["shown"] for frame in frames) == 20


async def test_a_slow_reader_gets_exact_counts_and_holds_up_nobody(
    listener: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    async with watching(listener, shownMax=500) as slow, watching(listener) as quick:
        for part in range(4):
            properties = {"note": "x" * 2_000}
            batch = [call(500 * part + at, 1, **properties) for at in range(500)]
            assert (await send(*batch))["accepted"] == 500
        assert (await until(quick, 2_000))[-1]["totals"]["received"] == 2_000
        # It reads only now; what did not fit into its connection comes in few frames.
        frames = await until(slow, 2_000)
    check_sums(frames)
    assert frames[-1]["totals"]["received"] == 2_000


async def test_a_stream_goes_on_after_the_last_event_id(
    listener: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    async with watching(listener) as reader:
        await send(call(1, 1))
        await until(reader, 1)
        left = reader.cursor
        await send(call(2, 1))
        await until(reader, 2)
    async with watching(listener) as other:
        await send(call(3, 1))
        await until(other, 1)
    async with watching(listener, last=left) as reader:
        frames = await until(reader, 2)
        assert [each["idempotencyKey"] for each in shown(frames)] == ["2026-10-2", "2026-10-3"]
        assert "missed" not in frames[0]
    headers = {"Last-Event-ID": "nonsense"}
    async with listener.stream("GET", "/v1/live/events", headers=headers) as response:
        answer = await Reader(response).next()
    assert answer["errors"][0]["extensions"]["code"] == "BAD_CURSOR"


async def test_of_a_refused_atomic_batch_every_event_is_told_as_not_kept(
    listener: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    await send(call(1, 1))
    async with watching(listener) as reader:
        batch = [call(1, 1), call(2, 1), call(2, 1), call(3, 1), UNKNOWN, WRONG]
        assert (await send(*batch, atomic="true"))["accepted"] == 2
        frames = await until(reader, 6)
        told = {
            (each["idempotencyKey"], each["verdict"], each["code"], each["eventId"] is None)
            for each in shown(frames)
        }
        assert told == {
            ("2026-10-1", "DUPLICATE", "DUPLICATE", False),
            ("2026-10-2", "REJECTED", "BATCH_REFUSED", True),
            ("2026-10-2", "REJECTED", "DUPLICATE", True),
            ("2026-10-3", "REJECTED", "BATCH_REFUSED", True),
            ("2026-10-900", "REJECTED", "UNKNOWN_CUSTOMER", True),
            ("wrong", "REJECTED", "BAD_VALUE", True),
        }
        await send(call(2, 1))  # Its key was left free.
        assert (await reader.next())["counts"]["accepted"] == 1


async def test_nobody_watches_another_tenant(
    runtime: Runtime, listener: httpx2.AsyncClient, shop: Shop, send: Send, tenant_id: TenantId
) -> None:
    stranger = await create_tenant(runtime, name="Another tenant")
    headers = {"Authorization": f"Bearer {stranger.key.token}"}
    async with (
        watching(listener) as reader,
        listener.stream("GET", "/v1/live/events", headers=headers) as response,
    ):
        theirs = await Reader(response).opened()
        await send(call(1, 1))
        await ingest(runtime, TenantId(stranger.tenant.tenant_id), [{"idempotencyKey": "theirs"}])
        [event] = (await theirs.next())["events"]
        assert (event["idempotencyKey"], event["source"]) == ("theirs", "INTERNAL")
        await ingest(runtime, tenant_id, [{"idempotencyKey": "ours"}])
        keys = [event["idempotencyKey"] for event in shown(await until(reader, 2))]
    assert keys == ["2026-10-1", "ours"]


async def test_the_subscription_tells_the_same_with_cursors(
    live_port: int, tenant: NewTenant, shop: Shop, send: Send
) -> None:
    query = """subscription($after: String, $verdicts: [VerdictKind!]! = []) {
      liveEvents(after: $after, verdicts: $verdicts, shownMax: 1) {
        totals { received shown dropped } events { idempotencyKey meters cost } } }"""
    async with socket_to(live_port, token=tenant.key.token) as socket:
        await socket.initialise()
        await socket.subscribe(query)
        first = asyncio.create_task(socket.receive())
        while not first.done():  # A WebSocket does not say when its subscription has begun.
            await send(WRONG)
            await asyncio.wait([first], timeout=0.1)
        after = first.result()["payload"]["extensions"]["cursor"]
        await socket.send({"id": "1", "type": "complete"})
        await send(call(1, 1), WRONG, call(2, 3))
        await socket.subscribe(query, id_="2", after=after, verdicts=["ACCEPTED"])
        while (message := await socket.receive())["id"] != "2":
            pass
    assert message["payload"]["data"]["liveEvents"] == {
        "totals": {"received": 2, "shown": 1, "dropped": 1},
        "events": [{"idempotencyKey": "2026-10-2", "meters": ["tokens"], "cost": "0.06"}],
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("verdict=GOOD", "verdict"),
        ("shownMax=501", "shownMax"),
        ("shownMax=-1", "shownMax"),
        ("customerId=acme", "customerId"),
        ("type=a&type=b", "type"),
        ("customer=acme", None),
    ],
)
async def test_a_parameter_that_cannot_be_heeded_is_refused(
    client: httpx2.AsyncClient, query: str, field: str | None
) -> None:
    response = await client.get(f"/v1/live/events?{query}")
    assert response.status_code == 400
    assert response.json()["error"].get("field") == field


async def test_without_redis_events_are_taken_as_ever(
    shared_runtime: Runtime, runtime: Runtime, shop: Shop, tenant_id: TenantId
) -> None:
    settings = dataclasses.replace(shared_runtime.settings, redis_url="redis://127.0.0.1:1/0")
    cut_off = open_runtime(settings, shared_runtime.plugins, runtime.clock)
    try:
        for number in range(5):
            answer = await ingest(cut_off, tenant_id, [call(number, 1)])
            assert answer.accepted == 1
    finally:
        await cut_off.close()


async def test_who_may_not_read_events_watches_nothing(
    client: httpx2.AsyncClient, graphql: GraphQL, shop: Shop
) -> None:
    _, sender = await new_key(graphql, "INGEST")
    token = (
        await graphql(
            "mutation($input: CreatePortalTokenInput!) { createPortalToken(input: $input) "
            "{ ... on NewPortalToken { token } } }",
            input={"customerId": shop.customer_id},
        )
    )["createPortalToken"]["token"]
    for key, status in ((sender, 403), (token, 403), ("afo_live_nobody", 401)):
        headers = {"Authorization": f"Bearer {key}"}
        response = await client.get("/v1/live/events", headers=headers)
        assert response.status_code == status
