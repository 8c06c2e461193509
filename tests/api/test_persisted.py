"""Persisted documents: uploaded, run by their id over every transport, and taken alone."""

import dataclasses
import json
from hashlib import sha256
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.protocol.documents import Documents, Request
from aforo.api.schema import schema
from aforo.callers import commands
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import http, new_key
from tests.api.server import serving, socket_to
from tests.conftest import GraphQL

pytestmark = pytest.mark.anyio

TENANT = "query Tenant { tenant { name } }"
ANSWER = {"tenant": {"name": "Test tenant"}}
TYPENAME = "query Kind($upper: Boolean = false) { __typename @skip(if: $upper) tenant { id } }"
UPLOAD = """mutation($input: UploadPersistedDocumentsInput!) {
  uploadPersistedDocuments(input: $input) { __typename
    ... on PersistedDocumentsStored { stored known }
    ... on PersistedDocumentsProblem { faults { documentId code message } }
    ... on Problem { code message field } } }"""
LIST = "{ persistedDocuments { edges { node { documentId text createdAt } } } }"
REMOVE = """mutation($input: RemovePersistedDocumentsInput!) {
  removePersistedDocuments(input: $input) { __typename
    ... on PersistedDocumentsRemoved { removed } ... on Problem { code } } }"""


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


async def _upload(graphql: GraphQL, documents: dict[str, str]) -> dict[str, Any]:
    given = [{"documentId": id_, "text": text} for id_, text in documents.items()]
    answer: dict[str, Any] = (await graphql(UPLOAD, input={"documents": given}))[
        "uploadPersistedDocuments"
    ]
    return answer


@pytest.fixture
async def stored(graphql: GraphQL) -> str:
    """The id of a document that was uploaded, as clients send it."""
    assert (await _upload(graphql, {_hash(TENANT): TENANT}))["stored"] == 1
    return f"sha256:{_hash(TENANT)}"


async def test_a_document_is_run_by_its_id(client: httpx2.AsyncClient, stored: str) -> None:
    for id_ in (stored, stored.removeprefix("sha256:")):
        posted = await client.post("/graphql", json={"documentId": id_})
        assert posted.json()["data"] == ANSWER
        asked = await client.get("/graphql", params={"documentId": id_})
        assert asked.json()["data"] == ANSWER
        streamed = await client.post(
            "/graphql", json={"documentId": id_}, headers={"Accept": "text/event-stream"}
        )
        [data] = [line for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert json.loads(data.removeprefix("data: "))["data"] == ANSWER


async def test_a_socket_takes_ids_too(runtime: Runtime, tenant: NewTenant, stored: str) -> None:
    async with (
        serving(create_app(runtime)) as port,
        socket_to(port, token=tenant.key.token) as socket,
    ):
        await socket.initialise()
        await socket.send({"id": "1", "type": "subscribe", "payload": {"documentId": stored}})
        assert (await socket.receive())["payload"]["data"] == ANSWER
        assert (await socket.receive())["type"] == "complete"
        unknown = {"documentId": "sha256:" + "0" * 64}
        await socket.send({"id": "2", "type": "subscribe", "payload": unknown})
        [error] = (await socket.receive())["payload"]
        assert error["extensions"]["code"] == "PERSISTED_DOCUMENT_NOT_FOUND"


async def test_apollos_form_is_read(client: httpx2.AsyncClient, stored: str) -> None:
    def asked(text: str, **more: str) -> dict[str, Any]:
        persisted = {"version": 1, "sha256Hash": _hash(text)}
        return {"extensions": {"persistedQuery": persisted}, **more}

    assert (await client.post("/graphql", json=asked(TENANT))).json()["data"] == ANSWER
    by_get = {"extensions": json.dumps(asked(TENANT)["extensions"])}
    assert (await client.get("/graphql", params=by_get)).json()["data"] == ANSWER
    [missed] = (await client.post("/graphql", json=asked(TYPENAME))).json()["errors"]
    assert missed["message"] == "PersistedQueryNotFound"  # Its clients send the text then.
    assert missed["extensions"]["code"] == "PERSISTED_DOCUMENT_NOT_FOUND"
    sent = await client.post("/graphql", json=asked(TYPENAME, query=TYPENAME))
    assert sent.json()["data"]["__typename"] == "Query"
    # Nothing was stored by that: who may upload does so on purpose.
    assert "errors" in (await client.post("/graphql", json=asked(TYPENAME))).json()
    wrong = await client.post("/graphql", json=asked(TENANT, query=TYPENAME))
    assert wrong.status_code == 400
    for persisted in (1, {}, {"sha256Hash": 5}, {"sha256Hash": "xyz"}):
        odd = await client.post("/graphql", json={"extensions": {"persistedQuery": persisted}})
        assert odd.json()["errors"][0]["extensions"]["code"] in {"BAD_REQUEST", "BAD_DOCUMENT_ID"}


async def test_an_unknown_id_is_told_as_such(client: httpx2.AsyncClient) -> None:
    body = {"documentId": "sha256:" + "0" * 64}
    for accept, status in (("application/graphql-response+json", 400), ("application/json", 200)):
        answer = await client.post("/graphql", json=body, headers={"Accept": accept})
        assert answer.status_code == status
        [error] = answer.json()["errors"]
        assert error["extensions"]["code"] == "PERSISTED_DOCUMENT_NOT_FOUND"
    for id_ in ("sha256:xyz", "", "a b", 5, "x" * 129):
        [error] = (await client.post("/graphql", json={"documentId": id_})).json()["errors"]
        assert error["extensions"]["code"] == "BAD_DOCUMENT_ID"
    both = await client.post("/graphql", json={**body, "query": "{ __typename }"})
    assert both.status_code == 400


async def test_an_id_of_another_tenant_is_unknown(
    other: GraphQL, client: httpx2.AsyncClient
) -> None:
    await _upload(other, {"theirs": TENANT})
    [error] = (await client.post("/graphql", json={"documentId": "theirs"})).json()["errors"]
    assert error["extensions"]["code"] == "PERSISTED_DOCUMENT_NOT_FOUND"


async def test_a_key_can_be_held_to_persisted_documents(
    client: httpx2.AsyncClient, graphql: GraphQL, stored: str
) -> None:
    key_id, token = await new_key(graphql, "CATALOG_READ")
    policy = "mutation($input: SetApiPolicyInput!) { setApiPolicy(input: $input) { __typename } }"
    await graphql(policy, input={"apiKeyId": key_id, "onlyPersisted": True})
    app = {"Authorization": f"Bearer {token}"}

    async def code(body: dict[str, Any]) -> str | None:
        answer = (await client.post("/graphql", json=body, headers=app)).json()
        return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None

    assert await code({"query": "{ __typename }"}) == "PERSISTED_DOCUMENT_REQUIRED"
    assert await code({"documentId": stored}) is None
    sent = {"query": TYPENAME}
    hashed = {"persistedQuery": {"version": 1, "sha256Hash": _hash(TYPENAME)}}
    assert await code({**sent, "extensions": hashed}) == "PERSISTED_DOCUMENT_NOT_FOUND"
    assert (await client.post("/graphql", json=sent)).json()["data"]  # Other keys as before.
    await graphql(policy, input={"onlyPersisted": True})
    refused = (await client.post("/graphql", json=sent)).json()["errors"]
    assert refused[0]["extensions"]["code"] == "PERSISTED_DOCUMENT_REQUIRED"


async def test_every_fault_of_an_upload_is_told_and_nothing_is_stored(graphql: GraphQL) -> None:
    answer = await _upload(
        graphql,
        {
            "good": TENANT,
            "unreadable": "{",
            "unknown field": TENANT,
            "no-such-field": "{ nothing alsoNothing }",
            "0" * 64: TENANT,
            "too-deep": "{ " + "a { " * 12 + "b" + " }" * 13,
            "too-dear": "{ customers(first: 100) { edges { node { "
            + " ".join(f"t{n}: teams(first: 100) {{ edges {{ node {{ id }} }} }}" for n in range(2))
            + " } } } }",
            "too-long": TENANT + " " * commands.TEXT_CHARACTERS_MAX,
        },
    )
    assert answer["__typename"] == "PersistedDocumentsProblem"
    assert answer["code"] == "INVALID_DOCUMENTS"
    faults = [(fault["documentId"], fault["code"]) for fault in answer["faults"]]
    assert faults == [
        ("unreadable", "GRAPHQL_PARSE_FAILED"),
        ("unknown field", "BAD_DOCUMENT_ID"),
        ("no-such-field", "GRAPHQL_VALIDATION_FAILED"),
        ("no-such-field", "GRAPHQL_VALIDATION_FAILED"),
        ("0" * 64, "BAD_DOCUMENT_ID"),
        ("too-deep", "LIMIT_EXCEEDED"),
        ("too-dear", "LIMIT_EXCEEDED"),
        ("too-long", "LIMIT_EXCEEDED"),
    ]
    assert (await graphql(LIST))["persistedDocuments"]["edges"] == []


async def test_what_is_known_stays_and_an_id_is_never_given_another_text(graphql: GraphQL) -> None:
    assert await _upload(graphql, {"a": TENANT}) == {
        "__typename": "PersistedDocumentsStored",
        "stored": 1,
        "known": 0,
    }
    again = await _upload(graphql, {"a": TENANT, "b": TYPENAME})
    assert (again["stored"], again["known"]) == (1, 1)
    other = await _upload(graphql, {"a": TYPENAME})
    assert (other["__typename"], other["code"]) == ("ConflictProblem", "DOCUMENT_ID_TAKEN")
    listed = (await graphql(LIST))["persistedDocuments"]["edges"]
    found = {each["node"]["documentId"]: each["node"]["text"] for each in listed}
    assert found == {"a": TENANT, "b": TYPENAME}


async def test_a_removed_document_is_gone_at_once(
    client: httpx2.AsyncClient, graphql: GraphQL, stored: str
) -> None:
    assert (await client.post("/graphql", json={"documentId": stored})).json()["data"] == ANSWER
    removed = await graphql(REMOVE, input={"documentIds": [stored, "never-was"]})
    assert removed["removePersistedDocuments"]["removed"] == 1
    [error] = (await client.post("/graphql", json={"documentId": stored})).json()["errors"]
    assert error["extensions"]["code"] == "PERSISTED_DOCUMENT_NOT_FOUND"


async def test_a_tenant_stores_so_many_and_no_more(
    graphql: GraphQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "DOCUMENTS_MAX", 2)
    assert (await _upload(graphql, {"a": TENANT, "b": TENANT}))["stored"] == 2
    full = await _upload(graphql, {"c": TENANT})
    assert full["code"] == "TOO_MANY_PERSISTED_DOCUMENTS"
    many = {f"d{number}": TENANT for number in range(commands.UPLOAD_MAX + 1)}
    assert (await _upload(graphql, many))["field"] == "documents"
    twice = [{"documentId": "a", "text": TENANT}] * 2
    refused = (await graphql(UPLOAD, input={"documents": twice}))["uploadPersistedDocuments"]
    assert refused["code"] == "INVALID"


async def test_the_file_of_a_code_generator_is_taken_as_it_is(
    client: httpx2.AsyncClient, graphql: GraphQL
) -> None:
    file = {_hash(TENANT): TENANT, "5ab2c1a1": TYPENAME}
    first = await client.post("/v1/persisted-documents", json=file)
    assert (first.status_code, first.json()) == (200, {"stored": 2, "known": 0})
    log = await graphql("{ auditLog(first: 20) { edges { node { action } } } }")
    actions = [each["node"]["action"] for each in log["auditLog"]["edges"]]
    assert "uploadPersistedDocuments" in actions
    assert (await client.post("/v1/persisted-documents", json=file)).json()["known"] == 2
    taken = await client.post("/v1/persisted-documents", json={"5ab2c1a1": TENANT})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "DOCUMENT_ID_TAKEN")
    faulty = await client.post("/v1/persisted-documents", json={"x": "{ nothing }"})
    assert faulty.status_code == 422
    [fault] = faulty.json()["faults"]
    assert (fault["documentId"], fault["code"]) == ("x", "GRAPHQL_VALIDATION_FAILED")
    for body in ([], {"a": 1}, {}):
        refused = await client.post("/v1/persisted-documents", json=body)
        assert refused.status_code in {400, 422}
    text = await client.post(
        "/v1/persisted-documents", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    assert text.status_code == 415


ONE = """mutation($a: PersistedDocumentInput!) {
  uploadPersistedDocuments(input: { documents: [$a] }) { __typename } }"""
LISTED = """mutation($all: [PersistedDocumentInput!]!) {
  uploadPersistedDocuments(input: { documents: $all }) { __typename } }"""
WRITTEN = """mutation { first: uploadPersistedDocuments(input: { documents: [
  { documentId: "a", text: "{ __typename }" }, { documentId: "b", text: "{ __typename }" }] })
  { __typename } second: uploadPersistedDocuments(input: { documents:
  { documentId: "c", text: "{ __typename }" } }) { __typename } }"""
DEFAULT = """mutation($input: UploadPersistedDocumentsInput! = { documents: [
  { documentId: "a", text: "x" }, { documentId: "b", text: "x" }, { documentId: "c", text: "x" }] })
  { ...up } fragment up on Mutation { uploadPersistedDocuments(input: $input) { __typename } }"""


@pytest.mark.parametrize(
    ("text", "variables", "cost"),
    [
        (UPLOAD, {"input": {"documents": [{}] * 7}}, 2 + 7),
        (UPLOAD, {"input": {"documents": {}}}, 2 + 1),
        (UPLOAD, {"input": None}, 2 + 1),
        (LISTED, {"all": [{}] * 400}, 1 + 400),
        (LISTED, {"all": []}, 1),
        (ONE, {"a": {}}, 1 + 1),
        (WRITTEN, {}, 1 + 2 + 1 + 1),
        (DEFAULT, {}, 1 + 3),
        (DEFAULT, {"input": {"documents": [{}] * 9}}, 1 + 9),
    ],
)
def test_each_document_of_an_upload_costs_a_point(
    text: str, variables: dict[str, Any], cost: int
) -> None:
    documents = Documents(schema, introspection=False)
    for other in ({}, variables, {}, variables):  # Also where it is remembered.
        prepared = documents.prepare(Request(text, other, None))
    assert prepared.cost == cost


async def test_an_upload_that_is_too_dear_for_its_key_is_refused_before_it_is_checked(
    runtime: Runtime, tenant: NewTenant, graphql: GraphQL
) -> None:
    settings = dataclasses.replace(runtime.settings, points_per_second=1)
    slow = dataclasses.replace(runtime, settings=settings)
    file = {f"d{number}": "{ never checked" for number in range(400)}
    async with http(slow, tenant) as client:
        for left in (600, 200):
            faulty = await client.post("/v1/persisted-documents", json=file)
            assert (faulty.status_code, len(faulty.json()["faults"])) == (422, 400)
            assert faulty.headers["x-ratelimit-remaining"] == str(left)
        refused = await client.post("/v1/persisted-documents", json=file)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) == 400 - 200
        given = [{"documentId": id_, "text": text} for id_, text in file.items()]
        body = {"query": UPLOAD, "variables": {"input": {"documents": given}}}
        again = await client.post("/graphql", json=body)
        assert (again.status_code, again.json().get("data")) == (429, None)
        good = await client.post("/v1/persisted-documents", json={"a": TENANT, "b": TENANT})
        assert good.headers["x-ratelimit-remaining"] == "196"
        taken = await client.post("/v1/persisted-documents", json={"a": TYPENAME})
        assert (taken.status_code, taken.headers["x-ratelimit-remaining"]) == (409, "195")
        many = {f"d{number}": TENANT for number in range(commands.UPLOAD_MAX + 1)}
        too_many = await client.post("/v1/persisted-documents", json=many)
        assert too_many.status_code == 429
    assert len((await graphql(LIST))["persistedDocuments"]["edges"]) == 2


async def test_an_upload_needs_permission(client: httpx2.AsyncClient, graphql: GraphQL) -> None:
    _, token = await new_key(graphql, "ACCESS_READ")
    key = {"Authorization": f"Bearer {token}"}
    refused = await client.post("/v1/persisted-documents", json={"a": TENANT}, headers=key)
    assert refused.status_code == 403
    stranger = await client.post(
        "/v1/persisted-documents", json={"a": TENANT}, headers={"Authorization": "Bearer x"}
    )
    assert stranger.status_code == 401
