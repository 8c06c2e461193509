"""A small shop for tests: one plan with a fee, one meter that costs us money, some customers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from aforo.catalog.commands import (
    NewLine,
    create_cost_rate,
    create_discount,
    create_meter,
    create_offering,
    create_product,
    create_rate_plan,
)
from aforo.catalog.models import Aggregation, DiscountKind
from aforo.sdk.ids import TenantId
from aforo.signals import queries as signals
from aforo.signals.models import Signal
from aforo.storage.scope import Runtime, Scope
from aforo.subscriptions.commands import create_customer, create_subscription

STARTS_AT = datetime(2026, 11, 1, tzinfo=UTC)
"""When the subscriptions start, and the first period with them; it ends with the month."""

_KEYS = count()


@dataclass(frozen=True, slots=True)
class Shop:
    """What was created."""

    customers: dict[str, UUID]
    subscriptions: dict[str, UUID]


async def open_shop(
    runtime: Runtime,
    tenant_id: TenantId,
    *,
    customers: Sequence[str] = ("acme",),
    name: str = "shop",
    fee: str = "100",
    unit_price: str = "0",
    currency: str = "USD",
    unit_cost: str | None = "1",
    costs_from: datetime = STARTS_AT,
    cost_currency: str = "USD",
    percent_off: int = 0,
) -> Shop:
    """Sell `units` of the event type `<name>.call` for a monthly fee and a price per unit."""
    async with runtime.scope(tenant_id) as scope:
        product = await create_product(scope, code=name, name=name)
        meter = await create_meter(
            scope,
            code=f"{name}-units",
            name="Units",
            event_type=f"{name}.call",
            aggregation=Aggregation.SUM,
            property_name="units",
        )
        if unit_cost is not None:
            await create_cost_rate(
                scope,
                meter_id=meter.id,
                unit_cost=Decimal(unit_cost),
                currency=cost_currency,
                effective_from=costs_from,
            )
        plan = await create_rate_plan(
            scope,
            code=name,
            name=name,
            currency=currency,
            lines=[
                NewLine(code="fee", name="Fee", model="FLAT", settings={"fee": fee}),
                NewLine(
                    code="units",
                    name="Units",
                    model="PER_UNIT",
                    settings={"unitPrice": unit_price},
                    meter_id=meter.id,
                ),
            ],
        )
        offering = await create_offering(
            scope, code=name, name=name, product_id=product.id, rate_plan_id=plan.id
        )
        discounts = [await _discount(scope, name, percent_off)] if percent_off else []
        shop = Shop({}, {})
        for external_id in customers:
            customer = await create_customer(
                scope, external_id=external_id, name=external_id, currency=currency
            )
            subscription = await create_subscription(
                scope,
                customer_id=customer.id,
                offering_id=offering.id,
                starts_at=STARTS_AT,
                discount_ids=discounts,
            )
            shop.customers[external_id] = customer.id
            shop.subscriptions[external_id] = subscription.id
    return shop


async def _discount(scope: Scope, name: str, percent_off: int) -> UUID:
    discount = await create_discount(
        scope,
        code=f"{name}-off",
        name="Off",
        kind=DiscountKind.PERCENTAGE,
        rate=Decimal(percent_off) / 100,
    )
    return discount.id


async def signals_of(runtime: Runtime, tenant_id: TenantId) -> list[Signal]:
    """All signals, the oldest first."""
    async with runtime.scope(tenant_id) as scope:
        return (await signals.signals().page(scope, first=100))[::-1]


def call(
    units: str | int,
    *,
    customer: str = "acme",
    at: datetime | None = None,
    name: str = "shop",
) -> dict[str, Any]:
    """An event of the shop's type under a key of its own, two days before the tests' now."""
    return {
        "idempotencyKey": f"call-{next(_KEYS)}",
        "type": f"{name}.call",
        "customer": customer,
        "occurredAt": (at or datetime(2026, 11, 18, 12, tzinfo=UTC)).isoformat(),
        "properties": {"units": str(units)},
    }
