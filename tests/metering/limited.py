"""A log, a meter over it, and customers with quotas of that meter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.catalog.commands import (
    NewLine,
    create_entitlement,
    create_meter,
    create_offering,
    create_product,
    create_rate_plan,
)
from aforo.catalog.models import Aggregation, EntitlementKind, Meter, QuotaPolicy
from aforo.catalog.quota_terms import QuotaTerms
from aforo.metering import limits, queries, quotas, usage
from aforo.metering.aggregate import selection
from aforo.metering.cuts import Cut, blocked_events
from aforo.metering.queries import moment
from aforo.sdk.ids import CustomerId, TenantId
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.subscriptions.commands import create_customer, create_subscription
from tests.metering.usage_log import CUSTOMER, UsageLog, Used

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
MONTH = Period(START, END)
SUM, COUNT, UNIQUE = Aggregation.SUM, Aggregation.COUNT, Aggregation.UNIQUE


@dataclass
class Shop:
    """A log, a meter over it, and who has a quota of that meter."""

    log: UsageLog
    meter: Meter
    customers: dict[str, UUID] = field(default_factory=dict)

    @classmethod
    async def open(
        cls,
        runtime: Runtime,
        tenant_id: TenantId,
        aggregation: Aggregation = SUM,
        *,
        corrected: bool = True,
    ) -> "Shop":
        async with runtime.scope(tenant_id) as scope:
            meter = await create_meter(
                scope,
                code=new_id().hex,
                name="m",
                event_type="call",
                aggregation=aggregation,
                property_name=None if aggregation is COUNT else "v",
                allows_negative=corrected and aggregation is SUM,
                dimensions=["model"],
            )
        return cls(UsageLog(runtime, tenant_id), meter)

    async def sell(
        self,
        limit: str,
        *,
        to: str = "acme",
        starts_at: datetime = START,
        policy: QuotaPolicy = QuotaPolicy.BLOCK,
        zone: str = "UTC",
        **terms: Any,
    ) -> UUID:
        """A quota of the meter to a customer; the subscription."""
        code = new_id().hex
        async with self.scope() as scope:
            quota = await create_entitlement(
                scope,
                code=code,
                name="q",
                kind=EntitlementKind.QUOTA,
                meter_id=self.meter.id,
                quota=Decimal(limit),
                terms=QuotaTerms(policy=policy, **terms),
            )
            product = await create_product(scope, code=code, name="p")
            fee = NewLine(code="fee", name="Fee", model="FLAT", settings={"fee": "1"})
            plan = await create_rate_plan(scope, code=code, name="p", currency="USD", lines=[fee])
            offering = await create_offering(
                scope,
                code=code,
                name="o",
                product_id=product.id,
                rate_plan_id=plan.id,
                entitlement_ids=[quota.id],
            )
            if to not in self.customers:
                customer = await create_customer(
                    scope, external_id=to, name=to, currency="USD", time_zone=zone
                )
                self.customers[to] = customer.id
            subscription = await create_subscription(
                scope,
                customer_id=self.customers[to],
                offering_id=offering.id,
                starts_at=starts_at,
                anchor_day=1,
            )
        return subscription.id

    def scope(self) -> Any:
        return self.log.runtime.scope(self.log.tenant_id)

    def used(self, value: object, *, at: datetime = START, by: str = "acme", **more: Any) -> Used:
        properties = {"model": "m", **more} | ({} if value is None else {"v": value})
        return Used(at=at, customer=self.customers[by], properties=properties)

    async def write(self, *values: object, at: datetime = START) -> None:
        """One segment of acme's."""
        await self.log.write([self.used(value, at=at) for value in values])

    async def cuts(self, period: Period = MONTH) -> Sequence[Cut]:
        async with self.scope() as scope:
            return await limits.blocked(scope, self.meter, period, watermark=self.log.watermark)

    async def quantity(self, period: Period = MONTH, by: str = "acme") -> Decimal:
        """What counts, as bills have it, and as the usage of the customer has it."""
        async with self.scope() as scope:
            found = await quotas.used_by_customer(
                scope, self.meter, period, [self.customers[by]], self.log.watermark
            )
            where = [(CUSTOMER, [str(self.customers[by])])]
            shown = await usage.usage_total(scope, self.log.of(self.meter, period, where=where))
        counted = found.get(CustomerId(self.customers[by]), Decimal(0))
        assert counted == shown.quantity
        return counted

    async def blocked(self, period: Period = MONTH) -> tuple[Decimal, int]:
        async with self.scope() as scope:
            found = await usage.usage_blocked(scope, self.log.of(self.meter, period))
        return found.quantity, found.events

    async def places(self, period: Period = MONTH) -> list[tuple[int, int]]:
        """The places of the events that are blocked, segments counted from 0."""
        cuts = await self.cuts(period)
        if not cuts:
            return []
        counted = selection(queries.rule_of(self.meter))
        async with self.scope() as scope:
            rows = await scope.events.query(
                "SELECT segment_id, position FROM "
                f"{blocked_events(counted, queries.IN_PERIOD, cuts)} "
                "ORDER BY segment_id, position",
                **counted.parameters,
                watermark=self.log.watermark,
                start=moment(period.start),
                end=moment(period.end),
            )
        numbers = {segment_id: at for at, segment_id in enumerate(sorted(self.log.segments))}
        return [(numbers[row["segment_id"]], row["position"]) for row in rows]
