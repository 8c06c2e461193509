"""Short ways to create things through GraphQL, for tests."""

import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx2
import sqlalchemy as sa
import strawberry

from aforo.api.app import create_app
from aforo.api.parts.relay import global_id, local_id
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant

GraphQL = Callable[..., Awaitable[dict[str, Any]]]

LISTS = ("products", "meters", "costRates", "ratePlans", "entitlements", "offerings", "discounts")
COUNTS = "{" + " ".join(f"{name} {{ edges {{ cursor }} }}" for name in LISTS) + "}"

_DOCUMENT = """
mutation ($input: %(input)s!) {
  result: %(name)s(input: $input) {
    __typename
    ... on Node { id }
    ... on Problem { code message field }
  }
}
"""


async def change(graphql: GraphQL, name: str, /, **given: Any) -> dict[str, Any]:
    """Call a mutation: its type name with the id, or with code, message and field."""
    input_type = f"{name[0].upper()}{name[1:]}Input"
    data = await graphql(_DOCUMENT % {"name": name, "input": input_type}, input=given)
    result: dict[str, Any] = data["result"]
    return result


async def made(graphql: GraphQL, name: str, /, **given: Any) -> str:
    """Call a mutation that must succeed; the id of what it made."""
    result = await change(graphql, name, **given)
    assert "id" in result, result
    made_id: str = result["id"]
    return made_id


async def new_key(graphql: GraphQL, *scopes: str) -> tuple[str, str]:
    """Make an API key; its id and its token."""
    made = await graphql(
        "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) "
        "{ ... on NewApiKey { token apiKey { id } } } }",
        input={"name": "of a test", "scopes": scopes},
    )
    return made["createApiKey"]["apiKey"]["id"], made["createApiKey"]["token"]


def no_such(kind: str) -> str:
    """A well-formed id of something that nobody has."""
    return global_id(kind, uuid4())


def problem(result: dict[str, Any]) -> tuple[str, str, str | None]:
    """The type, code and field of a problem."""
    return result["__typename"], result["code"], result["field"]


def meter(**more: Any) -> dict[str, Any]:
    """Input of a meter that sums the tokens of requests."""
    return {
        "code": "tokens",
        "name": "Tokens",
        "eventType": "llm.request",
        "aggregation": "SUM",
        "property": "tokens",
        **more,
    }


def line(meter_id: str | None, **more: Any) -> dict[str, Any]:
    """Input of a line that charges one cent per unit."""
    return {
        "code": "tokens",
        "name": "Tokens",
        "model": "PER_UNIT",
        "settings": {"unitPrice": "0.01"},
        "meterId": meter_id,
        **more,
    }


def plan(*lines: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Input of a rate plan in dollars."""
    return {"code": "pro", "name": "Pro", "currency": "USD", "lines": list(lines), **more}


def customer(**more: Any) -> dict[str, Any]:
    """Input of a customer who pays in dollars."""
    return {"externalId": "acme", "name": "Acme", "currency": "USD", **more}


async def offering(graphql: GraphQL, *, code: str = "pro", currency: str = "USD") -> str:
    """Make an offering that prices a meter of its own, and what it needs; its id."""
    meter_id = await made(graphql, "createMeter", **meter(code=f"{code}-tokens"))
    plan_id = await made(
        graphql, "createRatePlan", **plan(line(meter_id), code=code, currency=currency)
    )
    product_id = await made(graphql, "createProduct", code=code, name=code)
    return await made(
        graphql, "createOffering", code=code, name=code, productId=product_id, ratePlanId=plan_id
    )


def http(runtime: Runtime, tenant: NewTenant) -> httpx2.AsyncClient:
    """The application over HTTP, in this process, called with a tenant's key."""
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(runtime)),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    )


def in_production(runtime: Runtime) -> Runtime:
    """The same pools under the settings of production, without what is for development alone."""
    settings = dataclasses.replace(runtime.settings, production=True, allow_loopback_calls=False)
    return dataclasses.replace(runtime, settings=settings)


def poster(client: httpx2.AsyncClient) -> GraphQL:
    """Post documents with a client; no error may come back, only data."""

    async def post(document: str, **variables: Any) -> dict[str, Any]:
        response = await client.post("/graphql", json={"query": document, "variables": variables})
        answer = response.json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    return post


@contextmanager
def statements(runtime: Runtime) -> Iterator[list[str]]:
    """The SELECTs that the application sends meanwhile, those that only open a scope apart."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT") and "set_config" not in statement:
            seen.append(statement)

    engine = runtime.app.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def counts(graphql: GraphQL) -> dict[str, int]:
    """How many things of each kind the catalogue has, at most a page; none is absent."""
    data = await graphql(COUNTS)
    return {name: len(data[name]["edges"]) for name in LISTS if data[name]["edges"]}


def row_id(global_id: str, kind: str) -> Any:
    """The id within the tenant."""
    return local_id(kind, strawberry.ID(global_id))
