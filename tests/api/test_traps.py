"""What the framework does when its documentation is followed, and this API does not."""

from typing import Any

import httpx2
import pytest
import strawberry
import structlog
from starlette.applications import Starlette
from strawberry.schema.config import StrawberryConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aforo import serve
from aforo.api.app import create_app
from aforo.api.parts import relay
from aforo.api.parts.answers import decode_json, encode_json
from aforo.api.parts.scalars import SCALARS
from aforo.api.protocol import documents
from aforo.api.protocol.documents import DocumentRefused, Documents, Request
from aforo.api.protocol.websocket import MESSAGE_BYTES_MAX
from aforo.api.schema import NodeQuery, schema
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api import small
from tests.api.server import serving, socket_to

JSON = "application/json"


# Rules.


def test_the_rules_are_made_once_and_a_document_is_judged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[tuple[Any, ...]] = []
    validate = documents.validate

    def watched(*given: Any, **options: Any) -> Any:
        judged.append(given[2])
        return validate(*given, **options)

    monkeypatch.setattr(documents, "validate", watched)
    prepared = Documents(small.schema, introspection=True)
    for query in ("{ hello }", "{ hello }", "{ item { name } }"):
        prepared.prepare(Request(query, {}, None))
    assert len(judged) == 2
    assert judged[0] is judged[1]  # New classes per request would be rules that no cache knows.


@strawberry.input(one_of=True)
class Choice:
    by_name: strawberry.Maybe[str]
    by_number: strawberry.Maybe[int]


@strawberry.input
class Partial:
    name: strawberry.Maybe[str | None]


@strawberry.type
class ChoiceQuery:
    @strawberry.field
    def choose(self, choice: Choice) -> str:
        return "name" if choice.by_name else "number"

    @strawberry.field
    def given(self, partial: Partial) -> str:
        return "absent" if partial.name is None else f"given {partial.name.value}"


CHOICES = strawberry.Schema(query=ChoiceQuery)


@pytest.mark.parametrize("given", ["{}", '{byName: "a", byNumber: 1}', "{byName: null}"])
def test_one_of_several_inputs_means_exactly_one(given: str) -> None:
    prepared = Documents(CHOICES, introspection=True)
    prepared.prepare(Request('{ choose(choice: {byName: "a"}) }', {}, None))
    with pytest.raises(DocumentRefused) as refused:
        prepared.prepare(Request(f"{{ choose(choice: {given}) }}", {}, None))
    assert refused.value.code == "GRAPHQL_VALIDATION_FAILED"


async def test_what_is_absent_and_what_is_null_are_told_apart() -> None:
    prepared = Documents(CHOICES, introspection=True)
    context: Any = None
    for written, told in (
        ("{}", "absent"),
        ("{name: null}", "given None"),
        ('{name: "a"}', "given a"),
    ):
        operation = prepared.prepare(Request(f"{{ given(partial: {written}) }}", {}, None))
        result = await prepared.execute(operation, context)
        assert result.data == {"given": told}


def test_the_types_are_not_bound_to_the_first_schema_that_is_made_of_them() -> None:
    query = strawberry.type(type("Query", (NodeQuery,), {}), name="Query")
    config = StrawberryConfig(scalar_map=SCALARS)
    again = strawberry.Schema(query=query, types=relay.node_types(), config=config)
    nodes = {kind.__name__ for kind in relay.node_types()}
    for made in (again, schema):
        assert {name for name in nodes if f"type {name} implements Node " in made.as_str()} == nodes


# Incremental delivery.


@pytest.mark.parametrize("directive", ["@defer", "@stream(initialCount: 0)"])
async def test_incremental_delivery_is_off(
    small_client: httpx2.AsyncClient, directive: str
) -> None:
    query = f"{{ item {{ ... {directive} {{ bug: name }} }} }}"
    accept = {"Accept": f"multipart/mixed, {JSON}"}
    response = await small_client.post("/graphql", json={"query": query}, headers=accept)
    assert response.headers["content-type"] == f"{JSON}; charset=utf-8"
    assert response.json()["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


# What is written.


def test_json_of_any_depth_and_any_integer_is_written() -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    assert encode_json(deep) == b"[" * 600 + b"1" + b"]" * 600
    assert encode_json({"n": 10**30}) == b'{"n":' + b"1" + b"0" * 30 + b"}"
    assert decode_json(encode_json({"n": 2**64})) == {"n": 2**64}


# What is logged.

MISTAKES: list[dict[str, Any]] = [
    {"content": b"{"},
    {"json": {"query": "{"}},
    {"json": {"query": "{ nothing }"}},
    {"json": {"query": "query($n: String!) { hello(name: $n) }", "variables": {}}},
    {"json": {"query": "{ twice(value: NaN) }"}},
    {"json": {"query": "{ conflict }"}},
    {"json": {"query": "{ forbidden }"}},
    {"json": {"query": "{ hello }"}, "headers": {"Authorization": "Bearer nobody"}},
    {"json": {"query": "{ hello }"}, "headers": {"Accept": "text/html"}},
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
async def test_a_mistake_of_a_client_is_no_error_of_ours(
    small_client: httpx2.AsyncClient, mistake: dict[str, Any]
) -> None:
    headers = {"Content-Type": JSON, **mistake.get("headers", {})}
    with structlog.testing.capture_logs() as logged:
        response = await small_client.post("/graphql", **{**mistake, "headers": headers})
    assert response.status_code in {200, 400, 401, 406}
    assert "errors" in response.json()
    loud = {"error", "critical", "exception", "warning"}
    assert [each for each in logged if each["log_level"] in loud or "exc_info" in each] == []


# Sockets.


async def test_each_operation_of_a_socket_has_loaders_of_its_own(
    runtime: Runtime, tenant: NewTenant
) -> None:
    one, two = "01a1fd81-a8f6-77d7-b4dc-87fc8e21f12f", "01a1fd81-a93f-7755-8b76-3772ed650636"
    async with (
        serving(create_app(runtime, schema=small.schema)) as port,
        socket_to(port, token=tenant.key.token) as socket,
    ):
        await socket.initialise()
        # Were the first key remembered from one operation to the next, one would be loaded.
        for keys in ([one], [one, two]):
            fields = " ".join(f'k{n}: loaded(key: "{key}")' for n, key in enumerate(keys))
            await socket.subscribe(f"{{ {fields} }}")
            answer = (await socket.receive())["payload"]["data"]
            assert set(answer.values()) == {len(keys)}
            assert (await socket.receive())["type"] == "complete"


# The server under it.


def test_the_server_is_the_fast_one_and_takes_no_message_larger_than_it_must() -> None:
    config = serve._config(Starlette(), tls=None, grace_seconds=1)
    assert config.loop == "uvloop"
    assert config.http_protocol_class is HttpToolsProtocol
    assert config.ws_protocol_class is not None
    assert "websockets" in config.ws_protocol_class.__module__
    assert config.ws_max_size == serve.WEBSOCKET_MESSAGE_BYTES_MAX
    assert MESSAGE_BYTES_MAX < config.ws_max_size <= 4 * MESSAGE_BYTES_MAX
