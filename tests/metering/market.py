"""A tenant that sells three meters over one type of event, and what tests do there."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from aforo.catalog import commands as catalog
from aforo.catalog.models import Aggregation, Meter
from aforo.metering import queries, sealer
from aforo.metering.commands import ingest
from aforo.metering.leadership import leadership
from aforo.metering.sealer import Confirmed
from aforo.metering.stored import StoredEvent, unpacked
from aforo.metering.verdicts import IngestAnswer
from aforo.sdk.ids import CustomerId, TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime, Scope
from aforo.subscriptions import commands as subscriptions
from aforo.subscriptions import queries as bought

ROUNDS_MAX = 20
KEPT = ("event_key", "event_inbox", "quarantined_event", "event_conflict", "ingest_batch")
"""Tables that a batch writes."""
_KEYS = count()


@dataclass(frozen=True, slots=True)
class Market:
    """What the tenant sells, by code, and to whom, by external id."""

    runtime: Runtime
    tenant_id: TenantId
    meters: Mapping[str, Meter]
    customers: Mapping[str, UUID]
    subscriptions: Mapping[str, UUID]

    def scope(self) -> AbstractAsyncContextManager[Scope]:
        return self.runtime.scope(self.tenant_id)

    def event(
        self, key: str | None = None, *, ago: timedelta = timedelta(hours=1), **change: Any
    ) -> dict[str, Any]:
        """An event of acme an hour ago, under a key of its own unless one is given."""
        return {
            "idempotencyKey": key or f"key-{next(_KEYS)}",
            "type": "llm.request",
            "customer": "acme",
            "occurredAt": (self.runtime.clock.now() - ago).isoformat(),
            "properties": {"tokens": 10, "model": "m1"},
            **change,
        }

    async def take(
        self, *events: object, atomic: bool = False, backfill: UUID | None = None
    ) -> IngestAnswer:
        """Ingest one batch."""
        return await ingest(
            self.runtime, self.tenant_id, events, atomic=atomic, backfill_id=backfill
        )

    async def waiting(self) -> list[StoredEvent]:
        """The events that are in the inbox, in its order."""
        rows = await self.rows("event_inbox", order_by="seq")
        return [event for row in rows for event in unpacked(row["body"])]

    async def let_in(self, name: str) -> UUID:
        """Make a customer who buys what acme has bought, for as long."""
        async with self.scope() as scope:
            found = await bought.subscriptions_by_id(scope, [self.subscriptions["acme"]])
            [acme] = found.values()
            customer = await subscriptions.create_customer(
                scope, external_id=name, name=name, currency="USD"
            )
            await subscriptions.create_subscription(
                scope,
                customer_id=customer.id,
                offering_id=acme.offering_id,
                starts_at=acme.starts_at,
            )
        return customer.id

    async def seal(self) -> list[Confirmed]:
        """Bring everything that was accepted into the log; the segments of this tenant."""
        confirmed = await self.try_to_seal()
        assert confirmed is not None, "nobody else seals while a test runs"
        return confirmed

    async def try_to_seal(self) -> list[Confirmed] | None:
        """The same, or None where another process has the right to."""
        confirmed: list[Confirmed] = []
        async with leadership(self.runtime) as leader:
            if leader is None:
                return None
            for _ in range(ROUNDS_MAX):
                found = await sealer.seal_and_confirm(self.runtime)
                if not found:
                    return confirmed
                confirmed += [one for one in found if one.tenant_id == self.tenant_id]
        raise AssertionError(f"after {ROUNDS_MAX} rounds there is still something to seal")

    async def rows(self, table: str, order_by: str = "1") -> list[Mapping[str, Any]]:
        """The tenant's rows of a table, as PostgreSQL has them."""
        async with self.scope() as scope:
            found = await scope.db.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order_by}"))
            return [dict(row) for row in found.mappings()]

    async def used(self, code: str, customer: str = "acme") -> Decimal:
        """What a customer used of a meter, ever."""
        async with self.scope() as scope:
            usage = await queries.usage_by_customer(
                scope,
                self.meters[code],
                Period(scope.now - timedelta(days=400), scope.now + timedelta(days=400)),
                watermark=await queries.watermark(scope),
            )
        found = usage.get(CustomerId(self.customers[customer]))
        return Decimal(0) if found is None else found.quantity


async def open_market(runtime: Runtime, tenant_id: TenantId) -> Market:
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
        subscribed: dict[str, UUID] = {}
        for external_id in ("acme", "globex"):
            customer = await subscriptions.create_customer(
                scope, external_id=external_id, name=external_id, currency="USD"
            )
            subscription = await subscriptions.create_subscription(
                scope, customer_id=customer.id, offering_id=offering.id, starts_at=started
            )
            customers[external_id], subscribed[external_id] = customer.id, subscription.id
    return Market(
        runtime, tenant_id, {meter.code: meter for meter in meters}, customers, subscribed
    )
