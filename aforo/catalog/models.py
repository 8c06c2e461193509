"""Tables of the catalogue. Each row of a versioned thing is one of its versions."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.tables import (
    SHARED,
    Portal,
    TenantTable,
    belongs_to,
    choice,
    exact,
    json,
    moment,
)


class CodeOrder(StrEnum):
    """Orders of things with a code."""

    OLDEST_FIRST = "id"
    NEWEST_FIRST = "id desc"
    CODE_ASC = "code"
    CODE_DESC = "code desc"


class Aggregation(StrEnum):
    """How a period's events become one quantity of billable units."""

    SUM = "SUM"
    COUNT = "COUNT"
    MAX = "MAX"
    UNIQUE = "UNIQUE"
    LATEST = "LATEST"


class EntitlementKind(StrEnum):
    """What an entitlement grants."""

    BOOLEAN = "BOOLEAN"
    QUOTA = "QUOTA"


class QuotaPolicy(StrEnum):
    """What becomes of usage beyond a quota."""

    OVERAGE = "OVERAGE"
    BLOCK = "BLOCK"


class WhenUnavailable(StrEnum):
    """What a check answers where nobody can say how much was used."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class QuotaReset(StrEnum):
    """When a quota begins anew."""

    BILLING_PERIOD = "BILLING_PERIOD"
    CALENDAR = "CALENDAR"
    FIXED = "FIXED"
    SLIDING = "SLIDING"
    NEVER = "NEVER"


class CalendarUnit(StrEnum):
    """Stretches of the calendar, in the customer's time zone."""

    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


class DiscountKind(StrEnum):
    """How a discount is stated."""

    PERCENTAGE = "PERCENTAGE"
    FIXED = "FIXED"


class Interval(StrEnum):
    """How long a billing period is."""

    MONTH = "MONTH"


class Product(TenantTable, table=True):
    """What margins and reports are shown by; an offering belongs to one."""

    __tablename__ = "product"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "code"),)

    code: str
    name: str


class Meter(TenantTable, table=True):
    """How events become billable units: which events, and what is counted of them."""

    __tablename__ = "meter"
    __portal__ = SHARED
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "code", "version"),
        sa.Index("meter_by_event_type", "tenant_id", "event_type"),
    )

    code: str
    version: int = 1
    name: str
    unit: str = ""
    """What one unit is called on an invoice, such as `token`."""
    event_type: str
    aggregation: Aggregation = choice(Aggregation)
    property: str | None = None
    """The event property that is counted; none for COUNT."""
    filters: list[dict[str, Any]] = json(default_factory=list)
    """Conditions that all must hold: `{"property": …, "values": […]}`."""
    allows_negative: bool = False
    """Whether events may correct the sum downwards."""
    dimensions: list[str] = json(default_factory=list)
    """Event properties by whose values usage can be told apart."""


class CostRate(TenantTable, table=True):
    """Our own price of serving one unit of a meter: what COGS are computed from."""

    __tablename__ = "cost_rate"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "meter_code", "version"),
        sa.Index("cost_rate_by_meter", "tenant_id", "meter_code", "effective_from"),
    )

    meter_code: str
    """Rates follow the meter through its versions."""
    version: int
    unit_cost: Decimal = exact()
    currency: str = Field(max_length=3)
    effective_from: datetime = moment()


class RatePlan(TenantTable, table=True):
    """Priced lines over meters, in one currency."""

    __tablename__ = "rate_plan"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "code", "version"),)

    code: str
    version: int = 1
    name: str
    currency: str = Field(max_length=3)
    interval: Interval = choice(Interval, default=Interval.MONTH)


class RatePlanLine(TenantTable, table=True):
    """One price: a pricing model with its settings, over a meter unless it is a flat fee."""

    __tablename__ = "rate_plan_line"
    __table_args__ = (
        belongs_to("rate_plan", "rate_plan_id"),
        belongs_to("meter", "meter_id"),
        sa.UniqueConstraint("tenant_id", "rate_plan_id", "code"),
        sa.UniqueConstraint("tenant_id", "rate_plan_id", "position"),
    )

    rate_plan_id: UUID
    position: int
    code: str
    name: str
    meter_id: UUID | None = None
    model: str
    """Key of the pricing model in the registry."""
    settings: dict[str, Any] = json(default_factory=dict)
    tax_category: str | None = None


class Entitlement(TenantTable, table=True):
    """A feature gate, or a quota over a meter, that a plan grants."""

    __tablename__ = "entitlement"
    __portal__ = Portal("id", "offering_entitlement", "entitlement_id")
    __table_args__ = (
        belongs_to("meter", "meter_id"),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )

    code: str
    version: int = 1
    name: str
    kind: EntitlementKind = choice(EntitlementKind)
    meter_id: UUID | None = None
    quota: Decimal | None = exact(default=None)
    """Units until the quota begins anew."""
    when_unavailable: WhenUnavailable = choice(WhenUnavailable, default=WhenUnavailable.OPEN)
    policy: QuotaPolicy | None = choice(QuotaPolicy, default=None, nullable=True)
    """None, as the rest, for a BOOLEAN."""
    rate_per_second: Decimal | None = exact(default=None)
    reset: QuotaReset | None = choice(QuotaReset, default=None, nullable=True)
    reset_unit: CalendarUnit | None = choice(CalendarUnit, default=None, nullable=True)
    reset_seconds: int | None = None
    rollover_periods: int | None = None
    rollover_cap: Decimal | None = exact(default=None)


class Offering(TenantTable, table=True):
    """What a subscription subscribes to: pins one version each of meters, rate plan and
    entitlements."""

    __tablename__ = "offering"
    __portal__ = Portal("id", "subscription", "offering_id")
    __table_args__ = (
        belongs_to("product", "product_id"),
        belongs_to("rate_plan", "rate_plan_id"),
        sa.UniqueConstraint("tenant_id", "code", "version"),
    )

    code: str
    version: int = 1
    name: str
    product_id: UUID
    rate_plan_id: UUID


class OfferingEntitlement(TenantTable, table=True):
    """An entitlement version that an offering pins."""

    __tablename__ = "offering_entitlement"
    __portal__ = Portal("offering_id", "offering")
    __table_args__ = (
        belongs_to("offering", "offering_id"),
        belongs_to("entitlement", "entitlement_id"),
        sa.UniqueConstraint("tenant_id", "offering_id", "entitlement_id"),
    )

    offering_id: UUID
    entitlement_id: UUID


class Discount(TenantTable, table=True):
    """A reduction of an invoice's subtotal, by a share or by an amount."""

    __tablename__ = "discount"
    __portal__ = Portal("id", "subscription_discount", "discount_id")
    __table_args__ = (sa.UniqueConstraint("tenant_id", "code"),)

    code: str
    name: str
    kind: DiscountKind = choice(DiscountKind)
    rate: Decimal | None = exact(default=None)
    """The share of a PERCENTAGE discount: 0.10 is ten percent."""
    amount: Decimal | None = exact(default=None)
    """The amount of a FIXED discount, in `currency`."""
    currency: str | None = Field(default=None, max_length=3)
