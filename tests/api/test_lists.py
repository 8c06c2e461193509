"""Lists through GraphQL: conditions, orders, totals, and cursors that know their order."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from graphql import build_schema, get_named_type

from aforo.api.schema import schema_text
from tests.api.forms import GraphQL, made, no_such
from tests.api.shop import Shop

CUSTOMERS = """
query ($first: Int, $after: String, $orderBy: CustomerOrder!, $prefix: String, $segment: String) {
  customers(
    first: $first, after: $after, orderBy: $orderBy, namePrefix: $prefix, segment: $segment
  ) {
    totalCount
    edges { node { externalId } }
    pageInfo { hasNextPage endCursor }
  }
}
"""


@pytest.fixture
async def customers(graphql: GraphQL) -> None:
    for external_id, name, segment in (
        ("3", "acme", "smb"),
        ("1", "Beta", "enterprise"),
        ("2", "ACME Labs", "enterprise"),
    ):
        await made(
            graphql,
            "createCustomer",
            externalId=external_id,
            name=name,
            segment=segment,
            currency="USD",
        )


async def listed(graphql: GraphQL, **variables: Any) -> tuple[list[str], int]:
    variables = {"orderBy": "OLDEST_FIRST", **variables}
    page = (await graphql(CUSTOMERS, **variables))["customers"]
    return [edge["node"]["externalId"] for edge in page["edges"]], page["totalCount"]


@pytest.mark.usefixtures("customers")
async def test_customers_are_listed_in_every_order(graphql: GraphQL) -> None:
    orders = {
        "OLDEST_FIRST": ["3", "1", "2"],
        "NEWEST_FIRST": ["2", "1", "3"],
        "NAME_ASC": ["3", "2", "1"],
        "NAME_DESC": ["1", "2", "3"],
        "EXTERNAL_ID_ASC": ["1", "2", "3"],
        "EXTERNAL_ID_DESC": ["3", "2", "1"],
    }
    for order, expected in orders.items():
        assert await listed(graphql, orderBy=order) == (expected, 3)


@pytest.mark.usefixtures("customers")
async def test_conditions_hold_together_and_the_total_counts_what_meets_them(
    graphql: GraphQL,
) -> None:
    assert await listed(graphql, prefix="ac") == (["3", "2"], 2)
    assert await listed(graphql, segment="enterprise") == (["1", "2"], 2)
    assert await listed(graphql, prefix="AC", segment="enterprise") == (["2"], 1)
    assert await listed(graphql, prefix="ac", first=1) == (["3"], 2)
    assert await listed(graphql, segment="none") == ([], 0)


@pytest.mark.usefixtures("customers")
async def test_a_cursor_is_good_in_its_own_order_alone(
    graphql: GraphQL, client: httpx2.AsyncClient
) -> None:
    variables: dict[str, Any] = {"orderBy": "NAME_ASC", "first": 1}
    page = (await graphql(CUSTOMERS, **variables))["customers"]
    cursor = page["pageInfo"]["endCursor"]
    assert (await listed(graphql, orderBy="NAME_ASC", after=cursor))[0] == ["2", "1"]
    for order in ("OLDEST_FIRST", "EXTERNAL_ID_ASC"):
        asked = {"query": CUSTOMERS, "variables": {"orderBy": order, "after": cursor}}
        errors = (await client.post("/graphql", json=asked)).json()["errors"]
        assert errors[0]["extensions"] == {"code": "BAD_CURSOR", "field": "after"}


async def test_what_is_below_a_thing_is_counted_too(graphql: GraphQL, billed: Shop) -> None:
    found = await graphql(
        """
        query ($id: ID!) {
          customer(id: $id) {
            subscriptions(first: 0) { totalCount }
            teams { totalCount }
            wallets { grants { totalCount } }
          }
          invoices(state: FINALIZED, orderBy: PERIOD_START_DESC) {
            totalCount
            edges { node { lines { sourceEvents(first: 1) { totalCount edges { cursor } } } } }
          }
          events(customerId: $id, first: 1) { totalCount }
          billRuns(state: DONE) { totalCount }
          subscriptions(customerId: $id, state: ACTIVE) { totalCount }
        }
        """,
        id=billed.customer_id,
    )
    assert found["customer"] == {
        "subscriptions": {"totalCount": 1},
        "teams": {"totalCount": 0},
        "wallets": [{"grants": {"totalCount": 1}}],
    }
    (invoice,) = found["invoices"]["edges"]
    usage = invoice["node"]["lines"][1]["sourceEvents"]
    assert (usage["totalCount"], len(usage["edges"])) == (5, 1)
    assert found["events"]["totalCount"] == 5
    assert found["billRuns"]["totalCount"] == 1
    assert found["subscriptions"]["totalCount"] == 1


async def test_a_condition_on_what_is_not_there_finds_nothing(
    graphql: GraphQL, billed: Shop
) -> None:
    found = await graphql(
        """
        query ($customer: ID, $offering: ID, $subscription: ID, $signal: ID) {
          subscriptions(offeringId: $offering) { totalCount }
          ended: subscriptions(state: TERMINATED) { totalCount }
          invoices(customerId: $customer, subscriptionId: $subscription) { totalCount }
          actions(signalId: $signal, tier: BLOCK) { totalCount }
          signals(level: ALERT, detector: "none") { totalCount }
          meters(code: "none", eventType: "none") { totalCount }
          costRates(meterCode: "none") { totalCount }
        }
        """,
        customer=no_such("Customer"),
        offering=no_such("Offering"),
        subscription=no_such("CustomerSubscription"),
        signal=no_such("Signal"),
    )
    assert {name: page["totalCount"] for name, page in found.items()} == dict.fromkeys(found, 0)


def test_the_manual_has_every_list_with_its_conditions(repository: Path) -> None:
    page = (repository / "docs/lists.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (`.+) \|$", page, re.MULTILINE)
    told = {
        name: set(re.findall(r"`(\w+)`", conditions)) - {"endCursor"}
        for names, conditions in rows
        for name in re.findall(r"\w+", names)
    }
    query = build_schema(schema_text()).query_type
    assert query is not None
    there = {
        name: set(field.args) - {"first", "after", "orderBy"}
        for name, field in query.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
    }
    assert told == {name: conditions for name, conditions in there.items() if conditions}
