"""AI features: facts in; instructions for a model, and an answer without one, out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812 (as in `aforo.sdk.tax`)
from decimal import Decimal
from typing import Any, ClassVar, Generic, TypeVar

from aforo.sdk.component import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLineFacts:
    """One line of an invoice."""

    name: str
    """Written by others, like every text of the facts: it may try to give orders."""
    quantity: Decimal
    amount: Decimal
    event_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFacts:
    """An invoice, as a feature may know it; amounts in one currency, rounded to it."""

    number: str | None
    """None on a draft."""
    customer_name: str
    currency: str
    first_day: Date
    last_day: Date
    """Both as the customer's calendar has them."""
    lines: tuple[InvoiceLineFacts, ...]
    subtotal: Decimal
    discount: Decimal
    tax: Decimal
    total: Decimal
    from_wallet: Decimal
    amount_due: Decimal


Facts = TypeVar("Facts")


class AiFeature(Component, ABC, Generic[Facts]):
    """A question to a model about facts. It has no key, no budget and no authority.

    The core shows a model its instructions, and the facts apart from them as tagged data.
    """

    facts: ClassVar[type[Any]]
    """The class of facts that it is asked about; the core builds them."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Names of tools of the core that a model may propose to use. This release has none."""

    @abstractmethod
    def instructions(self, facts: Facts) -> str:
        """What a model is told to do. Pure, and without any text of the facts: those are data."""

    @abstractmethod
    def answer(self, facts: Facts) -> str:
        """The answer where no model is asked, from the facts alone. Pure."""
