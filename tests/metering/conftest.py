"""For the tests of metering: something that is sold, a way to send events, a sealer at hand."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from aforo.catalog import commands as catalog
from aforo.catalog.models import Aggregation, Meter
from aforo.metering import sealer
from aforo.metering.commands import ingest
from aforo.metering.sealer import Confirmed
from aforo.metering.verdicts import IngestAnswer
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.subscriptions import commands as subscriptions

ROUNDS_MAX = 20

Take = Callable[..., Awaitable[IngestAnswer]]
Seal = Callable[[], Awaitable[list[Confirmed]]]
Rows = Callable[..., Awaitable[list[Mapping[str, Any]]]]
Event = Callable[..., dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Market:
    """What the tenant sells, by code, and to whom, by external id."""

    meters: Mapping[str, Meter]
    customers: Mapping[str, UUID]
    subscriptions: Mapping[str, UUID]


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    """Three meters over `llm.request`; acme and globex have bought them 100 days ago."""
    async with runtime.scope(tenant_id) as scope:
        meters = [
            await catalog.create_meter(
                scope,
                code=code,
                name=code,
                event_type="llm.request",
                aggregation=aggregation,
                property_name=property_name,
            )
            for code, aggregation, property_name in (
                ("calls", Aggregation.COUNT, None),
                ("tokens", Aggregation.SUM, "tokens"),
                ("models", Aggregation.UNIQUE, "model"),
            )
        ]
        started = scope.now - timedelta(days=100)
        await catalog.create_cost_rate(
            scope,
            meter_id=meters[1].id,
            unit_cost=Decimal("0.000000030"),
            currency="USD",
            effective_from=started,
        )
        product = await catalog.create_product(scope, code="llm", name="LLM")
        plan = await catalog.create_rate_plan(
            scope,
            code="llm",
            name="LLM",
            currency="USD",
            lines=[
                catalog.NewLine(
                    code=meter.code,
                    name=meter.code,
                    model="PER_UNIT",
                    settings={"unitPrice": "0.001"},
                    meter_id=meter.id,
                )
                for meter in meters
            ],
        )
        offering = await catalog.create_offering(
            scope, code="llm", name="LLM", product_id=product.id, rate_plan_id=plan.id
        )
        customers: dict[str, UUID] = {}
        bought: dict[str, UUID] = {}
        for external_id in ("acme", "globex"):
            customer = await subscriptions.create_customer(
                scope, external_id=external_id, name=external_id, currency="USD"
            )
            subscription = await subscriptions.create_subscription(
                scope, customer_id=customer.id, offering_id=offering.id, starts_at=started
            )
            customers[external_id], bought[external_id] = customer.id, subscription.id
    return Market({meter.code: meter for meter in meters}, customers, bought)


@pytest.fixture
def event(runtime: Runtime) -> Event:
    """An event of acme an hour ago, under a key of its own unless one is given."""
    keys = count()

    def make(
        key: str | None = None, *, ago: timedelta = timedelta(hours=1), **change: Any
    ) -> dict[str, Any]:
        moment: datetime = runtime.clock.now() - ago
        return {
            "idempotencyKey": key or f"key-{next(keys)}",
            "type": "llm.request",
            "customer": "acme",
            "occurredAt": moment.isoformat(),
            "properties": {"tokens": 10, "model": "m1"},
            **change,
        }

    return make


@pytest.fixture
def take(runtime: Runtime, tenant_id: TenantId) -> Take:
    """Ingest one batch in a transaction of its own."""

    async def take(*events: object, atomic: bool = False) -> IngestAnswer:
        async with runtime.scope(tenant_id) as scope:
            return await ingest(
                scope, events, key_pepper=runtime.settings.key_pepper, atomic=atomic
            )

    return take


@pytest.fixture
def seal(runtime: Runtime) -> Seal:
    """Bring everything that was accepted into the log."""

    async def seal() -> list[Confirmed]:
        confirmed: list[Confirmed] = []
        async with sealer.leadership(runtime) as leader:
            assert leader is not None, "nobody else seals while a test runs"
            for _ in range(ROUNDS_MAX):
                found = await sealer.seal_and_confirm(runtime)
                if not found:
                    return confirmed
                confirmed += found
        raise AssertionError(f"after {ROUNDS_MAX} rounds there is still something to seal")

    return seal


@pytest.fixture
def rows(runtime: Runtime, tenant_id: TenantId) -> Rows:
    """The tenant's rows of a table, as PostgreSQL has them."""

    async def rows(table: str, order_by: str = "1") -> list[Mapping[str, Any]]:
        async with runtime.scope(tenant_id) as scope:
            found = await scope.db.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order_by}"))
            return [dict(row) for row in found.mappings()]

    return rows
