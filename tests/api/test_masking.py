"""Which errors a client of GraphQL sees, and what it learns of all others."""

from typing import Any

import httpx2
import pytest
import structlog

from aforo.api.protocol import documents, operations
from tests.api import small

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


async def test_a_bug_is_masked_and_found_again_by_the_request_id(
    small_client: httpx2.AsyncClient,
) -> None:
    with structlog.testing.capture_logs() as logged:
        response = await _post(small_client, "{ hello bug }")
    assert response.status_code == 200
    assert small.SECRET not in response.text
    assert "ValueError" not in response.text
    [error] = response.json()["errors"]
    assert response.json()["data"] == {"hello": "hello you", "bug": None}
    assert error["path"] == ["bug"]
    assert error["extensions"] == {
        "code": "INTERNAL",
        "requestId": response.headers["x-request-id"],
    }
    [entry] = [entry for entry in logged if entry["log_level"] == "error"]
    assert entry["request_id"] == response.headers["x-request-id"]
    assert small.SECRET in str(entry["exc_info"][1])


async def test_a_bug_in_a_field_that_cannot_be_null_and_in_a_scalar_is_masked_too(
    small_client: httpx2.AsyncClient,
) -> None:
    for document in ("{ fatalBug }", "{ brokenScalar }"):
        response = await _post(small_client, document)
        assert _code(response) == "INTERNAL"
        assert "nan" not in response.text.lower()
        assert small.SECRET not in response.text
        assert "data" in response.json()


async def test_a_bug_before_execution_is_masked_in_the_form_of_graphql(
    small_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError(small.SECRET)

    monkeypatch.setattr(documents, "_chosen", broken)
    response = await _post(small_client, "{ hello }")
    assert (response.status_code, _code(response)) == (500, "INTERNAL")
    assert response.headers["x-request-id"] in response.text
    assert small.SECRET not in response.text


async def test_errors_that_a_caller_can_act_on_come_through(
    small_client: httpx2.AsyncClient,
) -> None:
    response = await _post(small_client, "{ conflict forbidden }")
    conflict, forbidden = sorted(response.json()["errors"], key=lambda error: error["path"])
    assert conflict["message"] == "the code is taken"
    assert conflict["extensions"] == {"code": "CODE_TAKEN", "field": "code"}
    assert forbidden["extensions"]["code"] == "FORBIDDEN"


async def test_an_engine_that_is_down_is_a_503_with_the_time_to_wait(
    small_client: httpx2.AsyncClient,
) -> None:
    for accept in (JSON, GRAPHQL_JSON):
        response = await _post(small_client, "{ hello down }", accept=accept)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "7"
        assert _code(response) == "UNAVAILABLE"


async def test_an_operation_that_takes_too_long_is_stopped(
    small_client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert operations.OPERATION_TIMEOUT_SECONDS == 30
    monkeypatch.setattr(operations, "OPERATION_TIMEOUT_SECONDS", 0.05)
    response = await _post(small_client, "{ hello slow }")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert _code(response) == "TIMEOUT"
    assert small.WATCH.closed.is_set()


@pytest.mark.parametrize(
    "document",
    [
        "{ helo }",
        "{ item { nam } }",
        "{ hello(nme: 1) }",
        "{ hello @skp(if: true) }",
        "{ ...F } fragment F on Quary { hello }",
        "query($v: Decimall) { twice(value: $v) }",
        "fragment Aaa on Query { hello } { ...Aab }",
    ],
)
async def test_a_guess_is_not_answered_with_the_right_name(
    small_client: httpx2.AsyncClient, document: str
) -> None:
    response = await _post(small_client, document)
    assert "mean" not in response.text
    assert response.json()["errors"]
