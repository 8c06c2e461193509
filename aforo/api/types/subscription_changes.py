"""GraphQL of the customers and subscriptions: what can be created and ended."""

from datetime import datetime
from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import local_id, optional_id
from aforo.api.types.subscriptions import Agent, Customer, CustomerKey, CustomerSubscription, Team
from aforo.subscriptions import commands
from aforo.subscriptions.models import BillingMode
from aforo.tenants.permissions import Permission

CODE = "Its name for machines: 1 to 64 of `a-z 0-9 _ . -`, never changed."
NAME = "Its name for people, 1 to 200 characters."


@strawberry.input(description="A new customer.")
class CreateCustomerInput:
    external_id: str = strawberry.field(
        description="Your own id of it, 1 to 255 characters: what events name as `customer`."
    )
    name: str = strawberry.field(description=NAME)
    currency: str = strawberry.field(description="ISO 4217 code of what it pays in.")
    time_zone: str = strawberry.field(
        default="UTC", description="IANA zone whose midnights bound its billing periods."
    )
    email: str | None = strawberry.field(default=None, description="Where its invoices go.")
    country: str | None = strawberry.field(
        default=None, description="ISO 3166 code of two letters."
    )
    region: str | None = strawberry.field(default=None, description="State or province, for taxes.")
    postal_code: str | None = strawberry.field(default=None, description="For taxes.")
    tax_number: str | None = strawberry.field(default=None, description="Such as a VAT id.")
    segment: str | None = strawberry.field(
        default=None, description="What kind of customer it is, in your own word."
    )


@strawberry.input(description="A new part of a customer.")
class CreateTeamInput:
    customer_id: strawberry.ID = strawberry.field(description="The customer.")
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)


@strawberry.input(description="A new program that works for a team.")
class CreateAgentInput:
    team_id: strawberry.ID = strawberry.field(description="The team.")
    code: str = strawberry.field(description=CODE)
    name: str = strawberry.field(description=NAME)


@strawberry.input(description="A key that a customer uses with you, so that events may name it.")
class RegisterCustomerKeyInput:
    customer_id: strawberry.ID = strawberry.field(description="The customer.")
    name: str = strawberry.field(description=NAME)
    key: str = strawberry.field(
        description="The key as events name it, 16 to 255 characters. Only a hash is kept."
    )
    agent_id: strawberry.ID | None = strawberry.field(
        default=None, description="The agent of this customer that uses it, if it is one's own."
    )
    valid_from: datetime | None = strawberry.field(
        default=None, description="Good for events from this moment on; now if not given."
    )
    valid_to: datetime | None = strawberry.field(
        default=None, description="Good for events before this moment; no end if not given."
    )


@strawberry.input(description="A new subscription.")
class CreateSubscriptionInput:
    customer_id: strawberry.ID = strawberry.field(description="Who buys.")
    offering_id: strawberry.ID = strawberry.field(
        description="What is bought; its prices are in the customer's currency."
    )
    starts_at: datetime | None = strawberry.field(
        default=None, description="From when on usage is billed, at most 400 days back; now."
    )
    billing_mode: BillingMode = strawberry.field(
        default=BillingMode.POSTPAID, description="Where its charges go."
    )
    anchor_day: int | None = strawberry.field(
        default=None,
        description="Day of the month on which periods start, 1 to 31; the day it starts.",
    )
    grace_seconds: int | None = strawberry.field(
        default=None,
        description="How long its invoices stay drafts after their period ended; late events "
        "still enter. Unless given, what the stage SETTLEMENT is set to: an hour, as it is "
        "delivered.",
    )
    discount_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Its discounts in the order in which they apply."
    )


@strawberry.input(description="A subscription to end.")
class EndSubscriptionInput:
    subscription_id: strawberry.ID = strawberry.field(description="The subscription.")
    ends_at: datetime | None = strawberry.field(
        default=None, description="Usage before this moment is still billed; now if not given."
    )


CreateCustomerResult = Annotated[
    Customer | InvalidProblem | ConflictProblem,
    strawberry.union("CreateCustomerResult", description="The customer, or why there is none."),
]
CreateTeamResult = Annotated[
    Team | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateTeamResult", description="The team, or why there is none."),
]
CreateAgentResult = Annotated[
    Agent | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateAgentResult", description="The agent, or why there is none."),
]
RegisterCustomerKeyResult = Annotated[
    CustomerKey | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("RegisterCustomerKeyResult", description="The key, or why there is none."),
]
CreateSubscriptionResult = Annotated[
    CustomerSubscription | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateSubscriptionResult", description="It, or why there is none."),
]
EndSubscriptionResult = Annotated[
    CustomerSubscription | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("EndSubscriptionResult", description="It, or why it does not end."),
]


@strawberry.type
class SubscriptionMutation:
    @mutation("Create a customer.", needs=Permission.CUSTOMERS_WRITE)
    async def create_customer(self, info: Info, input: CreateCustomerInput) -> CreateCustomerResult:
        async with info.context.scope() as scope:
            row = await commands.create_customer(
                scope,
                external_id=input.external_id,
                name=input.name,
                currency=input.currency,
                time_zone=input.time_zone,
                email=input.email,
                country=input.country,
                region=input.region,
                postal_code=input.postal_code,
                tax_number=input.tax_number,
                segment=input.segment,
            )
        return Customer.from_row(row)

    @mutation("Create a team of a customer.", needs=Permission.CUSTOMERS_WRITE)
    async def create_team(self, info: Info, input: CreateTeamInput) -> CreateTeamResult:
        async with info.context.scope() as scope:
            row = await commands.create_team(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                code=input.code,
                name=input.name,
            )
        return Team.from_row(row)

    @mutation("Create an agent of a team.", needs=Permission.CUSTOMERS_WRITE)
    async def create_agent(self, info: Info, input: CreateAgentInput) -> CreateAgentResult:
        async with info.context.scope() as scope:
            row = await commands.create_agent(
                scope,
                team_id=local_id("Team", input.team_id, field="teamId"),
                code=input.code,
                name=input.name,
            )
        return Agent.from_row(row)

    @mutation("Register a customer's own API key.", needs=Permission.CUSTOMERS_WRITE)
    async def register_customer_key(
        self, info: Info, input: RegisterCustomerKeyInput
    ) -> RegisterCustomerKeyResult:
        async with info.context.scope() as scope:
            row = await commands.register_customer_key(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                name=input.name,
                key=input.key,
                pepper=info.context.runtime.settings.key_pepper,
                agent_id=optional_id("Agent", input.agent_id, field="agentId"),
                valid_from=input.valid_from,
                valid_to=input.valid_to,
            )
        return CustomerKey.from_row(row)

    @mutation("Subscribe a customer to an offering.", needs=Permission.CUSTOMERS_WRITE)
    async def create_subscription(
        self, info: Info, input: CreateSubscriptionInput
    ) -> CreateSubscriptionResult:
        async with info.context.scope() as scope:
            row = await commands.create_subscription(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                offering_id=local_id("Offering", input.offering_id, field="offeringId"),
                starts_at=input.starts_at,
                billing_mode=input.billing_mode,
                anchor_day=input.anchor_day,
                grace_seconds=input.grace_seconds,
                discount_ids=[
                    local_id("Discount", each, field=f"discountIds.{at}")
                    for at, each in enumerate(input.discount_ids)
                ],
            )
        return CustomerSubscription.from_row(row)

    @mutation(
        "End a subscription; what was used before is still billed.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def end_subscription(
        self, info: Info, input: EndSubscriptionInput
    ) -> EndSubscriptionResult:
        async with info.context.scope() as scope:
            row = await commands.end_subscription(
                scope,
                subscription_id=local_id(
                    "CustomerSubscription", input.subscription_id, field="subscriptionId"
                ),
                ends_at=input.ends_at,
            )
        return CustomerSubscription.from_row(row)
