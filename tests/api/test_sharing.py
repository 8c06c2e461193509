"""What readers of a live message share, and what keeps them apart."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest
from graphql import OperationDefinitionNode, parse

from aforo.api.parts.context import Context
from aforo.api.parts.sharing import SharedResults
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.models import Environment
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import Caller, CallerKind
from tests.api.listening import listening
from tests.api.test_streams import announce_events

pytestmark = pytest.mark.anyio

ONE_USE = parse("subscription($after: String, $x: Boolean!) { events(after: $after) { cost } }")
TWO_USES = parse(
    "subscription($after: String) { invoices(after: $after) { lines(after: $after) { id } } }"
)


def key(runtime: Runtime, document: Any, *permissions: Permission, **variables: object) -> object:
    caller = Caller(
        tenant_id=TenantId(uuid4()),
        kind=CallerKind.API_KEY,
        id=uuid4(),
        permissions=frozenset(permissions),
        environment=Environment.LIVE,
    )
    definition = document.definitions[0]
    assert isinstance(definition, OperationDefinitionNode)
    return SharedResults(document, definition, variables, Context(runtime, caller, "id"))._key


async def test_where_a_reader_goes_on_does_not_keep_it_apart(runtime: Runtime) -> None:
    one = key(runtime, ONE_USE, Permission.USAGE_READ, after="a", x=True)
    assert one == key(runtime, ONE_USE, Permission.USAGE_READ, after="b", x=True)
    assert one == key(runtime, ONE_USE, Permission.USAGE_READ, x=True)


async def test_other_variables_documents_and_permissions_do(runtime: Runtime) -> None:
    one = key(runtime, ONE_USE, Permission.USAGE_READ, x=True)
    assert one != key(runtime, ONE_USE, Permission.USAGE_READ, x=False)
    assert one != key(runtime, ONE_USE, Permission.USAGE_READ, Permission.BILLING_READ, x=True)
    assert one != key(runtime, TWO_USES, Permission.USAGE_READ, x=True)
    assert key(runtime, TWO_USES, after="a") != key(runtime, TWO_USES, after="b")


async def test_readers_who_ask_differently_get_what_they_asked_for(
    runtime: Runtime, tenant_id: TenantId, listener: httpx2.AsyncClient
) -> None:
    query = """subscription($type: Boolean!) {
        events { idempotencyKey type @include(if: $type) properties @skip(if: $type) } }"""
    other = "subscription { events { key: idempotencyKey } }"
    async with (
        listening(listener, query, type=True) as first,
        listening(listener, query, type=True) as second,
        listening(listener, query, type=False) as third,
        listening(listener, other) as fourth,
    ):
        readers = (first, second, third, fourth)
        for reader in readers:
            await reader.opened()
        await announce_events(runtime, tenant_id)(1, text="x")
        told = [(await reader.next())["data"]["events"] for reader in readers]
    with_type = {"idempotencyKey": "1", "type": "llm.request"}
    assert told == [
        with_type,
        with_type,
        {"idempotencyKey": "1", "properties": {"text": "x"}},
        {"key": "1"},
    ]
