"""What the catalogue refuses through GraphQL: each refusal says where, and nothing is there."""

import dataclasses
from typing import Any

import pytest
import sqlalchemy as sa

from aforo.catalog.models import RatePlan, RatePlanLine
from aforo.plugins import load_registry
from aforo.sdk import FixedAmount, PricingModel, TenantId, Usage, hookimpl
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import (
    GraphQL,
    change,
    counts,
    http,
    line,
    made,
    meter,
    no_such,
    plan,
    poster,
    problem,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("createProduct", {"code": "one", "name": "One"}, "PRODUCT_CODE_TAKEN"),
        ("createMeter", meter(code="one"), "METER_CODE_TAKEN"),
        (
            "createRatePlan",
            plan({"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "1"}}),
            "RATE_PLAN_CODE_TAKEN",
        ),
        (
            "createEntitlement",
            {"code": "one", "name": "One", "kind": "BOOLEAN"},
            "ENTITLEMENT_CODE_TAKEN",
        ),
        (
            "createDiscount",
            {"code": "one", "name": "One", "kind": "PERCENTAGE", "rate": "0.1"},
            "DISCOUNT_CODE_TAKEN",
        ),
    ],
)
async def test_a_code_is_taken_once(
    graphql: GraphQL, other: GraphQL, name: str, given: dict[str, Any], code: str
) -> None:
    await made(graphql, name, **given)
    before = await counts(graphql)
    again = await change(graphql, name, **{**given, "name": "Again"})
    assert problem(again) == ("ConflictProblem", code, "code")
    assert await counts(graphql) == before
    await made(other, name, **given)  # Another tenant has codes of its own.


async def test_the_code_of_an_offering_is_taken_once(graphql: GraphQL) -> None:
    fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "1"}}
    given = {
        "code": "pro",
        "name": "Pro",
        "productId": await made(graphql, "createProduct", code="llm", name="LLM"),
        "ratePlanId": await made(graphql, "createRatePlan", **plan(fee)),
    }
    await made(graphql, "createOffering", **given)
    again = await change(graphql, "createOffering", **given)
    assert problem(again) == ("ConflictProblem", "OFFERING_CODE_TAKEN", "code")


# A tier that starts where it ends, settings that are no object, a float, and so on.
BAD_LINES: list[tuple[dict[str, Any], str, str]] = [
    ({"settings": {"unitPrice": "-1"}}, "INVALID", "lines.1.settings.unitPrice"),
    ({"settings": {"unitPrice": "1", "discount": "1"}}, "INVALID", "lines.1.settings.discount"),
    ({"settings": []}, "INVALID", "lines.1.settings"),
    ({"model": "HYBRID"}, "UNKNOWN_PRICING_MODEL", "lines.1.model"),
    ({"model": "FLAT", "settings": {"fee": "1"}}, "INVALID", "lines.1.meterId"),
    ({"meterId": None}, "INVALID", "lines.1.meterId"),
    ({"meterId": "x"}, "BAD_ID", "lines.1.meterId"),
    ({"meterId": no_such("Product")}, "BAD_ID", "lines.1.meterId"),
    ({"code": "Tokens"}, "INVALID", "lines.1.code"),
    ({"code": "fee"}, "INVALID", "lines.1.code"),
    ({"name": ""}, "INVALID", "lines.1.name"),
    ({"taxCategory": " "}, "INVALID", "lines.1.taxCategory"),
    (
        {
            "model": "GRADUATED",
            "settings": {
                "tiers": [
                    {"upTo": "100", "unitPrice": "1"},
                    {"upTo": "50", "unitPrice": "0.5"},
                    {"unitPrice": "0.1"},
                ]
            },
        },
        "INVALID",
        "lines.1.settings.tiers.1.upTo",
    ),
]


@pytest.mark.parametrize(("wrong", "code", "field"), BAD_LINES)
async def test_a_plan_with_a_wrong_line_is_refused_and_not_written(
    graphql: GraphQL, wrong: dict[str, Any], code: str, field: str
) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "1"}}
    given = plan(fee, line(meter_id) | wrong)
    refused = await change(graphql, "createRatePlan", **given)
    assert problem(refused) == ("InvalidProblem", code, field)
    assert await counts(graphql) == {"meters": 1}


@pytest.mark.parametrize(
    ("name", "given", "code", "field"),
    [
        ("createProduct", {"code": "LLM", "name": "LLM"}, "INVALID", "code"),
        ("createProduct", {"code": "llm", "name": " "}, "INVALID", "name"),
        ("createProduct", {"code": "llm", "name": "a\tb"}, "INVALID", "name"),
        ("createMeter", meter(eventType=""), "INVALID", "eventType"),
        ("createMeter", meter(property=None), "INVALID", "property"),
        ("createMeter", meter(aggregation="COUNT"), "INVALID", "property"),
        ("createMeter", meter(unit="x" * 41), "INVALID", "unit"),
        (
            "createMeter",
            meter(aggregation="MAX", allowsNegative=True),
            "INVALID",
            "allowsNegative",
        ),
        (
            "createMeter",
            meter(filters=[{"property": "model", "values": []}]),
            "INVALID",
            "filters.0.values",
        ),
        ("createMeter", meter(dimensions=["model", "model"]), "INVALID", "dimensions.1"),
        ("createRatePlan", plan(), "INVALID", "lines"),
        ("createRatePlan", plan(currency="XXX"), "UNKNOWN_CURRENCY", "currency"),
        ("createRatePlan", plan(*[line(None)] * 51), "INVALID", "lines"),
        (
            "createEntitlement",
            {"code": "q", "name": "Q", "kind": "QUOTA", "quota": "1"},
            "INVALID",
            "meterId",
        ),
        (
            "createEntitlement",
            {"code": "q", "name": "Q", "kind": "BOOLEAN", "policy": "BLOCK"},
            "INVALID",
            "policy",
        ),
        (
            "createDiscount",
            {"code": "d", "name": "D", "kind": "PERCENTAGE", "rate": "1.5"},
            "INVALID",
            "rate",
        ),
        (
            "createDiscount",
            {"code": "d", "name": "D", "kind": "FIXED", "amount": "1", "currency": "usd"},
            "UNKNOWN_CURRENCY",
            "currency",
        ),
    ],
)
async def test_what_is_malformed_is_refused_and_not_written(
    graphql: GraphQL, name: str, given: dict[str, Any], code: str, field: str
) -> None:
    refused = await change(graphql, name, **given)
    assert problem(refused) == ("InvalidProblem", code, field)
    assert await counts(graphql) == {}


async def test_an_offering_takes_an_entitlement_once_and_a_meters_quota_once(
    graphql: GraphQL,
) -> None:
    meter_id = await made(graphql, "createMeter", **meter())
    quota = {"name": "Quota", "kind": "QUOTA", "meterId": meter_id}
    first = await made(graphql, "createEntitlement", **quota, code="a", quota="10")
    second = await made(graphql, "createEntitlement", **quota, code="b", quota="20")
    given = {
        "code": "pro",
        "name": "Pro",
        "productId": await made(graphql, "createProduct", code="llm", name="LLM"),
        "ratePlanId": await made(graphql, "createRatePlan", **plan(line(meter_id))),
    }
    for entitlement_ids in ([first, first], [first, second]):
        refused = await change(graphql, "createOffering", **given, entitlementIds=entitlement_ids)
        assert problem(refused) == ("InvalidProblem", "INVALID", "entitlementIds.1")
    assert (await counts(graphql)).get("offerings") is None


async def test_what_is_another_tenants_is_as_unknown_as_nothing_at_all(
    graphql: GraphQL, other: GraphQL
) -> None:
    theirs = {
        "Meter": await made(other, "createMeter", **meter()),
        "Product": await made(other, "createProduct", code="llm", name="LLM"),
        "Entitlement": await made(
            other, "createEntitlement", code="sso", name="SSO", kind="BOOLEAN"
        ),
    }
    theirs["RatePlan"] = await made(other, "createRatePlan", **plan(line(theirs["Meter"])))
    own = {
        "Product": await made(graphql, "createProduct", code="own", name="Own"),
        "RatePlan": await made(
            graphql,
            "createRatePlan",
            **plan({"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "1"}}),
        ),
    }
    own_offering = {"code": "o", "name": "O", "productId": own["Product"]}
    own_offering["ratePlanId"] = own["RatePlan"]
    cases: list[tuple[str, str, dict[str, Any], Any]] = [
        ("Meter", "createRatePlan", plan(code="x"), lambda id_: {"lines": [line(id_)]}),
        (
            "Meter",
            "createEntitlement",
            {"code": "q", "name": "Q", "kind": "QUOTA", "quota": "1"},
            lambda id_: {"meterId": id_},
        ),
        (
            "Meter",
            "createCostRate",
            {"unitCost": "1", "currency": "USD"},
            lambda id_: {"meterId": id_},
        ),
        ("Product", "createOffering", own_offering, lambda id_: {"productId": id_}),
        ("RatePlan", "createOffering", own_offering, lambda id_: {"ratePlanId": id_}),
        ("Entitlement", "createOffering", own_offering, lambda id_: {"entitlementIds": [id_]}),
    ]
    before = await counts(graphql)
    for kind, name, given, naming in cases:
        answers = [
            await change(graphql, name, **{**given, **naming(id_)})
            for id_ in (theirs[kind], no_such(kind))
        ]
        assert answers[0]["__typename"] == "NotFoundProblem", (name, answers)
        assert answers[0] == answers[1]
    assert await counts(graphql) == before
    for id_ in theirs.values():
        assert await graphql("query ($id: ID!) { node(id: $id) { id } }", id=id_) == {"node": None}


class Broken(PricingModel):
    key = "test.broken"
    summary = "Raises as soon as it prices"

    def price(self, usage: Usage) -> list[FixedAmount]:  # noqa: ARG002
        raise RuntimeError("out of prices")


class BrokenPlugin:
    @hookimpl
    def register_pricing_models(self) -> list[type[PricingModel]]:
        return [Broken]


async def test_a_plugin_that_raises_is_named_and_nothing_is_written(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    broken = dataclasses.replace(runtime, plugins=load_registry(extra=[BrokenPlugin()]))
    async with http(broken, tenant) as client:
        graphql = poster(client)
        meter_id = await made(graphql, "createMeter", **meter())
        lines = [line(meter_id, code="good"), line(meter_id, model="test.broken", settings={})]
        refused = await change(graphql, "createRatePlan", **plan(*lines))
    assert problem(refused) == ("InvalidProblem", "PLUGIN_ERROR", "lines.1.settings")
    assert f"test.broken of the plugin {__name__}" in refused["message"]
    assert "RuntimeError: out of prices" in refused["message"]
    async with runtime.scope(tenant_id) as scope:
        for table in (RatePlan, RatePlanLine):
            assert await scope.db.scalar(sa.select(sa.func.count()).select_from(table)) == 0
