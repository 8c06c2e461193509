"""GraphQL of the portal: tokens that let a customer's users in, and whom they are in for."""

from datetime import datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, local_id, optional_id
from aforo.api.types.subscriptions import Customer, customer_of
from aforo.sdk.errors import NotFound
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.subscriptions.queries import customers_by_id
from aforo.tenants import commands, models, queries
from aforo.tenants.permissions import Permission
from aforo.tenants.standing import standing

LIFETIME_SECONDS = 900


@relay.fetched_by(queries.portal_tokens_by_id)
@strawberry.type(description="What lets the users of one customer in for a short time.")
class PortalToken(Node):
    customer_id: strawberry.Private[UUID]
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime = strawberry.field(description="From when on it is refused.")
    revoked_at: datetime | None = strawberry.field(description="Since when it is refused.")

    @classmethod
    def from_row(cls, row: models.PortalToken) -> Self:
        return cls(
            id=relay.global_id("PortalToken", row.id),
            customer_id=row.customer_id,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )

    @field("Whose users it lets in.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)


@strawberry.type(description="A new portal token, with the only sight of it.")
class NewPortalToken:
    portal_token: PortalToken = strawberry.field(description="It, without its secret.")
    token: str = strawberry.field(description="What the customer's users send, as an API key is.")


@strawberry.input(description="Whom to let in, and for how long.")
class CreatePortalTokenInput:
    customer_id: strawberry.ID = strawberry.field(description="The customer.")
    lifetime_seconds: int = strawberry.field(
        default=LIFETIME_SECONDS, description="60 to 3,600; 15 minutes if not given."
    )


@strawberry.input(description="A portal token to end.")
class RevokePortalTokenInput:
    portal_token_id: strawberry.ID = strawberry.field(description="The token's id.")


CreatePortalTokenResult = Annotated[
    NewPortalToken | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreatePortalTokenResult", description="The token, or why there is none."),
]
RevokePortalTokenResult = Annotated[
    PortalToken | InvalidProblem | NotFoundProblem,
    strawberry.union("RevokePortalTokenResult", description="The ended token, or why it is not."),
]


@strawberry.type
class PortalQuery:
    @field(
        "The customer whose users a portal token lets in; null for every other caller.",
        needs=Permission.CUSTOMERS_READ,
    )
    async def portal_customer(self, info: Info) -> Customer | None:
        customer_id = info.context.caller.customer_id
        return None if customer_id is None else await customer_of(info, customer_id)

    @field("The portal tokens; those that expired stay for a day.", needs=Permission.CUSTOMERS_READ)
    async def portal_tokens(
        self,
        info: Info,
        *,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[PortalToken]:
        listing = queries.portal_tokens(
            customer_id=optional_id("Customer", customer_id, field="customerId"), order=order_by
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=PortalToken.from_row
        )


@strawberry.type
class PortalMutation:
    @mutation(
        "Let a customer's users in, to that customer's data alone; the token is shown this once.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def create_portal_token(
        self, info: Info, input: CreatePortalTokenInput
    ) -> CreatePortalTokenResult:
        customer_id = local_id("Customer", input.customer_id, field="customerId")
        async with info.context.scope() as scope:
            if customer_id not in await customers_by_id(scope, [customer_id]):
                raise NotFound("there is no customer with this id", field="customerId")
            granter = await standing(scope, info.context.caller)
            issued = await commands.create_portal_token(
                scope,
                customer_id=customer_id,
                lifetime=timedelta(seconds=input.lifetime_seconds),
                pepper=info.context.runtime.settings.key_pepper,
                granted_by=granter.permissions,
            )
        return NewPortalToken(portal_token=PortalToken.from_row(issued.row), token=issued.token)

    @mutation(
        "End a portal token; streams that it opened end within 5 seconds.",
        needs=Permission.CUSTOMERS_WRITE,
    )
    async def revoke_portal_token(
        self, info: Info, input: RevokePortalTokenInput
    ) -> RevokePortalTokenResult:
        async with info.context.scope() as scope:
            row = await commands.revoke_portal_token(
                scope,
                portal_token_id=local_id(
                    "PortalToken", input.portal_token_id, field="portalTokenId"
                ),
            )
        return PortalToken.from_row(row)
