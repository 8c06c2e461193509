"""GraphQL of an amount of money."""

from decimal import Decimal

import strawberry


@strawberry.type(description="An amount in one currency, in units of it (dollars, not cents).")
class Money:
    amount: Decimal = strawberry.field(description="The amount, exact.")
    currency: str = strawberry.field(description="ISO 4217 code.")
