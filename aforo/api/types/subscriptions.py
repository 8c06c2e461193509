"""GraphQL of the customers, the hierarchy below them and subscriptions: how they are read."""

from datetime import datetime
from typing import Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, publish_enum
from aforo.api.parts.pages import children_in_pages
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.types.catalog import Discount, Offering
from aforo.api.types.quotas import QuotaUse, quotas_of
from aforo.api.types.wallets import Wallet, wallets_of
from aforo.catalog import queries as catalog
from aforo.storage.listing import PAGE_DEFAULT
from aforo.subscriptions import models, queries
from aforo.subscriptions.models import (
    BillingMode,
    SubscriptionState,
)

publish_enum(
    BillingMode,
    "Where a charge goes at settlement.",
    POSTPAID="On the invoice.",
    PREPAID="Into the wallet.",
    HYBRID="Into the wallet as far as it goes, the remainder on the invoice.",
)
publish_enum(
    SubscriptionState,
    "Whether a subscription still runs.",
    ACTIVE="It runs, or is still to start.",
    TERMINATED="It has ended.",
)


@relay.fetched_by(queries.customers_by_id)
@strawberry.type(description="The payer.")
class Customer(Node):
    row_id: strawberry.Private[UUID]
    external_id: str = strawberry.field(description="The tenant's own id of it, as in events.")
    name: str = strawberry.field(description="Its name for people.")
    email: str | None = strawberry.field(description="Where its invoices go.")
    currency: str = strawberry.field(description="ISO 4217 code of what it pays in.")
    time_zone: str = strawberry.field(
        description="IANA zone whose midnights bound its billing periods."
    )
    country: str | None = strawberry.field(description="ISO 3166 code of two letters.")
    region: str | None = strawberry.field(description="State or province, for taxes.")
    postal_code: str | None = strawberry.field(description="For taxes.")
    tax_number: str | None = strawberry.field(description="Such as a VAT id.")
    segment: str | None = strawberry.field(description="What kind of customer it is.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Customer) -> Self:
        return cls(
            id=relay.global_id("Customer", row.id),
            row_id=row.id,
            external_id=row.external_id,
            name=row.name,
            email=row.email,
            currency=row.currency,
            time_zone=row.time_zone,
            country=row.country,
            region=row.region,
            postal_code=row.postal_code,
            tax_number=row.tax_number,
            segment=row.segment,
            created_at=row.created_at,
        )

    @field("Its teams, oldest first.")
    async def teams(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection["Team"]:
        return await children_in_pages(
            info.context,
            queries.TEAMS_BY_CUSTOMER,
            self.row_id,
            first=first,
            after=after,
            of=Team.from_row,
        )

    @field("Its own API keys, oldest first.")
    async def keys(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection["CustomerKey"]:
        return await children_in_pages(
            info.context,
            queries.KEYS_BY_CUSTOMER,
            self.row_id,
            first=first,
            after=after,
            of=CustomerKey.from_row,
        )

    @field("Other ids by which events may name it, oldest first, also those that have ended.")
    async def aliases(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection["CustomerAlias"]:
        return await children_in_pages(
            info.context,
            queries.ALIASES_BY_CUSTOMER,
            self.row_id,
            first=first,
            after=after,
            of=CustomerAlias.from_row,
        )

    @field("Its subscriptions, oldest first, also those that have ended.")
    async def subscriptions(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection["CustomerSubscription"]:
        return await children_in_pages(
            info.context,
            queries.SUBSCRIPTIONS_BY_CUSTOMER,
            self.row_id,
            first=first,
            after=after,
            of=CustomerSubscription.from_row,
        )

    @field("The quotas that its subscriptions grant now, each beside its use.")
    async def quotas(self, info: Info) -> list[QuotaUse]:
        return await quotas_of(info, self.row_id)

    @field("Its wallets, one per currency; at most 100.")
    async def wallets(self, info: Info) -> list[Wallet]:
        return await wallets_of(info, self.row_id)


@relay.fetched_by(queries.teams_by_id)
@strawberry.type(description="A part of a customer: the second level of the billing hierarchy.")
class Team(Node):
    row_id: strawberry.Private[UUID]
    customer_id: strawberry.Private[UUID]
    code: str = strawberry.field(description="Its name for machines, unique in the customer.")
    name: str = strawberry.field(description="Its name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Team) -> Self:
        return cls(
            id=relay.global_id("Team", row.id),
            row_id=row.id,
            customer_id=row.customer_id,
            code=row.code,
            name=row.name,
            created_at=row.created_at,
        )

    @field("The customer that it is a part of.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)

    @field("Its agents, oldest first.")
    async def agents(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection["Agent"]:
        return await children_in_pages(
            info.context,
            queries.AGENTS_BY_TEAM,
            self.row_id,
            first=first,
            after=after,
            of=Agent.from_row,
        )


@relay.fetched_by(queries.agents_by_id)
@strawberry.type(description="A program that works for a team: the third level.")
class Agent(Node):
    team_id: strawberry.Private[UUID]
    code: str = strawberry.field(description="Its name for machines, unique in the team.")
    name: str = strawberry.field(description="Its name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Agent) -> Self:
        return cls(
            id=relay.global_id("Agent", row.id),
            team_id=row.team_id,
            code=row.code,
            name=row.name,
            created_at=row.created_at,
        )

    @field("The team that it works for.")
    async def team(self, info: Info) -> Team:
        row = await info.context.load(queries.teams_by_id, self.team_id)
        assert row is not None, "a foreign key holds it"
        return Team.from_row(row)


@relay.fetched_by(queries.customer_keys_by_id)
@strawberry.type(
    description="A customer's own API key: the lowest level. Only a hash of it is kept."
)
class CustomerKey(Node):
    customer_id: strawberry.Private[UUID]
    agent_id: strawberry.Private[UUID | None]
    name: str = strawberry.field(description="Its name for people.")
    valid_from: datetime = strawberry.field(
        description="Events that occurred from this moment on may name it."
    )
    valid_to: datetime | None = strawberry.field(
        description="Events that occurred from this moment on may not; null for no end."
    )
    created_at: datetime = strawberry.field(description="When it was registered.")

    @classmethod
    def from_row(cls, row: models.CustomerKey) -> Self:
        return cls(
            id=relay.global_id("CustomerKey", row.id),
            customer_id=row.customer_id,
            agent_id=row.agent_id,
            name=row.name,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            created_at=row.created_at,
        )

    @field("The customer that it belongs to.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)

    @field("The agent that uses it, if it is one agent's.")
    async def agent(self, info: Info) -> Agent | None:
        if self.agent_id is None:
            return None
        row = await info.context.load(queries.agents_by_id, self.agent_id)
        return None if row is None else Agent.from_row(row)


@relay.fetched_by(queries.customer_aliases_by_id)
@strawberry.type(description="Another id by which events may name a customer.")
class CustomerAlias(Node):
    customer_id: strawberry.Private[UUID]
    external_id: str = strawberry.field(description="The id, as events name it as `customer`.")
    valid_from: datetime = strawberry.field(
        description="Events that occurred from this moment on may name it."
    )
    valid_to: datetime | None = strawberry.field(
        description="Events that occurred from this moment on may not; null for no end."
    )
    created_at: datetime = strawberry.field(description="When it was registered.")

    @classmethod
    def from_row(cls, row: models.CustomerAlias) -> Self:
        return cls(
            id=relay.global_id("CustomerAlias", row.id),
            customer_id=row.customer_id,
            external_id=row.external_id,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            created_at=row.created_at,
        )

    @field("The customer that it stands for.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)


@relay.fetched_by(queries.subscriptions_by_id)
@strawberry.type(description="A customer's purchase of one offering.")
class CustomerSubscription(Node):
    # Not plain `Subscription`: clients take a type of that name for the root of live streams.
    row_id: strawberry.Private[UUID]
    customer_id: strawberry.Private[UUID]
    offering_id: strawberry.Private[UUID]
    stored_state: strawberry.Private[SubscriptionState]
    billing_mode: BillingMode = strawberry.field(description="Where its charges go.")
    starts_at: datetime = strawberry.field(description="Usage from this moment on is billed.")
    ends_at: datetime | None = strawberry.field(
        description="Usage from this moment on is not billed; null while it has no end."
    )
    anchor_day: int = strawberry.field(
        description="Day of the month on which periods start; the last one of a shorter month."
    )
    grace_seconds: int = strawberry.field(
        description="How long its invoices stay drafts after their period ended."
    )
    billed_until: datetime = strawberry.field(
        description="End of the last period with a final invoice; at first its start."
    )
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Subscription) -> Self:
        return cls(
            id=relay.global_id("CustomerSubscription", row.id),
            row_id=row.id,
            customer_id=row.customer_id,
            offering_id=row.offering_id,
            stored_state=row.state,
            billing_mode=row.billing_mode,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            anchor_day=row.anchor_day,
            grace_seconds=row.grace_seconds,
            billed_until=row.billed_until,
            created_at=row.created_at,
        )

    @field("Whether it still runs.")
    def state(self, info: Info) -> SubscriptionState:
        # An end that was set ahead comes without anybody writing to the row.
        if self.ends_at is not None and self.ends_at <= info.context.runtime.clock.now():
            return SubscriptionState.TERMINATED
        return self.stored_state

    @field("Who bought it.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)

    @field("What was bought.")
    async def offering(self, info: Info) -> Offering:
        row = await info.context.load(catalog.offerings_by_id, self.offering_id)
        assert row is not None, "a foreign key holds it"
        return Offering.from_row(row)

    @field("Its discounts, in the order in which they apply; at most 20.")
    async def discounts(self, info: Info) -> list[Discount]:
        rows = await info.context.load(queries.discounts_by_subscription, self.row_id)
        return [Discount.from_row(row) for row in rows or ()]


async def customer_of(info: Info, customer_id: UUID) -> Customer:
    """The customer that a row belongs to."""
    row = await info.context.load(queries.customers_by_id, customer_id)
    assert row is not None, "a foreign key holds it"
    return Customer.from_row(row)
