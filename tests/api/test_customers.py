"""Customers, their teams, agents and keys through GraphQL, on real engines."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from aforo.sdk import TenantId
from aforo.storage.scope import Runtime
from aforo.subscriptions import queries
from aforo.subscriptions.hierarchy import Place, Unplaced, hash_customer_key
from aforo.subscriptions.models import CustomerKey
from tests.api.forms import (
    GraphQL,
    change,
    customer,
    made,
    no_such,
    offering,
    problem,
    row_id,
    statements,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)  # When every test begins, by its clock.
KEY = "sk_live_0123456789abcdef"

CUSTOMER = """
query ($id: ID, $externalId: String) {
  customer(id: $id, externalId: $externalId) {
    id externalId name email currency timeZone country region postalCode taxNumber segment
  }
}
"""


async def test_a_customer_is_read_back_by_either_of_its_ids(graphql: GraphQL) -> None:
    given = customer(
        email="ap@acme.example",
        timeZone="Asia/Kolkata",
        country="IN",
        region="Karnataka",
        postalCode="560001",
        taxNumber="29ABCDE1234F1Z5",
        segment="enterprise",
    )
    customer_id = await made(graphql, "createCustomer", **given)
    expected = {"customer": {"id": customer_id, **given}}
    assert await graphql(CUSTOMER, id=customer_id) == expected
    assert await graphql(CUSTOMER, externalId="acme") == expected


async def test_a_customer_that_is_not_there_is_null(graphql: GraphQL, other: GraphQL) -> None:
    theirs = await made(other, "createCustomer", **customer())
    for arguments in ({"externalId": "acme"}, {"id": theirs}, {"id": no_such("Customer")}):
        assert await graphql(CUSTOMER, **arguments) == {"customer": None}


@pytest.mark.parametrize("arguments", ["", '(id: "Q3VzdG9tZXI", externalId: "acme")'])
async def test_a_customer_is_asked_for_by_one_id(
    client: httpx2.AsyncClient, arguments: str
) -> None:
    query = f"{{ customer{arguments} {{ id }} }}"
    answer = (await client.post("/graphql", json={"query": query})).json()
    assert answer["errors"][0]["extensions"]["code"] == "BAD_ARGUMENTS"


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"externalId": ""}, "INVALID", "externalId"),
        ({"externalId": "x" * 256}, "INVALID", "externalId"),
        ({"name": "\n"}, "INVALID", "name"),
        ({"currency": "XXX"}, "UNKNOWN_CURRENCY", "currency"),
        ({"timeZone": "Mars/Phobos"}, "UNKNOWN_TIME_ZONE", "timeZone"),
        ({"country": "UK"}, "UNKNOWN_COUNTRY", "country"),
        ({"email": "acme"}, "INVALID", "email"),
        ({"segment": ""}, "INVALID", "segment"),
    ],
)
async def test_a_malformed_customer_is_refused_and_not_written(
    graphql: GraphQL, wrong: dict[str, Any], code: str, field: str
) -> None:
    refused = await change(graphql, "createCustomer", **customer(**wrong))
    assert problem(refused) == ("InvalidProblem", code, field)
    assert await graphql("{ customers { edges { cursor } } }") == {"customers": {"edges": []}}


async def test_an_external_id_is_taken_once(graphql: GraphQL, other: GraphQL) -> None:
    await made(graphql, "createCustomer", **customer())
    again = await change(graphql, "createCustomer", **customer(name="Again"))
    assert problem(again) == ("ConflictProblem", "CUSTOMER_EXTERNAL_ID_TAKEN", "externalId")
    assert "'acme'" in again["message"]
    await made(other, "createCustomer", **customer())


async def test_the_hierarchy_is_read_from_both_ends(graphql: GraphQL) -> None:
    customer_id = await made(graphql, "createCustomer", **customer())
    team = await made(graphql, "createTeam", customerId=customer_id, code="r-d", name="R&D")
    agent = await made(graphql, "createAgent", teamId=team, code="bot", name="Bot")
    key_id = await made(
        graphql,
        "registerCustomerKey",
        customerId=customer_id,
        agentId=agent,
        name="Bot's key",
        key=KEY,
    )
    data = await graphql(
        """query ($customer: ID!, $key: ID!) {
          customer(id: $customer) {
            teams { edges { node { code agents { edges { node { code } } } } } }
            keys { edges { node { name validTo } } }
          }
          node(id: $key) { ... on CustomerKey {
            validFrom customer { externalId } agent { code team { code customer { name } } }
          } }
        }""",
        customer=customer_id,
        key=key_id,
    )
    assert data == {
        "customer": {
            "teams": {
                "edges": [
                    {"node": {"code": "r-d", "agents": {"edges": [{"node": {"code": "bot"}}]}}}
                ]
            },
            "keys": {"edges": [{"node": {"name": "Bot's key", "validTo": None}}]},
        },
        "node": {
            "validFrom": "2026-11-20T12:00:00Z",
            "customer": {"externalId": "acme"},
            "agent": {"code": "bot", "team": {"code": "r-d", "customer": {"name": "Acme"}}},
        },
    }


async def test_codes_are_unique_within_their_parent(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    globex = await made(graphql, "createCustomer", **customer(externalId="globex"))
    team = {"code": "r-d", "name": "R&D"}
    first = await made(graphql, "createTeam", customerId=acme, **team)
    second = await made(graphql, "createTeam", customerId=globex, **team)
    again = await change(graphql, "createTeam", customerId=acme, **team)
    assert problem(again) == ("ConflictProblem", "TEAM_CODE_TAKEN", "code")
    await made(graphql, "createAgent", teamId=first, code="bot", name="Bot")
    await made(graphql, "createAgent", teamId=second, code="bot", name="Bot")
    again = await change(graphql, "createAgent", teamId=first, code="bot", name="Bot")
    assert problem(again) == ("ConflictProblem", "AGENT_CODE_TAKEN", "code")


async def test_of_a_customers_key_only_the_hash_is_kept(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    customer_id = await made(graphql, "createCustomer", **customer())
    given = {"customerId": customer_id, "name": "Key", "key": KEY}
    await made(graphql, "registerCustomerKey", **given)
    again = await change(graphql, "registerCustomerKey", **given)
    assert problem(again) == ("ConflictProblem", "CUSTOMER_KEY_TAKEN", "key")
    assert KEY not in again["message"]
    async with runtime.scope(tenant_id) as scope:
        stored = (await scope.db.execute(sa.select(CustomerKey))).scalar_one()
        text = await scope.db.scalar(sa.text("SELECT customer_key::text FROM customer_key"))
    assert stored.key_hash == hash_customer_key(KEY, pepper=runtime.settings.key_pepper)
    assert KEY not in text
    assert KEY.encode().hex() not in text


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"key": "short"}, "INVALID", "key"),
        ({"key": "afo_live_0123456789abcdef"}, "INVALID", "key"),
        ({"name": ""}, "INVALID", "name"),
        ({"validTo": "2026-11-20T12:00:00Z"}, "INVALID", "validTo"),
        ({"validFrom": "2020-01-01T00:00:00Z"}, "INVALID", "validFrom"),
        ({"agentId": no_such("Team")}, "BAD_ID", "agentId"),
    ],
)
async def test_a_malformed_key_is_refused(
    graphql: GraphQL, wrong: dict[str, Any], code: str, field: str
) -> None:
    customer_id = await made(graphql, "createCustomer", **customer())
    given = {"customerId": customer_id, "name": "Key", "key": KEY, **wrong}
    refused = await change(graphql, "registerCustomerKey", **given)
    assert problem(refused) == ("InvalidProblem", code, field)


async def test_an_agent_of_another_customer_is_as_unknown_as_none(graphql: GraphQL) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    globex = await made(graphql, "createCustomer", **customer(externalId="globex"))
    team = await made(graphql, "createTeam", customerId=globex, code="r-d", name="R&D")
    agent = await made(graphql, "createAgent", teamId=team, code="bot", name="Bot")
    given = {"customerId": acme, "name": "Key", "key": KEY}
    answers = [
        await change(graphql, "registerCustomerKey", **given, agentId=agent_id)
        for agent_id in (agent, no_such("Agent"))
    ]
    assert problem(answers[0]) == ("NotFoundProblem", "NOT_FOUND", "agentId")
    assert answers[0] == answers[1]


async def test_events_are_placed_by_what_is_stored(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    acme = await made(graphql, "createCustomer", **customer())
    globex = await made(graphql, "createCustomer", **customer(externalId="globex"))
    team = await made(graphql, "createTeam", customerId=acme, code="r-d", name="R&D")
    agent = await made(graphql, "createAgent", teamId=team, code="bot", name="Bot")
    key_id = await made(
        graphql,
        "registerCustomerKey",
        customerId=acme,
        agentId=agent,
        name="Key",
        key=KEY,
        validFrom="2026-11-01T00:00:00Z",
        validTo="2026-12-01T00:00:00Z",
    )
    key_hash = hash_customer_key(KEY, pepper=runtime.settings.key_pepper)
    async with runtime.scope(tenant_id) as scope:
        hierarchy = await queries.resolve(scope, {"acme", "globex", "nobody"}, {key_hash, b"x"})
    place = Place(
        customer_id=row_id(acme, "Customer"),
        team_id=row_id(team, "Team"),
        agent_id=row_id(agent, "Agent"),
        customer_key_id=row_id(key_id, "CustomerKey"),
    )
    assert hierarchy.lookup(customer="acme", key_hash=key_hash, at=NOW) == place
    assert hierarchy.lookup(customer=None, key_hash=key_hash, at=NOW) == place
    assert hierarchy.lookup(customer="globex", key_hash=None, at=NOW) == Place(
        customer_id=row_id(globex, "Customer")
    )
    later = NOW + timedelta(days=30)
    assert hierarchy.lookup(customer=None, key_hash=key_hash, at=later) is Unplaced.KEY_UNKNOWN
    unknown = hierarchy.lookup(customer="nobody", key_hash=key_hash, at=NOW)
    assert unknown is Unplaced.UNKNOWN_CUSTOMER


async def test_what_stands_below_customers_is_read_with_one_statement_per_kind(
    graphql: GraphQL, runtime: Runtime
) -> None:
    pro = await offering(graphql)
    for number in range(4):
        customer_id = await made(graphql, "createCustomer", **customer(externalId=f"c{number}"))
        await made(graphql, "createSubscription", customerId=customer_id, offeringId=pro)
        for code in ("a", "b", "c")[:number]:
            await made(graphql, "createTeam", customerId=customer_id, code=code, name="T")
    document = """
    query ($after: String) { customers { edges { node {
      teams(first: 2, after: $after) { edges { node { code } } pageInfo { hasNextPage endCursor } }
      subscriptions(first: 5) { edges { node { offering { code } } } }
    } } } }
    """
    with statements(runtime) as seen:
        data = await graphql(document)
    # Customers, teams, subscriptions, offerings; and once in a while what the caller may send.
    assert len([each for each in seen if "FROM api_policy" not in each]) == 4
    nodes = [edge["node"] for edge in data["customers"]["edges"]]
    pages = [[edge["node"]["code"] for edge in node["teams"]["edges"]] for node in nodes]
    assert pages == [[], ["a"], ["a", "b"], ["a", "b"]]
    assert [node["teams"]["pageInfo"]["hasNextPage"] for node in nodes] == [False] * 3 + [True]
    after = nodes[3]["teams"]["pageInfo"]["endCursor"]
    last = (await graphql(document, after=after))["customers"]["edges"][3]["node"]["teams"]
    assert [edge["node"]["code"] for edge in last["edges"]] == ["c"]
