"""What the demo's company sells: meters, cost rates, rate plans, a quota, offerings, discounts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.catalog.commands import (
    NewLine,
    create_cost_rate,
    create_discount,
    create_entitlement,
    create_meter,
    create_offering,
    create_product,
    create_rate_plan,
)
from aforo.catalog.models import Aggregation, DiscountKind, EntitlementKind
from aforo.catalog.validate import Filter
from aforo.storage.scope import Scope

REQUEST = "llm.request"
IMAGE = "image.generation"
SALE = "agent.sale"

COST_CURRENCY = "USD"
STARTER_QUOTA = 3_000
"""Requests per month that the plan `starter` allows."""


@dataclass(frozen=True, slots=True)
class _Metered:
    """A meter, and what a unit of it costs the company; MAX and UNIQUE cost nothing by event."""

    code: str
    name: str
    event_type: str
    aggregation: Aggregation
    property_name: str | None = None
    unit: str = ""
    filters: tuple[Filter, ...] = ()
    unit_cost: str | None = None
    dimensions: tuple[str, ...] = ()


_METERS = (
    _Metered(
        "input_tokens", "Input tokens", REQUEST, Aggregation.SUM, "input_tokens", "token",
        unit_cost="0.0000011", dimensions=("model",),
    ),
    _Metered(
        "output_tokens", "Output tokens", REQUEST, Aggregation.SUM, "output_tokens", "token",
        unit_cost="0.0000044", dimensions=("model",),
    ),
    _Metered(
        "requests", "Requests", REQUEST, Aggregation.COUNT, unit="request", dimensions=("model",)
    ),
    _Metered(
        "long_context", "Long-context requests", REQUEST, Aggregation.COUNT, unit="request",
        filters=(Filter("context", ("long",)),),
    ),
    _Metered(
        "peak_concurrency", "Peak concurrency", REQUEST, Aggregation.MAX, "concurrency", "lane"
    ),
    _Metered("active_users", "Active users", REQUEST, Aggregation.UNIQUE, "user", "user"),
    _Metered(
        "images", "Images", IMAGE, Aggregation.SUM, "images", "image", unit_cost="0.018"
    ),
    _Metered(
        "agent_sales", "Sales by agents", SALE, Aggregation.SUM, "amount", "USD",
        unit_cost="0.004",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Ids of what was created, by code."""

    offerings: Mapping[str, UUID]
    discounts: Mapping[str, UUID]


async def create_catalogue(scope: Scope, *, since: datetime) -> Catalogue:
    """Create everything; cost rates are in force from `since` on."""
    meters = {}
    for each in _METERS:
        meter = await create_meter(
            scope,
            code=each.code,
            name=each.name,
            event_type=each.event_type,
            aggregation=each.aggregation,
            property_name=each.property_name,
            unit=each.unit,
            filters=each.filters,
            dimensions=each.dimensions,
        )
        meters[each.code] = meter.id
        if each.unit_cost is not None:
            await create_cost_rate(
                scope,
                meter_id=meter.id,
                unit_cost=Decimal(each.unit_cost),
                currency=COST_CURRENCY,
                effective_from=since,
            )
    quota = await create_entitlement(
        scope,
        code="starter-requests",
        name="Requests per month on Starter",
        kind=EntitlementKind.QUOTA,
        meter_id=meters["requests"],
        quota=Decimal(STARTER_QUOTA),
    )
    support = await create_entitlement(
        scope,
        code="priority-support",
        name="Priority support",
        kind=EntitlementKind.BOOLEAN,
    )
    entitlements = {"starter": [quota.id], "growth": [support.id], "growth-eu": [support.id]}
    return Catalogue(
        offerings=await _create_offerings(scope, meters, entitlements),
        discounts=await _create_discounts(scope),
    )


async def _create_offerings(
    scope: Scope, meters: Mapping[str, UUID], entitlements: Mapping[str, list[UUID]]
) -> dict[str, UUID]:
    products = {
        code: (await create_product(scope, code=code, name=name)).id
        for code, name in (
            ("inference", "Inference API"),
            ("marketplace", "Agent marketplace"),
        )
    }
    offerings = {}
    for code, (name, product, currency, lines) in _PLANS.items():
        plan = await create_rate_plan(
            scope,
            code=code,
            name=name,
            currency=currency,
            lines=[
                NewLine(
                    code=line,
                    name=label,
                    model=model,
                    settings=settings,
                    meter_id=meters.get(line),
                )
                for line, label, model, settings in lines
            ],
        )
        offering = await create_offering(
            scope,
            code=code,
            name=name,
            product_id=products[product],
            rate_plan_id=plan.id,
            entitlement_ids=entitlements.get(code, ()),
        )
        offerings[code] = offering.id
    return offerings


async def _create_discounts(scope: Scope) -> dict[str, UUID]:
    volume = await create_discount(
        scope,
        code="volume-10",
        name="Volume agreement, 10 %",
        kind=DiscountKind.PERCENTAGE,
        rate=Decimal("0.10"),
    )
    welcome = await create_discount(
        scope,
        code="welcome-25",
        name="Welcome credit",
        kind=DiscountKind.FIXED,
        amount=Decimal(25),
        currency="USD",
    )
    return {"volume-10": volume.id, "welcome-25": welcome.id}


_Line = tuple[str, str, str, Mapping[str, Any]]
"""The line's code, which is its meter's where it has one; name; pricing model; settings."""


def _tiers(*tiers: tuple[str | None, str]) -> Mapping[str, Any]:
    return {"tiers": [{"upTo": up_to, "unitPrice": price} for up_to, price in tiers]}


_GROWTH: tuple[_Line, ...] = (
    ("platform", "Platform fee", "FLAT", {"fee": "199"}),
    (
        "input_tokens", "Input tokens", "GRADUATED",
        _tiers(("10000000", "0.000003"), ("50000000", "0.0000026"), (None, "0.0000022")),
    ),
    (
        "output_tokens", "Output tokens", "VOLUME",
        _tiers(("1000000", "0.000015"), ("5000000", "0.000013"), (None, "0.000011")),
    ),
    (
        "requests", "Requests", "QUOTA",
        {
            "included": "2000", "blockSize": "500", "blockPrice": "5",
            "blockRounding": "STARTED",
        },
    ),
    ("long_context", "Long-context requests", "PER_UNIT", {"unitPrice": "0.01"}),
    ("peak_concurrency", "Concurrent lanes at the peak", "PER_UNIT", {"unitPrice": "2.50"}),
    ("active_users", "Active users", "PER_UNIT", {"unitPrice": "1.50"}),
    ("images", "Images", "PER_UNIT", {"unitPrice": "0.04"}),
)  # fmt: skip

_PLANS: Mapping[str, tuple[str, str, str, tuple[_Line, ...]]] = {
    "growth": ("Growth", "inference", "USD", _GROWTH),
    "starter": (
        "Starter", "inference", "USD",
        (
            ("platform", "Platform fee", "FLAT", {"fee": "29"}),
            ("input_tokens", "Input tokens", "PER_UNIT", {"unitPrice": "0.0000035"}),
            ("output_tokens", "Output tokens", "PER_UNIT", {"unitPrice": "0.0000175"}),
            (
                "requests", "Requests", "QUOTA",
                {"included": "1500", "overageUnitPrice": "0.004"},
            ),
        ),
    ),
    # Sold in the first year, at prices below what the models cost today.
    "founders": (
        "Founders' plan", "inference", "USD",
        (
            ("platform", "Platform fee", "FLAT", {"fee": "49"}),
            ("input_tokens", "Input tokens", "PER_UNIT", {"unitPrice": "0.0000002"}),
            ("output_tokens", "Output tokens", "PER_UNIT", {"unitPrice": "0.000001"}),
        ),
    ),
    "growth-eu": (
        "Growth EU", "inference", "EUR",
        (
            ("platform", "Platform fee", "FLAT", {"fee": "189"}),
            (
                "input_tokens", "Input tokens", "GRADUATED",
                _tiers(("10000000", "0.0000032"), (None, "0.0000028")),
            ),
            (
                "output_tokens", "Output tokens", "VOLUME",
                _tiers(("1000000", "0.000016"), (None, "0.000014")),
            ),
            (
                "requests", "Requests", "QUOTA",
                {"included": "1000", "blockSize": "100", "blockPrice": "1"},
            ),
        ),
    ),
    "marketplace": (
        "Agent marketplace", "marketplace", "USD",
        (
            (
                "agent_sales", "Share of sales by agents", "PERCENTAGE",
                {"rate": "0.025", "fixedFee": "0.10", "minimumFee": "25"},
            ),
        ),
    ),
}  # fmt: skip
