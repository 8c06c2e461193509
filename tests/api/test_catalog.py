"""The catalogue through GraphQL: what is created is read back, what is refused is not there."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import anyio
import httpx2
import pytest
import sqlalchemy as sa

from aforo.catalog import commands, queries
from aforo.catalog.models import Aggregation, CostRate
from aforo.sdk import Conflict, TenantId
from aforo.storage.scope import Runtime
from tests.api.forms import (
    GraphQL,
    change,
    counts,
    line,
    made,
    meter,
    plan,
    problem,
    statements,
)

pytestmark = pytest.mark.anyio

OFFERING = """
query ($id: ID!) {
  node(id: $id) {
    ... on Offering {
      code version name
      product { code name }
      ratePlan {
        code version name currency interval
        lines {
          code name model settings taxCategory
          meter { code aggregation property unit filters { property values } dimensions }
        }
      }
      entitlements { code kind quota meter { code } }
    }
  }
}
"""


async def test_an_offering_is_read_back_with_everything_that_it_pins(graphql: GraphQL) -> None:
    filters = [{"property": "model", "values": ["small", "large"]}]
    meter_id = await made(
        graphql,
        "createMeter",
        **meter(unit="token", filters=filters, dimensions=["model", "region"]),
    )
    fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": 20}}
    plan_id = await made(
        graphql, "createRatePlan", **plan(fee, line(meter_id, taxCategory="software"))
    )
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    gate = await made(graphql, "createEntitlement", code="sso", name="SSO", kind="BOOLEAN")
    quota = {"code": "quota", "name": "Quota", "kind": "QUOTA", "meterId": meter_id}
    quota_id = await made(graphql, "createEntitlement", **quota, quota="1000000")
    offering_id = await made(
        graphql,
        "createOffering",
        code="pro",
        name="Pro",
        productId=product_id,
        ratePlanId=plan_id,
        entitlementIds=[gate, quota_id],
    )

    data = await graphql(OFFERING, id=offering_id)
    tokens = {
        "code": "tokens",
        "aggregation": "SUM",
        "property": "tokens",
        "unit": "token",
        "filters": filters,
        "dimensions": ["model", "region"],
    }
    assert data["node"] == {
        "code": "pro",
        "version": 1,
        "name": "Pro",
        "product": {"code": "llm", "name": "LLM"},
        "ratePlan": {
            "code": "pro",
            "version": 1,
            "name": "Pro",
            "currency": "USD",
            "interval": "MONTH",
            "lines": [
                {
                    "code": "fee",
                    "name": "Fee",
                    "model": "FLAT",
                    "settings": {"fee": "20"},
                    "taxCategory": None,
                    "meter": None,
                },
                {
                    "code": "tokens",
                    "name": "Tokens",
                    "model": "PER_UNIT",
                    "settings": {"unitPrice": "0.01"},
                    "taxCategory": "software",
                    "meter": tokens,
                },
            ],
        },
        "entitlements": [
            {"code": "sso", "kind": "BOOLEAN", "quota": None, "meter": None},
            {"code": "quota", "kind": "QUOTA", "quota": "1000000", "meter": {"code": "tokens"}},
        ],
    }


async def test_discounts_keep_their_numbers_exactly(graphql: GraphQL) -> None:
    share = "0.123456789012345678"
    await made(graphql, "createDiscount", code="early", name="Early", kind="PERCENTAGE", rate=share)
    fixed = {"code": "five", "name": "Five", "kind": "FIXED", "amount": "5.50", "currency": "USD"}
    await made(graphql, "createDiscount", **fixed)
    data = await graphql("{ discounts { edges { node { code kind rate amount currency } } } }")
    assert [edge["node"] for edge in data["discounts"]["edges"]] == [
        {"code": "early", "kind": "PERCENTAGE", "rate": share, "amount": None, "currency": None},
        {"code": "five", "kind": "FIXED", "rate": None, "amount": "5.50", "currency": "USD"},
    ]


async def test_a_page_ends_where_the_next_one_starts(
    graphql: GraphQL, client: httpx2.AsyncClient
) -> None:
    for number in range(5):
        await made(graphql, "createProduct", code=f"p{number}", name="P")
    document = """
    query ($after: String) {
      products(first: 2, after: $after) {
        edges { cursor node { code } }
        pageInfo { hasNextPage endCursor }
      }
    }
    """
    codes, after, pages = [], None, 0
    while True:
        page = (await graphql(document, after=after))["products"]
        codes.extend(edge["node"]["code"] for edge in page["edges"])
        pages += 1
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert (codes, pages) == (["p0", "p1", "p2", "p3", "p4"], 3)

    for arguments, code in (("first: 101", "BAD_PAGE"), ('after: "zzz"', "BAD_CURSOR")):
        query = f"{{ products({arguments}) {{ edges {{ cursor }} }} }}"
        answer = (await client.post("/graphql", json={"query": query})).json()
        assert answer["errors"][0]["extensions"]["code"] == code


async def test_a_cost_rate_is_the_next_version_and_in_force_from_its_moment_on(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    now = runtime.clock.now()
    moments = [now - timedelta(days=30), now, now - timedelta(days=10)]
    for number, moment in enumerate(moments):
        await made(
            graphql,
            "createCostRate",
            meterId=meter_id,
            unitCost=f"0.00000{number}1",
            currency="USD",
            effectiveFrom=moment.isoformat(),
        )
    data = await graphql("{ costRates { edges { node { meterCode version unitCost } } } }")
    assert [edge["node"] for edge in data["costRates"]["edges"]] == [
        {"meterCode": "tokens", "version": 1, "unitCost": "0.0000001"},
        {"meterCode": "tokens", "version": 2, "unitCost": "0.0000011"},
        {"meterCode": "tokens", "version": 3, "unitCost": "0.0000021"},
    ]


async def test_two_cost_rates_at_once_do_not_become_one_version(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        tokens = await commands.create_meter(
            scope,
            code="tokens",
            name="Tokens",
            event_type="llm.request",
            aggregation=Aggregation.SUM,
            property_name="tokens",
        )
    refused: list[Conflict] = []

    async def create() -> None:
        try:
            async with runtime.scope(tenant_id) as scope:
                await commands.create_cost_rate(
                    scope, meter_id=tokens.id, unit_cost=Decimal(1), currency="USD"
                )
        except Conflict as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(create)
    async with runtime.scope(tenant_id) as scope:
        versions = list(await scope.db.scalars(sa.select(CostRate.version)))
    assert len(versions) == len(set(versions)) == 5 - len(refused)
    assert {error.code for error in refused} <= {"COST_RATE_CHANGED"}


async def test_a_cost_rate_needs_a_meter_that_adds_up(graphql: GraphQL) -> None:
    users = await made(
        graphql, "createMeter", **meter(code="users", aggregation="UNIQUE", property="user")
    )
    given = {"meterId": users, "unitCost": "1", "currency": "USD"}
    refused = await change(graphql, "createCostRate", **given)
    assert problem(refused) == ("InvalidProblem", "INVALID", "meterId")
    assert "users is UNIQUE" in refused["message"]


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"unitCost": "-1"}, "BAD_VALUE", "unitCost"),
        ({"currency": "XAU"}, "UNKNOWN_CURRENCY", "currency"),
        ({"effectiveFrom": "2020-01-01T00:00:00Z"}, "INVALID", "effectiveFrom"),
        ({"effectiveFrom": "2199-12-31T00:00:00Z"}, "INVALID", "effectiveFrom"),
    ],
)
async def test_a_malformed_cost_rate_is_refused(
    graphql: GraphQL, given: dict[str, Any], code: str, field: str
) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    whole = {"meterId": meter_id, "unitCost": "1", "currency": "USD", **given}
    refused = await change(graphql, "createCostRate", **whole)
    assert problem(refused) == ("InvalidProblem", code, field)
    assert await counts(graphql) == {"meters": 1}


async def test_lists_are_read_with_one_statement_per_kind_of_thing(
    graphql: GraphQL, runtime: Runtime
) -> None:
    product_id = await made(graphql, "createProduct", code="llm", name="LLM")
    for number in range(4):
        meter_id = await made(graphql, "createMeter", **meter(code=f"m{number}"))
        plan_id = await made(graphql, "createRatePlan", **plan(line(meter_id), code=f"p{number}"))
        gate = {"code": f"e{number}", "name": "E", "kind": "QUOTA", "meterId": meter_id}
        entitlement_id = await made(graphql, "createEntitlement", **gate, quota="1")
        await made(
            graphql,
            "createOffering",
            code=f"o{number}",
            name="O",
            productId=product_id,
            ratePlanId=plan_id,
            entitlementIds=[entitlement_id],
        )
    with statements(runtime) as seen:
        data = await graphql(
            """{ offerings { edges { node {
              product { code }
              ratePlan { code lines { meter { code } } }
              entitlements { code }
            } } } }"""
        )
    assert len(data["offerings"]["edges"]) == 4
    # What the caller may do is looked up now and then, and remembered in between.
    read = [statement for statement in seen if "FROM api_policy" not in statement]
    # offerings, products, rate plans, lines, entitlements, meters
    assert len(read) == 6


async def test_the_contents_of_offerings_take_four_statements(
    graphql: GraphQL, runtime: Runtime, tenant_id: TenantId
) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    for number in range(3):
        plan_id = await made(graphql, "createRatePlan", **plan(line(meter_id), code=f"p{number}"))
        product_id = await made(graphql, "createProduct", code=f"p{number}", name="P")
        given = {"code": f"o{number}", "name": "O", "productId": product_id}
        await made(graphql, "createOffering", **given, ratePlanId=plan_id)
    unknown = UUID(int=1)
    with statements(runtime) as seen:
        async with runtime.scope(tenant_id) as scope:
            ids = [row.id for row in await queries.offerings().page(scope, first=10)]
            seen.clear()
            contents = await queries.offering_contents(scope, [*ids, unknown])
    assert len(seen) == 4
    assert contents.keys() == set(ids)
    for each in contents.values():
        assert [each.meters[one.meter_id].code for one in each.lines if one.meter_id] == ["tokens"]
        assert each.rate_plan.currency == "USD"
        assert each.entitlements == ()


async def test_the_terms_of_a_quota_are_kept_as_they_were_given(graphql: GraphQL) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    given = {
        "quota": "100",
        "policy": "BLOCK",
        "ratePerSecond": "2.5",
        "reset": "CALENDAR",
        "resetUnit": "MONTH",
        "resetSeconds": None,
        "rolloverPeriods": 3,
        "rolloverCap": "50",
        "whenUnavailable": "CLOSED",
    }
    named = {"code": "calls", "name": "Calls", "kind": "QUOTA", "meterId": meter_id}
    id_ = await made(graphql, "createEntitlement", **named, **given)
    fields = " ".join(given)
    query = f"query($id: ID!) {{ node(id: $id) {{ ... on Entitlement {{ {fields} }} }} }}"
    assert await graphql(query, id=id_) == {"node": given}
    gate = await made(graphql, "createEntitlement", code="sso", name="SSO", kind="BOOLEAN")
    assert (await graphql(query, id=gate))["node"] == {
        **dict.fromkeys(given),
        "whenUnavailable": "OPEN",
    }
