"""GraphQL of getting paid: the tenant's payment gateway, and what it tells customers to do."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import Node
from aforo.api.parts.scalars import JSON
from aforo.billing import gateways, models
from aforo.sdk import Instruction, Invalid
from aforo.tenants.permissions import Permission


@strawberry.type(description="One line of what a customer can do to pay.")
class PaymentInstruction:
    label: str = strawberry.field(description="What the line is, such as `IBAN`.")
    text: str = strawberry.field(description="What it says.")

    @classmethod
    def of(cls, instruction: Instruction) -> Self:
        return cls(label=instruction.label, text=instruction.text)


@relay.fetched_by(gateways.payment_gateway_settings_by_id)
@strawberry.type(description="The payment gateway that was chosen, with its settings.")
class PaymentGatewaySettings(Node):
    gateway: str = strawberry.field(description="Key of the payment gateway.")
    settings: JSON = strawberry.field(description="Its settings, complete.")
    created_at: datetime = strawberry.field(description="In force from this moment on.")

    @classmethod
    def from_row(cls, row: models.PaymentGatewaySettings) -> Self:
        return cls(
            id=relay.global_id("PaymentGatewaySettings", row.id),
            gateway=row.gateway,
            settings=JSON(row.settings),
            created_at=row.created_at,
        )


@strawberry.input(description="The payment gateway to use from now on.")
class SetPaymentGatewayInput:
    gateway: str = strawberry.field(description="Key of a payment gateway; see `paymentGateways`.")
    settings: JSON = strawberry.field(description="Its settings as an object.")


SetPaymentGatewayResult = Annotated[
    PaymentGatewaySettings | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "SetPaymentGatewayResult", description="The settings, or why they are refused."
    ),
]


@strawberry.type
class PaymentQuery:
    @field(
        "The payment gateway in force; null where none was chosen.",
        needs=Permission.BILLING_READ,
    )
    async def payment_gateway_settings(self, info: Info) -> PaymentGatewaySettings | None:
        async with info.context.scope() as scope:
            row = await gateways.payment_gateway_settings(scope)
        return None if row is None else PaymentGatewaySettings.from_row(row)


@strawberry.type
class PaymentMutation:
    @mutation(
        "Choose the payment gateway; final invoices of which something is due tell how to pay.",
        needs=Permission.BILLING_WRITE,
    )
    async def set_payment_gateway(
        self, info: Info, input: SetPaymentGatewayInput
    ) -> SetPaymentGatewayResult:
        if not isinstance(input.settings, dict):
            raise Invalid("settings are a JSON object", field="settings")
        async with info.context.scope() as scope:
            row = await gateways.set_payment_gateway(
                scope, gateway=input.gateway, settings=input.settings
            )
        return PaymentGatewaySettings.from_row(row)
