"""GraphQL of the wallets: prepaid value, and what can be done with it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.pages import children_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, local_id
from aforo.billing import commands, models, queries
from aforo.billing.wallets import DEFAULT_NAME
from aforo.storage.listing import PAGE_DEFAULT
from aforo.storage.scope import Scope
from aforo.tenants.permissions import Permission

WALLETS_MAX = 100


@relay.fetched_by(queries.grants_by_id)
@strawberry.type(description="One credited lot of value.")
class WalletGrant(Node):
    amount: Decimal = strawberry.field(description="What was credited, in the wallet's currency.")
    priority: int = strawberry.field(description="0 is drawn first, 100 last.")
    reference: str | None = strawberry.field(description="Your own name for it.")
    expires_at: datetime | None = strawberry.field(description="What is left then is lost.")
    created_at: datetime = strawberry.field(description="When it was credited.")

    @classmethod
    def from_row(cls, row: models.WalletGrant) -> Self:
        return cls(
            id=relay.global_id("WalletGrant", row.id),
            amount=row.amount,
            priority=row.priority,
            reference=row.reference,
            expires_at=row.expires_at,
            created_at=row.created_at,
        )


@relay.fetched_by(queries.wallets_by_id)
@strawberry.type(description="Prepaid value of a customer in one currency.")
class Wallet(Node):
    row_id: strawberry.Private[UUID]
    name: str = strawberry.field(description="Its name for people.")
    currency: str = strawberry.field(description="ISO 4217 code.")
    created_at: datetime = strawberry.field(description="When it was created.")

    @classmethod
    def from_row(cls, row: models.Wallet) -> Self:
        return cls(
            id=relay.global_id("Wallet", row.id),
            row_id=row.id,
            name=row.name,
            currency=row.currency,
            created_at=row.created_at,
        )

    @field("What unexpired grants have left, less what it owes; below 0 is a debt.")
    async def balance(self, info: Info) -> Decimal:
        balance = await info.context.load(queries.wallet_balances, self.row_id)
        return balance or Decimal(0)

    @field("Its grants, oldest first, also those that are used up.")
    async def grants(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection[WalletGrant]:
        return await children_in_pages(
            info.context,
            queries.GRANTS_BY_WALLET,
            self.row_id,
            first=first,
            after=after,
            of=WalletGrant.from_row,
        )


async def wallets_of(info: Info, customer_id: UUID) -> list[Wallet]:
    """A customer's wallets; customers that ask at the same time share one statement."""
    rows = await info.context.load(_wallets, customer_id)
    return [Wallet.from_row(row) for row in rows or ()]


async def _wallets(
    scope: Scope, customer_ids: Collection[UUID]
) -> Mapping[UUID, Sequence[models.Wallet]]:
    return await queries.WALLETS_BY_CUSTOMER.pages(scope, customer_ids, first=WALLETS_MAX)


@strawberry.input(description="A new wallet.")
class CreateWalletInput:
    customer_id: strawberry.ID = strawberry.field(description="Whose it is.")
    currency: str = strawberry.field(description="ISO 4217 code; one wallet per currency.")
    name: str = strawberry.field(
        default=DEFAULT_NAME, description="Its name for people, 1 to 200 characters."
    )


@strawberry.input(description="Value to credit to a wallet.")
class GrantCreditInput:
    wallet_id: strawberry.ID = strawberry.field(description="The wallet.")
    amount: Decimal = strawberry.field(description="How much, in the wallet's currency.")
    priority: int = strawberry.field(default=50, description="0 is drawn first, 100 last.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="What is left then is lost; never if not given."
    )
    reference: str | None = strawberry.field(
        default=None, description="Your own name for it; a wallet takes each one once."
    )


CreateWalletResult = Annotated[
    Wallet | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CreateWalletResult", description="The wallet, or why there is none."),
]
GrantCreditResult = Annotated[
    WalletGrant | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("GrantCreditResult", description="The grant, or why there is none."),
]


@strawberry.type
class WalletMutation:
    @mutation("Give a customer a wallet.", needs=Permission.BILLING_WRITE)
    async def create_wallet(self, info: Info, input: CreateWalletInput) -> CreateWalletResult:
        async with info.context.scope() as scope:
            row = await commands.create_wallet(
                scope,
                customer_id=local_id("Customer", input.customer_id, field="customerId"),
                currency=input.currency,
                name=input.name,
            )
        return Wallet.from_row(row)

    @mutation("Credit a wallet; a debt is repaid from it first.", needs=Permission.BILLING_WRITE)
    async def grant_credit(self, info: Info, input: GrantCreditInput) -> GrantCreditResult:
        async with info.context.scope() as scope:
            row = await commands.grant_credit(
                scope,
                wallet_id=local_id("Wallet", input.wallet_id, field="walletId"),
                amount=input.amount,
                priority=input.priority,
                expires_at=input.expires_at,
                reference=input.reference,
            )
        return WalletGrant.from_row(row)
