"""The event log and the quarantine through the API."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.api.forms import GraphQL
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]

EVENTS = """
query($customerId: ID, $type: String, $first: Int, $after: String) {
  events(customerId: $customerId, type: $type, first: $first, after: $after) {
    edges { node { eventId idempotencyKey properties } }
    pageInfo { hasNextPage endCursor }
  }
}
"""


async def test_the_latest_events_come_first_with_exact_properties(
    graphql: GraphQL, billed: Shop, client: httpx2.AsyncClient
) -> None:
    seen, after, more = [], None, True
    while more:
        page = (await graphql(EVENTS, first=2, after=after))["events"]
        seen += [edge["node"]["idempotencyKey"] for edge in page["edges"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert seen == [f"2026-10-{n}" for n in (4, 3, 2, 1, 0)]
    for wanted, count in (
        ({"customerId": billed.customer_id}, 5),
        ({"type": "llm.request"}, 5),
        ({"type": "nothing"}, 0),
    ):
        assert len((await graphql(EVENTS, **wanted))["events"]["edges"]) == count
    text = (await client.post("/graphql", json={"query": EVENTS})).text
    assert '"properties":{"model":"small","tokens":0.4}' in text
    assert '"properties":{"model":"small","tokens":"0.1"}' in text


@pytest.mark.parametrize(
    "name", ["'", '"', "\\", "\\'", "\n\t", "{customer:UUID}", "%s", "\\N", "é漢🙂", "x" * 100_000]
)
async def test_a_name_from_outside_is_only_ever_a_value(
    graphql: GraphQL, billed: Shop, name: str
) -> None:
    assert (await graphql(EVENTS, type=name))["events"]["edges"] == []
    assert len((await graphql(EVENTS))["events"]["edges"]) == 5


@pytest.mark.parametrize(
    "cursor",
    ["x", "MQ", "MSAy!", "MSBh", "LTEgMg", "MSAtMg", "MSAyIDM", "OTk5OTk5OTk5OTk5OTk5OTk5OTkgMQ"],
)
async def test_a_forged_place_in_the_log_is_refused(
    client: httpx2.AsyncClient, cursor: str
) -> None:
    asked = {"query": EVENTS, "variables": {"after": cursor}}
    [error] = (await client.post("/graphql", json=asked)).json()["errors"]
    assert error["extensions"]["code"] == "BAD_CURSOR"


async def test_what_cannot_be_placed_is_shown_in_quarantine(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    answer = await send({**call(1, 5), "customer": "nobody"})
    assert answer["quarantined"] == 1
    query = """
    query($code: String) { quarantinedEvents(code: $code) {
      edges { node { id code message event receivedAt } }
    } }
    """
    [edge] = (await graphql(query))["quarantinedEvents"]["edges"]
    assert edge["node"]["code"] == "UNKNOWN_CUSTOMER"
    assert edge["node"]["event"]["customer"] == "nobody"
    assert (await graphql(query, code="UNKNOWN_METER"))["quarantinedEvents"]["edges"] == []
    assert len((await graphql(query, code="UNKNOWN_CUSTOMER"))["quarantinedEvents"]["edges"]) == 1
    again = await graphql("query($id: ID!) { node(id: $id) { id } }", id=edge["node"]["id"])
    assert again["node"]["id"] == edge["node"]["id"]
