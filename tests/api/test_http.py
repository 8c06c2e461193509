"""GraphQL over HTTP: odd requests, media types, methods, limits, masking."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_api_key
from aforo.tenants.permissions import Permission
from tests.api.forms import in_production

pytestmark = pytest.mark.anyio

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"


async def _post(
    client: httpx2.AsyncClient, query: str, *, accept: str = JSON, **body: Any
) -> httpx2.Response:
    return await client.post("/graphql", json={"query": query, **body}, headers={"Accept": accept})


def _code(response: httpx2.Response) -> str:
    answer = response.json()
    assert answer["errors"], answer
    code: str = answer["errors"][0]["extensions"]["code"]
    return code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"1",
        b'"x"',
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 5_000 + b"]" * 5_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"9" * 5_000,
        b'{"query":"{ hello }","variables":{"n":' + b"9" * 5_000 + b"}}",
        b'{"query":"{ hello }","variables":{"n":1e99999999999999999999}}',
        b'{"query":"\xff"}',
        b'{"query":"\\ud800"}',
        b'{"query":1}',
        b'{"query":null}',
        b'{"query":"  "}',
        b'{"query":"{ hello }","variables":[]}',
        b'{"query":"{ hello }","variables":"x"}',
        b'{"query":"{ hello }","operationName":1}',
        b'{"query":"{ hello }","extensions":1}',
        b'[{"query":"{ hello }"}]',
        b'{"query":"query($n: String!) { hello(name: $n) }","variables":{"n":"a\\u0000b"}}',
        b"NaN",
    ],
)
async def test_an_odd_body_is_a_400_in_json(small_client: httpx2.AsyncClient, body: bytes) -> None:
    response = await small_client.post(
        "/graphql", content=body, headers={"Content-Type": JSON, "Accept": JSON}
    )
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert _code(response) in {"BAD_REQUEST", "BAD_TEXT"}
    assert "data" not in response.json()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (JSON, 200),
        ("application/json; charset=utf-8", 200),
        ('APPLICATION/JSON;charset="UTF-8"', 200),
        ("application/json; charset=utf-16", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
async def test_the_body_is_json_in_utf_8(
    small_client: httpx2.AsyncClient, content_type: str, status: int
) -> None:
    response = await small_client.post(
        "/graphql", content=b'{"query":"{ hello }"}', headers={"Content-Type": content_type}
    )
    assert response.status_code == status


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (GRAPHQL_JSON, GRAPHQL_JSON),
        (f"{GRAPHQL_JSON}, {JSON};q=0.9", GRAPHQL_JSON),
        (f"{JSON};q=0.5, {GRAPHQL_JSON}", GRAPHQL_JSON),
        (f"{GRAPHQL_JSON}; charset=utf-8", GRAPHQL_JSON),
        # As urql sends it: it can read event streams, and does not want one.
        (
            f"{GRAPHQL_JSON}, application/graphql+json, {JSON}, text/event-stream, multipart/mixed",
            GRAPHQL_JSON,
        ),
        (f"{JSON}, text/event-stream", JSON),
        (f"text/event-stream, {JSON}", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
    ],
)
async def test_the_answer_has_the_type_that_the_client_likes_best(
    small_client: httpx2.AsyncClient, accept: str, answered: str
) -> None:
    response = await _post(small_client, "{ hello }", accept=accept)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{answered}; charset=utf-8"


async def test_a_type_that_is_not_spoken_here_is_a_406(small_client: httpx2.AsyncClient) -> None:
    for accept in ("text/html", "application/xml", f"{JSON};q=0"):
        assert (await _post(small_client, "{ hello }", accept=accept)).status_code == 406


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ }", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ hello(name: 1) }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { hello } query B { hello }", "OPERATION_NAME_NEEDED"),
        ("query($n: String!) { hello(name: $n) }", "BAD_USER_INPUT"),
        ("fragment A on Query { hello }", "GRAPHQL_VALIDATION_FAILED"),
        ("type Query { hello: String }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_a_document_that_cannot_run_is_a_request_error(
    small_client: httpx2.AsyncClient, document: str, code: str
) -> None:
    new = await _post(small_client, document, accept=GRAPHQL_JSON)
    old = await _post(small_client, document, accept=JSON)
    # With application/json the status says nothing about GraphQL.
    assert (new.status_code, old.status_code) == (400, 200)
    assert _code(new) == _code(old) == code
    assert "data" not in new.json()
    assert new.json() == old.json()


async def test_of_several_operations_the_named_one_runs(small_client: httpx2.AsyncClient) -> None:
    document = "query A { hello } query B { twice(value: 2) }"
    for name, data in (("A", {"hello": "hello you"}), ("B", {"twice": "4"})):
        response = await _post(small_client, document, operationName=name)
        assert response.json()["data"] == data
    missing = await _post(small_client, document, operationName="C")
    assert _code(missing) == "OPERATION_NOT_FOUND"


async def test_a_get_may_ask_but_not_change(small_client: httpx2.AsyncClient) -> None:
    asked = await small_client.get(
        "/graphql",
        params={
            "query": "query($n: String!) { hello(name: $n) }",
            "variables": json.dumps({"n": "world"}),
        },
    )
    assert asked.json()["data"] == {"hello": "hello world"}
    changed = await small_client.get("/graphql", params={"query": "mutation { change }"})
    assert (changed.status_code, changed.headers["allow"]) == (405, "POST")
    assert _code(changed) == "METHOD_NOT_ALLOWED"
    broken = await small_client.get("/graphql", params={"query": "{ hello }", "variables": "{"})
    assert broken.status_code == 400
    assert (await small_client.get("/graphql")).status_code == 400


async def test_other_methods_are_told_which_there_are(small_client: httpx2.AsyncClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        response = await small_client.request(method, "/graphql")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, POST"
        assert _code(response) == "METHOD_NOT_ALLOWED"


async def test_a_body_is_read_up_to_one_mebibyte(small_client: httpx2.AsyncClient) -> None:
    def padded(size: int) -> bytes:
        body = b'{"query":"{ hello }","extensions":{"pad":""}}'
        return body.replace(b'""', b'"' + b"x" * (size - len(body)) + b'"')

    headers = {"Content-Type": JSON}
    largest = padded(1024 * 1024)
    assert len(largest) == 1024 * 1024
    fits = await small_client.post("/graphql", content=largest, headers=headers)
    assert fits.json()["data"] == {"hello": "hello you"}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 20_000

    for too_large in (padded(1024 * 1024 + 1), chunks()):
        refused = await small_client.post("/graphql", content=too_large, headers=headers)
        assert refused.status_code == 413
        assert _code(refused) == "TOO_LARGE"


async def test_who_has_no_key_is_asked_for_one(small_client: httpx2.AsyncClient) -> None:
    for authorization in ("", "Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz", "x" * 10_000):
        response = await small_client.post(
            "/graphql", json={"query": "{ hello }"}, headers={"Authorization": authorization}
        )
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert _code(response) == "UNAUTHENTICATED"


async def test_a_key_does_only_what_its_scopes_say(
    small_client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant
) -> None:
    asked = {"CATALOG_READ": "{ hello }", "CATALOG_WRITE": "mutation { change }"}
    for only in Permission:
        async with runtime.scope(tenant.key.row.tenant_id) as scope:
            key = await create_api_key(
                scope, name="one", scopes=[only], pepper=runtime.settings.key_pepper
            )
        headers = {"Authorization": f"Bearer {key.token}"}
        for needed, document in asked.items():
            response = await small_client.post(
                "/graphql", json={"query": document}, headers=headers
            )
            assert response.status_code == (200 if only.name == needed else 403)
        events = await small_client.post("/v1/events", json=[], headers=headers)
        assert events.status_code == (202 if only is Permission.INGEST else 403)


async def test_every_answer_has_the_safe_headers_and_an_id(
    small_client: httpx2.AsyncClient,
) -> None:
    paths = ("/graphql?query={hello}", "/graphql", "/nowhere", "/readyz", "/v1/events")
    seen = set()
    for path in paths:
        response = await small_client.get(path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "Authorization" in response.headers["vary"]
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        seen.add(response.headers["x-request-id"])
    assert len(seen) == len(paths)


async def test_siblings_share_one_query(small_client: httpx2.AsyncClient) -> None:
    one, two = "01a1fd81-a8f6-77d7-b4dc-87fc8e21f12f", "01a1fd81-a93f-7755-8b76-3772ed650636"
    response = await _post(
        small_client,
        f'{{ a: loaded(key: "{one}") b: loaded(key: "{two}") c: loaded(key: "{one}") }}',
    )
    assert response.json()["data"] == {"a": 2, "b": 2, "c": 2}


async def test_production_hides_the_schema_and_the_page(
    runtime: Runtime, tenant: NewTenant
) -> None:
    app = create_app(in_production(runtime))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as client:
        for document in (
            "{ __schema { types { name } } }",
            '{ __type(name: "Query") { name } }',
            "{ ...F } fragment F on Query { __schema { types { name } } }",
            "{ ... { __schema { types { name } } } }",
        ):
            response = await _post(client, document)
            assert _code(response) == "INTROSPECTION_OFF"
        assert (await _post(client, "{ __typename }")).json()["data"] == {"__typename": "Query"}
        page = await client.get("/graphql", headers={"Accept": "text/html"})
        assert page.status_code == 406
        assert (await client.get("/graphiql/index.js")).status_code == 404


async def test_a_browser_gets_the_page_without_a_key(runtime: Runtime) -> None:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)), base_url="http://aforo.test"
    ) as client:
        page = await client.get("/graphql", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
