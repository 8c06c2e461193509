"""Tables of the customers, the billing hierarchy below them, and subscriptions."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.tables import (
    BY_CUSTOMER,
    Portal,
    TenantTable,
    belongs_to,
    choice,
    hidden,
    moment,
)


class BillingMode(StrEnum):
    """Where a charge goes at settlement."""

    POSTPAID = "POSTPAID"
    PREPAID = "PREPAID"
    HYBRID = "HYBRID"


class SubscriptionState(StrEnum):
    """Whether a subscription still runs."""

    ACTIVE = "ACTIVE"
    TERMINATED = "TERMINATED"


class CustomerOrder(StrEnum):
    """Orders of customers. Names are compared in lower case, by code point."""

    OLDEST_FIRST = "id"
    NEWEST_FIRST = "id desc"
    NAME_ASC = "sort_name"
    NAME_DESC = "sort_name desc"
    EXTERNAL_ID_ASC = "external_id"
    EXTERNAL_ID_DESC = "external_id desc"


class SubscriptionOrder(StrEnum):
    """Orders of subscriptions."""

    OLDEST_FIRST = "id"
    NEWEST_FIRST = "id desc"
    STARTS_AT_ASC = "starts_at"
    STARTS_AT_DESC = "starts_at desc"


class Customer(TenantTable, table=True):
    """The payer."""

    __tablename__ = "customer"
    __portal__ = Portal("id")
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "external_id"),
        sa.Index("customer_by_sort_name", "tenant_id", "sort_name", "id"),
        sa.Index("customer_by_segment", "tenant_id", "segment", "id"),
        sa.Index("customer_by_country", "tenant_id", "country", "id"),
        sa.Index("customer_by_currency", "tenant_id", "currency", "id"),
    )

    external_id: str
    """The tenant's own id of the customer, as events name it."""
    name: str
    email: str | None = None
    currency: str = Field(max_length=3)
    time_zone: str = "UTC"
    """IANA zone whose midnights bound the billing periods."""
    country: str | None = Field(default=None, max_length=2)
    region: str | None = None
    postal_code: str | None = None
    tax_number: str | None = None
    segment: str | None = None
    sort_name: str = Field(
        default=None,
        sa_type=sa.String(collation="C"),
        sa_column_args=(sa.Computed("lower(name)", persisted=True),),
    )
    """The name as it is ordered and searched: a column, so that an index can serve it."""


class Team(TenantTable, table=True):
    """A part of a customer: the second level of the billing hierarchy."""

    __tablename__ = "team"
    __portal__ = BY_CUSTOMER
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "customer_id", "code"),
    )

    customer_id: UUID
    code: str
    name: str


class Agent(TenantTable, table=True):
    """A program that works for a team: the third level."""

    __tablename__ = "agent"
    __portal__ = Portal("team_id", "team")
    __table_args__ = (
        belongs_to("team", "team_id"),
        sa.UniqueConstraint("tenant_id", "team_id", "code"),
    )

    team_id: UUID
    code: str
    name: str


class CustomerKey(TenantTable, table=True):
    """A customer's own API key: the lowest level. Only its hash is kept."""

    __tablename__ = "customer_key"
    __portal__ = BY_CUSTOMER
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        belongs_to("agent", "agent_id"),
        sa.UniqueConstraint("tenant_id", "key_hash"),
        sa.Index("customer_key_by_customer", "tenant_id", "customer_id", "id"),
    )

    customer_id: UUID
    agent_id: UUID | None = None
    name: str
    key_hash: bytes = hidden()
    valid_from: datetime = moment()
    valid_to: datetime | None = moment(default=None)


class CustomerAlias(TenantTable, table=True):
    """Another id of a customer, good for events that occurred in `[valid_from, valid_to)`."""

    __tablename__ = "customer_alias"
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        sa.UniqueConstraint("tenant_id", "external_id"),
        sa.Index("customer_alias_by_customer", "tenant_id", "customer_id", "id"),
    )

    customer_id: UUID
    external_id: str
    """Exactly as events name it."""
    valid_from: datetime = moment()
    valid_to: datetime | None = moment(default=None)


class Subscription(TenantTable, table=True):
    """A customer's purchase of one offering, for as long as `[starts_at, ends_at)`."""

    __tablename__ = "subscription"
    __portal__ = BY_CUSTOMER
    __table_args__ = (
        belongs_to("customer", "customer_id"),
        belongs_to("offering", "offering_id"),
        sa.Index("subscription_by_customer", "tenant_id", "customer_id", "starts_at"),
        sa.Index("subscription_by_due", "tenant_id", "billed_until"),
        sa.Index("subscription_by_customer_id", "tenant_id", "customer_id", "id"),
        sa.Index("subscription_by_offering", "tenant_id", "offering_id", "id"),
        sa.Index("subscription_by_start", "tenant_id", "starts_at", "id"),
    )

    customer_id: UUID
    offering_id: UUID
    state: SubscriptionState = choice(SubscriptionState, default=SubscriptionState.ACTIVE)
    billing_mode: BillingMode = choice(BillingMode, default=BillingMode.POSTPAID)
    starts_at: datetime = moment()
    ends_at: datetime | None = moment(default=None)
    anchor_day: int
    """Day of the month on which periods start, 1 to 31; short months use their last day."""
    grace_seconds: int = 3600
    """How long an invoice stays a draft after its period ended."""
    billed_until: datetime = moment()
    """End of the last period that has a finalised invoice; at first the start."""


class SubscriptionDiscount(TenantTable, table=True):
    """A discount that a subscription enjoys; the lowest position is applied first."""

    __tablename__ = "subscription_discount"
    __portal__ = Portal("subscription_id", "subscription")
    __table_args__ = (
        belongs_to("subscription", "subscription_id"),
        belongs_to("discount", "discount_id"),
        sa.UniqueConstraint("tenant_id", "subscription_id", "position"),
    )

    subscription_id: UUID
    discount_id: UUID
    position: int
