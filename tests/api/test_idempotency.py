"""`Idempotency-Key` on mutations: one change, and the first answer to whoever asks again."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from aforo.api.app import create_app
from aforo.api.protocol import idempotency, operations
from aforo.api.types import catalog_changes
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.idempotency import KEPT, IdempotentAnswer, forget_old
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_api_key
from aforo.tenants.permissions import Permission
from tests.api.forms import GraphQL, customer, http, made
from tests.api.server import serving, socket_to

pytestmark = pytest.mark.anyio

CREATE = """
mutation ($input: CreateProductInput!) {
  createProduct(input: $input) {
    __typename
    ... on Product { id code }
    ... on Problem { code }
  }
}
"""
TWO = """
mutation {
  a: createProduct(input: {code: "a", name: "A"}) { __typename }
  b: createProduct(input: {code: "a", name: "B"}) { __typename ... on Problem { code } }
  c: createProduct(input: {code: "c", name: "C"}) { __typename }
}
"""
CODES = "{ products(first: 100) { edges { node { code } } } }"


async def post(
    client: httpx2.AsyncClient, key: str | None, query: str = CREATE, **variables: Any
) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"query": query, "variables": variables}
    return await client.post("/graphql", json=body, headers=headers)


async def codes(graphql: GraphQL) -> list[str]:
    return [edge["node"]["code"] for edge in (await graphql(CODES))["products"]["edges"]]


def product(code: str = "pro") -> dict[str, str]:
    return {"code": code, "name": "Pro"}


async def test_the_same_key_and_body_change_once_and_are_answered_alike(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    first = await post(client, "key-1", input=product())
    assert first.json()["data"]["createProduct"]["__typename"] == "Product"
    assert "Idempotent-Replayed" not in first.headers
    again = await post(client, "key-1", input={"name": "Pro", "code": "pro"})  # Another order.
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await codes(graphql) == ["pro"]


async def test_the_same_key_with_another_body_is_a_conflict_and_changes_nothing(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    await post(client, "key-1", input=product())
    for query, code in ((CREATE, "other"), (CREATE.replace("id code", "code"), "pro")):
        refused = await post(client, "key-1", query, input=product(code))
        assert refused.status_code == 409
        assert refused.json()["errors"][0]["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert await codes(graphql) == ["pro"]


async def test_fifty_senders_of_one_key_make_one_change_and_get_one_answer(
    client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant, graphql: GraphQL
) -> None:
    async with http(runtime, tenant) as elsewhere:  # An application of its own, as in a process.
        answers = await asyncio.gather(
            *(post(one, "key-50", input=product()) for one in [client, elsewhere] * 25)
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["data"]["createProduct"]["__typename"] == "Product"
    replayed = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
    assert len(replayed) == 49
    assert await codes(graphql) == ["pro"]


async def test_a_problem_is_an_answer_too(client: httpx2.AsyncClient, graphql: GraphQL) -> None:
    await post(client, None, input=product())
    first = await post(client, "key-1", input=product())
    assert first.json()["data"]["createProduct"]["__typename"] == "ConflictProblem"
    again = await post(client, "key-1", input=product())
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_what_is_read_of_the_new_thing_is_read_in_the_same_transaction(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    customer_id = await made(graphql, "createCustomer", **customer())
    query = """
    mutation ($input: CreateTeamInput!) {
      createTeam(input: $input) {
        ... on Team { customer { name teams { edges { node { code } } } wallets { id } } }
      }
    }
    """
    given = {"customerId": customer_id, "code": "research", "name": "Research"}
    first = await post(client, "key-1", query, input=given)
    assert first.json()["data"]["createTeam"]["customer"] == {
        "name": "Acme",
        "teams": {"edges": [{"node": {"code": "research"}}]},
        "wallets": [],
    }
    assert (await post(client, "key-1", query, input=given)).content == first.content


async def test_a_field_with_a_problem_leaves_the_other_fields_as_they_are(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    first = await post(client, "key-1", TWO)
    kinds = [field["__typename"] for field in first.json()["data"].values()]
    assert kinds == ["Product", "ConflictProblem", "Product"]
    assert (await post(client, "key-1", TWO)).content == first.content
    assert await codes(graphql) == ["a", "c"]


async def test_a_fault_of_ours_undoes_every_field_and_the_key_can_be_sent_again(
    client: httpx2.AsyncClient, graphql: GraphQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = catalog_changes.commands.create_product

    async def failing(scope: Any, *, code: str, name: str) -> Any:
        row = await create(scope, code=code, name=name)
        assert code != "c", "a bug after the row was written"
        return row

    monkeypatch.setattr(catalog_changes.commands, "create_product", failing)
    with capture_logs() as logged:  # Written out, with every local, the stack takes seconds.
        broken = await post(client, "key-1", TWO)
    assert "a resolver failed" in {each["event"] for each in logged}
    answer = broken.json()
    assert answer["data"] is None
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["INTERNAL"]
    assert await codes(graphql) == []
    monkeypatch.undo()
    assert (await post(client, "key-1", TWO)).json()["data"]["c"] == {"__typename": "Product"}
    assert await codes(graphql) == ["a", "c"]


async def test_an_operation_that_takes_too_long_changes_nothing_and_can_be_sent_again(
    client: httpx2.AsyncClient, graphql: GraphQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = catalog_changes.commands.create_product

    async def stuck(scope: Any, **given: Any) -> Any:
        await create(scope, **given)
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(catalog_changes.commands, "create_product", stuck)
        patched.setattr(operations, "OPERATION_TIMEOUT_SECONDS", 0.2)
        slow = await post(client, "key-1", input=product())
    assert slow.status_code == 503
    assert slow.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"
    assert await codes(graphql) == []
    again = await post(client, "key-1", input=product())
    assert again.json()["data"]["createProduct"]["__typename"] == "Product"


async def test_a_request_that_was_not_carried_out_keeps_no_key(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    refused = await post(client, "key-1", input={"code": 1})
    assert "data" not in refused.json()
    made = await post(client, "key-1", input=product())
    assert made.json()["data"]["createProduct"]["__typename"] == "Product"


async def test_who_waits_too_long_for_the_first_sender_is_told_to_come_back(
    client: httpx2.AsyncClient,
    runtime: Runtime,
    tenant: NewTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = catalog_changes.commands.create_product
    may_end = asyncio.Event()
    has_begun = asyncio.Event()

    async def slow(scope: Any, **given: Any) -> Any:
        has_begun.set()
        await may_end.wait()
        return await create(scope, **given)

    monkeypatch.setattr(catalog_changes.commands, "create_product", slow)
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 0.2)
    first = asyncio.create_task(post(client, "key-1", input=product()))
    async with asyncio.timeout(60):
        await has_begun.wait()
    async with http(runtime, tenant) as elsewhere:
        for sender in (client, elsewhere):  # In the same process, and in another one.
            early = await post(sender, "key-1", input=product())
            assert early.status_code == 409
            assert early.headers["Retry-After"] == "1"
            error = early.json()["errors"][0]
            assert error["extensions"]["code"] == "IDEMPOTENCY_IN_PROGRESS"
    may_end.set()
    assert (await first).json()["data"]["createProduct"]["__typename"] == "Product"
    assert (await post(client, "key-1", input=product())).content == (await first).content


async def test_a_key_is_that_of_its_caller_alone(
    client: httpx2.AsyncClient, runtime: Runtime, tenant_id: TenantId, graphql: GraphQL
) -> None:
    async with runtime.scope(tenant_id) as scope:
        other = await create_api_key(
            scope, name="other", scopes=list(Permission), pepper=runtime.settings.key_pepper
        )
    await post(client, "key-1", input=product())
    headers = {"Authorization": f"Bearer {other.token}"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)),
        base_url="http://aforo.test",
        headers=headers,
    ) as second:
        made = await post(second, "key-1", input=product("other"))
    assert made.json()["data"]["createProduct"]["__typename"] == "Product"
    assert await codes(graphql) == ["pro", "other"]


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "é"])
async def test_a_key_that_is_none_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    body = {"query": CREATE, "variables": {"input": product()}}
    for headers, extensions in (
        ({"Idempotency-Key": key.encode()}, {}),
        ({}, {"idempotencyKey": key}),
    ):
        sent = {**body, "extensions": extensions}
        response = await client.post("/graphql", json=sent, headers=headers)
        assert response.status_code == 400, response.text
        assert response.json()["errors"][0]["extensions"]["code"] == "BAD_IDEMPOTENCY_KEY"


async def test_deep_variables_are_the_clients_mistake_with_a_key_too(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    for nesting, status in ((operations.NESTING_MAX - 1, 200), (400, 400)):
        deep = json.loads('{"a":' * nesting + "1" + "}" * nesting)
        answer = await post(client, f"key-{nesting}", input=product(f"p{nesting}"), more=deep)
        assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert await codes(graphql) == [f"p{operations.NESTING_MAX - 1}"]


async def test_a_query_takes_no_notice_of_a_key(client: httpx2.AsyncClient) -> None:
    for query in ("{ __typename }", "{ tenant { name } }"):
        answer = await post(client, "key-1", query)
        assert "errors" not in answer.json()


async def test_after_a_day_a_key_is_new_again_and_the_answer_is_forgotten(
    client: httpx2.AsyncClient, runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    first = await post(client, "key-1", input=product())
    clock.advance(KEPT - timedelta(seconds=1))
    assert (await post(client, "key-1", input=product())).content == first.content
    clock.advance(timedelta(seconds=1))
    other = await post(client, "key-1", input=product("other"))  # Before anybody swept.
    assert other.json()["data"]["createProduct"]["__typename"] == "Product"
    await post(client, "key-2", input=product("third"))
    clock.advance(KEPT)
    await forget_old(runtime)
    async with runtime.scope(tenant_id) as scope:
        count = sa.select(sa.func.count()).select_from(IdempotentAnswer)
        assert await scope.db.scalar(count) == 0


async def test_a_token_that_is_shown_once_is_kept_encrypted(
    client: httpx2.AsyncClient, runtime: Runtime, tenant_id: TenantId
) -> None:
    query = """mutation { createApiKey(input: {name: "k", scopes: [USAGE_READ]}) {
      ... on NewApiKey { token } } }"""
    first = await post(client, "key-1", query)
    token = first.json()["data"]["createApiKey"]["token"]
    assert (await post(client, "key-1", query)).json()["data"]["createApiKey"]["token"] == token
    async with runtime.scope(tenant_id) as scope:
        stored = await scope.db.scalar(sa.select(IdempotentAnswer.body))  # type: ignore[call-overload]
    assert len(stored) > len(token)
    assert token.encode() not in stored
    assert b"token" not in stored


async def test_an_answer_that_is_too_large_to_be_kept_is_refused_with_its_change(
    client: httpx2.AsyncClient, graphql: GraphQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "ANSWER_BYTES_MAX", 20)
    refused = (await post(client, "key-1", input=product())).json()
    assert refused["errors"][0]["extensions"]["code"] == "ANSWER_TOO_LARGE"
    assert await codes(graphql) == []


async def test_a_websocket_and_an_event_stream_take_the_key_too(
    client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant, graphql: GraphQL
) -> None:
    first = (await post(client, "key-1", input=product())).json()
    payload = {
        "query": CREATE,
        "variables": {"input": product()},
        "extensions": {"idempotencyKey": "key-1"},
    }
    expected = {**first, "extensions": {**first["extensions"], "idempotentReplayed": True}}
    async with (
        serving(create_app(runtime)) as port,
        socket_to(port, token=tenant.key.token) as socket,
    ):
        await socket.initialise()
        await socket.send({"id": "1", "type": "subscribe", "payload": payload})
        assert (await socket.receive())["payload"] == expected
    streamed = await client.post("/graphql", json=payload, headers={"Accept": "text/event-stream"})
    assert json.loads(streamed.text.split("data: ")[1].splitlines()[0]) == expected
    assert await codes(graphql) == ["pro"]
