"""Tax engines: taxable lines in, applied taxes out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812 — the field below is called `date`.
from decimal import Decimal

from aforo.sdk.component import Component
from aforo.sdk.errors import Unavailable


class TaxUnavailable(Unavailable):
    """The engine cannot answer now: the invoice waits as `PENDING_TAX`, never taxed at 0."""

    code = "TAX_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxableLine:
    """One invoice line, net of its discounts, rounded to the currency."""

    id: str
    category: str | None
    net: Decimal
    """The amount to tax; where a tax is inclusive, it contains that tax."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxRequest:
    """What is sold to whom and where, on which day."""

    currency: str
    country: str | None
    """ISO 3166-1 alpha-2 code of the customer's place of supply."""
    region: str | None
    """State or province as the second part of the ISO 3166-2 code: `CA` of `US-CA`."""
    postal_code: str | None
    tax_number: str | None
    date: Date
    lines: tuple[TaxableLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTax:
    """One tax at one rate on some of the lines."""

    name: str
    jurisdiction: str
    rate: Decimal
    """A share of the base: 0.19 is 19 %."""
    inclusive: bool
    """Whether the lines' amounts already contain this tax."""
    line_ids: tuple[str, ...]
    amount: Decimal | None = None
    """The tax in the request's currency, or None: then the core computes rate × base."""


class TaxEngine(Component, ABC):
    """Decides which taxes apply. Its fields are the settings of one tenant."""

    @abstractmethod
    async def quote(self, request: TaxRequest) -> Sequence[AppliedTax]:
        """The taxes on these lines; empty if none is due. Raises `TaxUnavailable` when down."""
