"""The client gql, from Python: over HTTP and over a WebSocket, with the schema that it fetches."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from gql import Client, gql
from gql.dsl import DSLQuery, DSLSchema, dsl_gql
from gql.transport.async_transport import AsyncTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import GraphQLError
from websockets.exceptions import ConnectionClosed

from tests.api.forms import GraphQL, made
from tests.clients.conftest import Address

TIMEOUT_SECONDS = 60


def over_http(address: Address) -> AsyncTransport:
    return HTTPXAsyncTransport(
        f"{address.url}/graphql", headers={"Authorization": f"Bearer {address.key}"}
    )


def over_a_socket(address: Address) -> AsyncTransport:
    return WebsocketsTransport(
        f"{address.url}/graphql".replace("http", "ws", 1),
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        init_payload={"Authorization": f"Bearer {address.key}"},
    )


TRANSPORTS = [over_http, over_a_socket]


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """Whatever does not come fails the test."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        yield


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_reads_the_schema_and_builds_documents_from_it(
    address: Address, transport: Callable[[Address], AsyncTransport]
) -> None:
    client = Client(transport=transport(address), fetch_schema_from_transport=True)
    async with client as session:
        assert client.schema is not None
        schema = DSLSchema(client.schema)
        built = dsl_gql(DSLQuery(schema.Query.tenant.select(schema.Tenant.name)))
        assert await session.execute(built) == {"tenant": {"name": "Test tenant"}}
        with pytest.raises(GraphQLError, match="Cannot query field 'nothing'"):
            await session.execute(gql("{ nothing }"))  # Before it is sent.


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_goes_through_pages_and_changes_things(
    address: Address, graphql: GraphQL, transport: Callable[[Address], AsyncTransport]
) -> None:
    names = [f"customer-{number}" for number in range(7)]
    for name in names:
        await made(graphql, "createCustomer", externalId=name, name=name, currency="USD")
    pages = gql(
        "query ($after: String) { customers(first: 3, after: $after) { edges { node { name } } "
        "pageInfo { hasNextPage endCursor } } }"
    )
    rename = gql(
        "mutation ($input: CreateCustomerInput!) { createCustomer(input: $input) { __typename } }"
    )
    async with Client(transport=transport(address)) as session:
        seen: list[str] = []
        after = None
        while True:
            pages.variable_values = {"after": after}
            page = (await session.execute(pages))["customers"]
            seen += [edge["node"]["name"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                break
            after = page["pageInfo"]["endCursor"]
        assert seen == names
        rename.variable_values = {"input": {"externalId": "a", "name": "A", "currency": "USD"}}
        assert (await session.execute(rename))["createCustomer"] == {"__typename": "Customer"}
        assert (await session.execute(rename))["createCustomer"] == {
            "__typename": "ConflictProblem"
        }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_the_server_refuses_is_an_exception_with_its_code(
    address: Address, transport: Callable[[Address], AsyncTransport]
) -> None:
    async with Client(transport=transport(address)) as session:
        with pytest.raises(TransportQueryError) as caught:
            await session.execute(gql("{ nothing }"))
        assert caught.value.errors is not None
        assert caught.value.errors[0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


async def test_who_has_no_key_is_told_so(address: Address) -> None:
    stranger = Address(address.url, "afo_live_nobody")
    async with Client(transport=over_http(stranger)) as session:
        with pytest.raises(TransportQueryError) as caught:
            await session.execute(gql("{ __typename }"))
    assert caught.value.errors is not None
    assert caught.value.errors[0]["extensions"]["code"] == "UNAUTHENTICATED"
    with pytest.raises(TransportConnectionFailed) as failed:
        async with Client(transport=over_a_socket(stranger)):
            pass
    closed = failed.value.__cause__
    assert isinstance(closed, ConnectionClosed)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 4401


async def test_a_subscription_gives_what_happens(happening: Address) -> None:
    events = gql("subscription { events { idempotencyKey } }")
    async with Client(transport=over_a_socket(happening)) as session:
        async for answer in session.subscribe(events):
            assert answer["events"]["idempotencyKey"].startswith("live-")
            break
