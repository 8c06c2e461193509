"""GraphQL of aliases: other ids by which events may name a customer."""

from datetime import datetime
from typing import Annotated

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import local_id
from aforo.api.types.subscriptions import CustomerAlias
from aforo.subscriptions import aliases
from aforo.tenants.permissions import Permission


@strawberry.input(description="Another id for a customer, so that events may name it.")
class RegisterCustomerAliasInput:
    customer_id: strawberry.ID = strawberry.field(description="The customer.")
    external_id: str = strawberry.field(
        description="The id, 1 to 255 characters, that no customer has, and none had as an alias."
    )
    valid_from: datetime | None = strawberry.field(
        default=None,
        description="Good for events from this moment on, at most 400 days back; now if not given.",
    )
    valid_to: datetime | None = strawberry.field(
        default=None, description="Good for events before this moment; no end if not given."
    )


@strawberry.input(description="An alias to end.")
class EndCustomerAliasInput:
    customer_alias_id: strawberry.ID = strawberry.field(description="The alias.")
    ends_at: datetime | None = strawberry.field(
        default=None, description="Events before this moment may still name it; now if not given."
    )


RegisterCustomerAliasResult = Annotated[
    CustomerAlias | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("RegisterCustomerAliasResult", description="The alias, or why there is none."),
]
EndCustomerAliasResult = Annotated[
    CustomerAlias | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("EndCustomerAliasResult", description="It, or why it does not end."),
]


@strawberry.type
class AliasMutation:
    @mutation("Let events name a customer by another id too.", needs=Permission.CUSTOMERS_WRITE)
    async def register_customer_alias(
        self, info: Info, input: RegisterCustomerAliasInput
    ) -> RegisterCustomerAliasResult:
        async with info.context.scope() as scope:
            row = await aliases.register_alias(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                external_id=input.external_id,
                valid_from=input.valid_from,
                valid_to=input.valid_to,
            )
        return CustomerAlias.from_row(row)

    @mutation(
        "End an alias; events that occurred before may still name it.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def end_customer_alias(
        self, info: Info, input: EndCustomerAliasInput
    ) -> EndCustomerAliasResult:
        async with info.context.scope() as scope:
            row = await aliases.end_alias(
                scope,
                customer_alias_id=local_id(
                    "CustomerAlias", input.customer_alias_id, field="customerAliasId"
                ),
                ends_at=input.ends_at,
            )
        return CustomerAlias.from_row(row)
