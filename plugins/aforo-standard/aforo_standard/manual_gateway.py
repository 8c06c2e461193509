"""Bank transfer: the customer is told where to pay, and the tenant sees the money come in."""

from typing import Annotated

from pydantic import Field, StringConstraints

from aforo.sdk import Charge, ChargeState, Instruction, PaymentGateway, PaymentRequest

Line = Annotated[
    str, StringConstraints(min_length=1, max_length=140, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
]


class ManualGateway(PaymentGateway):
    """It moves no money, so it can decline nothing: every charge waits for the customer."""

    key = "standard.manual"
    summary = "Bank transfer: tells the customer where to pay, and waits"
    examples = ({"payee": "Acme Inc.", "account": "DE89 3704 0044 0532 0130 00"},)

    payee: Line = Field(description="Whose account it is.")
    account: Line = Field(description="IBAN or account number.")
    bank: Line | None = Field(default=None, description="Name or code of the bank.")
    note: Line | None = Field(default=None, description="A last line, such as within how long.")

    async def charge(self, request: PaymentRequest) -> Charge:
        """PENDING: the same attempt, asked again, is the same request to the customer."""
        return Charge(
            state=ChargeState.PENDING,
            reference=request.invoice_number,
            instructions=tuple(self.instructions(request)),
        )

    async def find(self, request: PaymentRequest) -> Charge | None:
        """What `charge` gave: it takes no money, and so there is nothing that it could not know."""
        return await self.charge(request)

    def instructions(self, request: PaymentRequest) -> list[Instruction]:
        """Payee, account, bank, amount, the invoice's number as the reference, and the note."""
        lines = (
            ("Payee", self.payee),
            ("Account", self.account),
            ("Bank", self.bank),
            ("Amount", f"{request.amount:f} {request.currency}"),
            ("Reference", request.invoice_number),
            ("Note", self.note),
        )
        return [Instruction(label, text) for label, text in lines if text is not None]
