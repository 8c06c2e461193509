"""GraphQL of the restraints: customers that are throttled or blocked, by hand."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, local_id, optional_id
from aforo.api.types.signals import CustomerId
from aforo.api.types.subscriptions import Customer, customer_of
from aforo.entitlements import commands, models, queries
from aforo.entitlements.commands import PERCENT_DEFAULT
from aforo.entitlements.models import RestraintKind
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    RestraintKind,
    "What a restraint does.",
    THROTTLE="It lowers the customer's rates.",
    BLOCK="Every entitlement check says no.",
)

REASON = "Why, for people: 1 to 500 characters."
UNTIL = "When it ends by itself; null: once it is released."


@relay.fetched_by(queries.restraints_by_id)
@strawberry.type(description="A customer is throttled or blocked; one of each kind at most.")
class Restraint(Node):
    customer_id: strawberry.Private[UUID]
    kind: RestraintKind = strawberry.field(description="What it does.")
    reason: str = strawberry.field(description="Why, for people.")
    until: datetime | None = strawberry.field(description=UNTIL)
    percent: int | None = strawberry.field(
        description="The share of the usual rate that a throttle leaves; null for a block."
    )
    created_at: datetime = strawberry.field(description="Since when.")

    @classmethod
    def from_row(cls, row: models.Restraint) -> Self:
        return cls(
            id=relay.global_id("Restraint", row.id),
            customer_id=row.customer_id,
            kind=row.kind,
            reason=row.reason,
            until=row.until,
            percent=row.percent,
            created_at=row.created_at,
        )

    @field("Who is under it.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)


@strawberry.input(description="A customer whose rates are to be lowered.")
class SetThrottleInput:
    customer_id: strawberry.ID = strawberry.field(description="Whose.")
    reason: str = strawberry.field(description=REASON)
    percent: int = strawberry.field(
        default=PERCENT_DEFAULT, description="The share of the usual rate that is left, 1 to 100."
    )
    until: datetime | None = strawberry.field(default=None, description=UNTIL)


@strawberry.input(description="A customer who is to use nothing for now.")
class SetBlockInput:
    customer_id: strawberry.ID = strawberry.field(description="Who.")
    reason: str = strawberry.field(description=REASON)
    until: datetime | None = strawberry.field(default=None, description=UNTIL)


@strawberry.input(description="A restraint that is to be taken back.")
class ReleaseCustomerInput:
    customer_id: strawberry.ID = strawberry.field(description="Who is under it.")
    kind: RestraintKind = strawberry.field(description="Which of the two.")


SetThrottleResult = Annotated[
    Restraint | InvalidProblem | NotFoundProblem,
    strawberry.union("SetThrottleResult", description="The throttle, or why there is none."),
]
SetBlockResult = Annotated[
    Restraint | InvalidProblem | NotFoundProblem,
    strawberry.union("SetBlockResult", description="The block, or why there is none."),
]
ReleaseCustomerResult = Annotated[
    Restraint | InvalidProblem | NotFoundProblem,
    strawberry.union("ReleaseCustomerResult", description="What it was, or why it stays."),
]


@strawberry.type
class RestraintQuery:
    @field(
        "The customers that are throttled or blocked, also where the time of it is over.",
        needs=Permission.CUSTOMERS_READ,
    )
    async def restraints(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Restraint]:
        listing = queries.restraints(
            customer_id=optional_id("Customer", customer_id, field="customerId"), order=order_by
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Restraint.from_row
        )


@strawberry.type
class RestraintMutation:
    @mutation(
        "Lower the rates of a customer, in place of an earlier throttle.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def set_throttle(self, info: Info, input: SetThrottleInput) -> SetThrottleResult:
        async with info.context.scope() as scope:
            row = await commands.set_throttle(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                reason=input.reason,
                percent=input.percent,
                until=input.until,
            )
        return Restraint.from_row(row)

    @mutation(
        "Have every entitlement check about a customer say no; events are taken as before.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def set_block(self, info: Info, input: SetBlockInput) -> SetBlockResult:
        async with info.context.scope() as scope:
            row = await commands.set_block(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                reason=input.reason,
                until=input.until,
            )
        return Restraint.from_row(row)

    @mutation("Take a throttle or a block back.", needs=Permission.CUSTOMERS_WRITE)
    async def release_customer(
        self, info: Info, input: ReleaseCustomerInput
    ) -> ReleaseCustomerResult:
        async with info.context.scope() as scope:
            row = await commands.release_customer(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                kind=input.kind,
            )
        return Restraint.from_row(row)
