"""Aliases of customers: registered, ended, resolved as of the event, and never ambiguous."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.api.forms import GraphQL, change, made, no_such, problem
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

ALIASES = """
query($id: ID!) { node(id: $id) { ... on Customer { aliases {
  edges { node { id externalId validFrom validTo customer { id } } }
} } } }
"""


async def aliases(graphql: GraphQL, customer_id: str) -> list[dict[str, Any]]:
    found = await graphql(ALIASES, id=customer_id)
    return [edge["node"] for edge in found["node"]["aliases"]["edges"]]


async def test_events_may_name_a_customer_by_an_alias_while_it_is_good(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    alias_id = await made(
        graphql,
        "registerCustomerAlias",
        customerId=shop.customer_id,
        externalId="acme-old",
        validFrom="2026-10-05T00:00:00Z",
    )
    old = {**call(1, 1), "customer": "acme-old"}
    moments = ["2026-10-04T23:59:59.999999Z", "2026-10-05T00:00:00Z", "2026-10-07T00:00:00Z"]
    answers = []
    for number, moment in enumerate(moments):
        sent = {**old, "idempotencyKey": f"before-{number}", "occurredAt": moment}
        answers.append((await send(sent))["accepted"])
    assert answers == [0, 1, 1]
    await made(graphql, "endCustomerAlias", customerAliasId=alias_id, endsAt="2026-10-07T00:00:00Z")
    late = {**old, "idempotencyKey": "late", "occurredAt": "2026-10-07T00:00:00Z"}
    answer = await send(late, {**late, "idempotencyKey": "b", "occurredAt": moments[1]})
    assert (answer["accepted"], answer["quarantined"]) == (1, 1)
    await run_jobs()
    events = await graphql("{ events { edges { node { customer { id } } } } }")
    named = [edge["node"]["customer"]["id"] for edge in events["events"]["edges"]]
    assert named == [shop.customer_id] * 3
    assert await aliases(graphql, shop.customer_id) == [
        {
            "id": alias_id,
            "externalId": "acme-old",
            "validFrom": "2026-10-05T00:00:00Z",
            "validTo": "2026-10-07T00:00:00Z",
            "customer": {"id": shop.customer_id},
        }
    ]


async def test_the_same_event_under_the_other_name_is_a_conflict(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    await made(
        graphql,
        "registerCustomerAlias",
        customerId=shop.customer_id,
        externalId="acme-old",
        validFrom="2026-10-01T00:00:00Z",
    )
    sent = call(1, 1)
    assert (await send(sent))["accepted"] == 1
    assert (await send({**sent, "customer": "acme-old"}))["conflicts"] == 1
    assert (await send(sent))["duplicates"] == 1


async def test_what_waits_for_an_alias_is_released_once_there_is_one(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    await send({**call(1, 1), "customer": "acme-new"})
    release = (
        'mutation { releaseQuarantinedEvents(input: {customer: "acme-new"}) '
        "{ ... on ReleasedEvents { released } } }"
    )
    given = {"customerId": shop.customer_id, "externalId": "acme-new"}
    assert (await graphql(release))["releaseQuarantinedEvents"]["released"] == 0
    await made(graphql, "registerCustomerAlias", **given, validFrom="2026-10-01T00:00:00Z")
    assert (await graphql(release))["releaseQuarantinedEvents"]["released"] == 1


async def test_an_entitlement_is_asked_for_by_an_alias_that_is_good_now(
    graphql: GraphQL, client: httpx2.AsyncClient, shop: Shop
) -> None:
    for name, more in (
        ("now", {}),
        ("over", {"validFrom": "2026-10-01T00:00:00Z", "validTo": "2026-10-02T00:00:00Z"}),
        ("later", {"validFrom": "2026-12-01T00:00:00Z"}),
    ):
        await made(
            graphql, "registerCustomerAlias", customerId=shop.customer_id, externalId=name, **more
        )
    reasons = {}
    for name in ("acme", "now", "over", "later"):
        asked = {"customer": name, "feature": "anything"}
        response = await client.post("/v1/entitlements/check", json=asked)
        reasons[name] = response.json()["reason"]
    assert reasons["now"] == reasons["acme"] != "UNKNOWN_CUSTOMER"
    assert reasons["over"] == reasons["later"] == "UNKNOWN_CUSTOMER"


async def test_an_id_leads_to_one_customer_for_all_its_life(graphql: GraphQL, shop: Shop) -> None:
    other = await made(graphql, "createCustomer", externalId="b", name="B", currency="USD")
    alias_id = await made(
        graphql,
        "registerCustomerAlias",
        customerId=shop.customer_id,
        externalId="a",
        validFrom="2026-10-01T00:00:00Z",
    )
    ends = {"customerAliasId": alias_id, "endsAt": "2026-10-02T00:00:00Z"}
    await made(graphql, "endCustomerAlias", **ends)
    before = await aliases(graphql, shop.customer_id)
    for name, given, told in (
        (
            "registerCustomerAlias",
            {"customerId": other, "externalId": "a"},
            ("ConflictProblem", "CUSTOMER_ALIAS_TAKEN", "externalId"),
        ),
        (
            "registerCustomerAlias",
            {"customerId": other, "externalId": "acme"},
            ("ConflictProblem", "CUSTOMER_EXTERNAL_ID_TAKEN", "externalId"),
        ),
        (
            "createCustomer",
            {"externalId": "a", "name": "A", "currency": "USD"},
            ("ConflictProblem", "CUSTOMER_ALIAS_TAKEN", "externalId"),
        ),
        (
            "registerCustomerAlias",
            {"customerId": no_such("Customer"), "externalId": "c"},
            ("NotFoundProblem", "NOT_FOUND", "customerId"),
        ),
        (
            "registerCustomerAlias",
            {"customerId": other, "externalId": ""},
            ("InvalidProblem", "INVALID", "externalId"),
        ),
        (
            "registerCustomerAlias",
            {"customerId": other, "externalId": "c", "validTo": "2026-11-20T12:00:00Z"},
            ("InvalidProblem", "INVALID", "validTo"),
        ),
        (
            "endCustomerAlias",
            {"customerAliasId": alias_id},
            ("ConflictProblem", "ALIAS_ENDED", "customerAliasId"),
        ),
        (
            "endCustomerAlias",
            {"customerAliasId": alias_id, "endsAt": "2026-10-01T00:00:00Z"},
            ("InvalidProblem", "INVALID", "endsAt"),
        ),
        (
            "endCustomerAlias",
            {"customerAliasId": no_such("CustomerAlias")},
            ("NotFoundProblem", "NOT_FOUND", "customerAliasId"),
        ),
    ):
        assert problem(await change(graphql, name, **given)) == told, (name, given)
    assert await aliases(graphql, shop.customer_id) == before
    assert await aliases(graphql, other) == []


async def test_of_those_who_want_one_id_at_once_one_gets_it(graphql: GraphQL, shop: Shop) -> None:
    customer = {"externalId": "wanted", "name": "W", "currency": "USD"}
    alias = {"externalId": "wanted", "customerId": shop.customer_id}
    answers = await asyncio.gather(
        *(change(graphql, "createCustomer", **customer) for _ in range(3)),
        *(change(graphql, "registerCustomerAlias", **alias) for _ in range(3)),
    )
    assert sum("id" in answer for answer in answers) == 1
