"""`POST /v1/events` over HTTP: what is read, what is refused, and with which status."""

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.ingest.route import BODY_BYTES_MAX
from aforo.storage.scope import Runtime, open_runtime
from tests.api.forms import GraphQL, customer, made, offering

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def sold(graphql: GraphQL) -> None:
    """Acme may use the event type `llm.request`."""
    offering_id = await offering(graphql)
    customer_id = await made(graphql, "createCustomer", **customer())
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-11-01T00:00:00Z",
    )


def event(key: str, **more: Any) -> dict[str, Any]:
    return {
        "idempotencyKey": key,
        "type": "llm.request",
        "customer": "acme",
        "occurredAt": "2026-11-20T10:00:00Z",
        "properties": {"tokens": "5"},
        **more,
    }


async def _counts(graphql: GraphQL) -> int:
    query = "{ quarantinedEvents(first: 100) { edges { cursor } } }"
    return len((await graphql(query))["quarantinedEvents"]["edges"])


async def test_a_batch_is_answered_with_five_counts_and_what_went_wrong(
    client: httpx2.AsyncClient, sold: None
) -> None:
    first = event("a")
    response = await client.post("/v1/events", json=[first, first, event("b", occurredAt="then")])
    assert response.status_code == 202
    answer = response.json()
    assert list(answer) == [
        "accepted",
        "duplicates",
        "conflicts",
        "rejected",
        "quarantined",
        "verdicts",
    ]
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (1, 1, 1)
    duplicate, rejected = answer["verdicts"]
    assert (duplicate["index"], duplicate["verdict"]) == (1, "DUPLICATE")
    assert duplicate["eventId"]
    assert rejected | {"message": "…"} == {
        "index": 2,
        "idempotencyKey": "b",
        "verdict": "REJECTED",
        "stage": "INGESTION",
        "code": "BAD_VALUE",
        "message": "…",
        "eventId": None,
    }


async def test_an_empty_batch_is_fine(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/events", content=b"[]", headers=JSON)
    assert (response.status_code, response.json()["verdicts"]) == (202, [])


async def test_an_atomic_batch_is_taken_whole_or_not_at_all(
    client: httpx2.AsyncClient, sold: None
) -> None:
    batch = [event("a"), event("b", type=None)]
    refused = await client.post("/v1/events", params={"atomic": "true"}, json=batch)
    assert refused.status_code == 422
    assert [verdict["index"] for verdict in refused.json()["verdicts"]] == [1]
    again = await client.post("/v1/events", params={"atomic": "false"}, json=batch)
    assert (again.status_code, again.json()["accepted"]) == (202, 1)
    harmless = await client.post("/v1/events", params={"atomic": "true"}, json=[event("a")])
    assert (harmless.status_code, harmless.json()["duplicates"]) == (202, 1)
    for wrong in ("1", "yes", ""):
        answer = await client.post("/v1/events", params={"atomic": wrong}, json=[])
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "atomic")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b"[", ""),
        (b"[{}", ""),
        (b'[{"a" 1}]', "char 6"),
        (b"[1,]", ""),
        (b"[] []", ""),
        (b"\xff\xfe", ""),
        (b'[{"idempotencyKey": "\xff"}]', ""),
        (b"[" * 100_000, ""),
        (b'[{"properties":' * 1 + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}]", "nested"),
        (b"[NaN]", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"null", "array"),
        (b"1", "array"),
        (b'"x"', "array"),
        (b"{}", "array"),
        (b"9" * 5_000, "array"),
    ],
)
async def test_a_body_that_cannot_be_read_is_a_400(
    client: httpx2.AsyncClient, body: bytes, said: str
) -> None:
    response = await client.post("/v1/events", content=body, headers=JSON)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "BAD_REQUEST"
    assert said in error["message"]


@pytest.mark.parametrize(
    "value",
    [
        '"\\ud800"',
        '"x\\udfffy"',
        "9" * 5_000,
        "-" + "9" * 100_000,
        "1e99999999999999999999",
        "0." + "1" * 5_000,
        "[" * 30 + "]" * 30,
        '{"\\ud800": 1}',
        '"' + "x" * 10_000 + '"',
    ],
)
async def test_a_value_that_nothing_can_hold_rejects_its_event_alone(
    client: httpx2.AsyncClient, sold: None, value: str
) -> None:
    good, bad = json.dumps(event("good")), json.dumps(event("bad", properties={"x": 0}))
    body = f"[{good}, {bad.replace('0}', value + '}')}]"
    response = await client.post("/v1/events", content=body.encode(), headers=JSON)
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    [verdict] = answer["verdicts"]
    assert (verdict["index"], verdict["idempotencyKey"], verdict["code"]) == (1, "bad", "BAD_VALUE")


@pytest.mark.parametrize("element", ["null", "1", "[]", '"x"', "{}", '{"\\ud800": 1}', "9" * 5_000])
async def test_an_element_that_is_no_event_is_rejected_alone(
    client: httpx2.AsyncClient, sold: None, element: str
) -> None:
    body = f"[{json.dumps(event('good'))}, {element}]"
    response = await client.post("/v1/events", content=body.encode(), headers=JSON)
    assert response.status_code == 202
    assert (response.json()["accepted"], response.json()["rejected"]) == (1, 1)


async def test_a_batch_has_a_thousand_events_at_most(
    client: httpx2.AsyncClient, graphql: GraphQL, sold: None
) -> None:
    most = [event(str(number), customer="nobody") for number in range(1_000)]
    refused = await client.post("/v1/events", json=[*most, event("one more", customer="nobody")])
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "TOO_MANY_EVENTS")
    assert await _counts(graphql) == 0
    taken = await client.post("/v1/events", json=most)
    assert (taken.status_code, taken.json()["quarantined"]) == (202, 1_000)


async def test_a_body_has_ten_mebibytes_at_most(client: httpx2.AsyncClient) -> None:
    def padded(size: int) -> bytes:
        return b"[" + b" " * (size - 2) + b"]"

    assert BODY_BYTES_MAX == 10 * 1024 * 1024
    taken = await client.post("/v1/events", content=padded(BODY_BYTES_MAX), headers=JSON)
    assert taken.status_code == 202

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11 * 1024):
            yield b" " * 1024

    for body in (padded(BODY_BYTES_MAX + 1), chunks()):
        refused = await client.post("/v1/events", content=body, headers=JSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "TOO_LARGE")
        assert refused.headers["connection"] == "close"


async def test_a_body_of_another_type_is_a_415(client: httpx2.AsyncClient) -> None:
    for content_type in (
        "text/plain",
        "",
        "application/x-ndjson;charset=latin1",
        "application/xml",
        "application/json;charset=utf-7",
    ):
        response = await client.post(
            "/v1/events", content=b"[]", headers={"Content-Type": content_type}
        )
        assert response.status_code == 415
        assert response.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


async def test_who_has_no_key_is_refused_before_the_body_is_read(
    client: httpx2.AsyncClient,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = await client.post(
        "/v1/events", content=never(), headers={"Authorization": "Bearer x", **JSON}
    )
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["error"]["code"] == "UNAUTHENTICATED"


async def test_other_methods_and_paths_are_told_in_json(client: httpx2.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/v1/events", 405),
        ("PUT", "/v1/events", 405),
        ("POST", "/v1/events/", 404),
        ("GET", "/v1", 404),
        ("GET", "/", 404),
        ("POST", "/healthz", 405),
        ("GET", "/graphiql/nothing.js", 404),
        ("GET", "/graphiql/..%2f..%2fapp.py", 404),
    ):
        response = await client.request(method, path)
        assert response.status_code == status, path
        assert response.json()["error"]["code"] in {"NOT_FOUND", "METHOD_NOT_ALLOWED"}
        assert ("allow" in response.headers) == (status == 405)


async def test_a_healthy_process_says_so(client: httpx2.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        response = await client.get(path, headers={"Authorization": ""})
        assert response.status_code == 200
        assert response.json()["status"] == "ok"


@pytest.fixture
async def cut_off(shared_runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    """The application with addresses where nobody answers."""
    settings = dataclasses.replace(
        shared_runtime.settings,
        database_url="postgresql+asyncpg://aforo@127.0.0.1:1/aforo",
        redis_url="redis://127.0.0.1:1/0",
        clickhouse_url="http://127.0.0.1:1/aforo",
    )
    runtime = open_runtime(settings, shared_runtime.plugins)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)), base_url="http://aforo.test"
    ) as opened:
        yield opened
    await runtime.close()


async def test_without_engines_a_request_is_a_503_with_the_time_to_wait(
    cut_off: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    headers = {"Authorization": client.headers["authorization"], **JSON}
    events = await cut_off.post("/v1/events", content=b"[]", headers=headers)
    graphql = await cut_off.post(
        "/graphql", content=b'{"query":"{ tenant { id } }"}', headers=headers
    )
    for response in (events, graphql):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "127.0.0.1" not in response.text
    assert events.json()["error"]["code"] == "UNAVAILABLE"
    assert graphql.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"


async def test_a_process_without_engines_lives_but_is_not_healthy(
    cut_off: httpx2.AsyncClient,
) -> None:
    health = await cut_off.get("/healthz")
    assert health.status_code == 503
    assert health.json() == {
        "status": "unavailable",
        "engines": {
            "postgresql": "unreachable",
            "redis": "unreachable",
            "clickhouse": "unreachable",
        },
    }
    assert (await cut_off.get("/readyz")).status_code == 503
