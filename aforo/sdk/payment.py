"""Payment gateways: what is due in, what became of it out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from aforo.sdk.component import Component
from aforo.sdk.errors import Unavailable


class GatewayUnavailable(Unavailable):
    """The gateway cannot be asked now: that is no decline, and uses up no attempt."""

    code = "GATEWAY_UNAVAILABLE"


class ChargeState(StrEnum):
    """What became of a charge."""

    SUCCEEDED = "SUCCEEDED"
    PENDING = "PENDING"
    """It is under way, or waits for the customer to pay; nothing is to be tried again."""
    ACTION_REQUIRED = "ACTION_REQUIRED"
    """The customer has to do something first, which `instructions` says."""
    DECLINED = "DECLINED"


class Decline(StrEnum):
    """What a decline code means for the next attempt."""

    RETRYABLE = "RETRYABLE"
    HARD = "HARD"
    """Never tried again."""
    ACTION_REQUIRED = "ACTION_REQUIRED"
    UNKNOWN = "UNKNOWN"
    """The gateway is asked what happened before anything is charged again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequest:
    """An amount that is due on a final invoice, and which attempt this is to get it."""

    invoice_id: str
    invoice_number: str
    customer: str
    """The tenant's own id of the customer."""
    customer_name: str
    amount: Decimal
    """Above 0, rounded to the currency."""
    currency: str
    attempt: int = 1

    @property
    def idempotency_key(self) -> str:
        """One per invoice and attempt: the same charge sent twice takes the money once."""
        return f"aforo-{self.invoice_id}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class Instruction:
    """A line of what a customer is told to do, such as `IBAN` and the number."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What became of one attempt."""

    state: ChargeState
    reference: str | None = None
    """The gateway's own name of it."""
    decline_code: str | None = None
    """The gateway's own code; given exactly where it is DECLINED."""
    instructions: tuple[Instruction, ...] = ()


class PaymentGateway(Component, ABC):
    """A way to get paid. Its fields are the settings of one tenant."""

    decline_codes: ClassVar[Mapping[str, Decline]] = MappingProxyType({})
    """What each of the gateway's codes means; a code that is not here is UNKNOWN."""

    @abstractmethod
    async def charge(self, request: PaymentRequest) -> Charge:
        """Try to get the amount, under `request.idempotency_key`.

        Raises `GatewayUnavailable` where the gateway cannot be asked.
        """

    @abstractmethod
    async def find(self, request: PaymentRequest) -> Charge | None:
        """What became of an earlier charge under the same key; None if it never arrived.

        Changes nothing. Raises `GatewayUnavailable`.
        """

    def instructions(self, request: PaymentRequest) -> Sequence[Instruction]:  # noqa: ARG002
        """What the customer can do to pay, line by line; empty if there is nothing. Pure."""
        return ()

    @classmethod
    def decline_of(cls, code: str) -> Decline:
        """What a decline code means; UNKNOWN unless the gateway's table knows it."""
        return cls.decline_codes.get(code, Decline.UNKNOWN)
