"""Pricing models: usage in, priced lines out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from aforo.sdk.component import Component
from aforo.sdk.money import multiply


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one rate plan line counted in one period, for one customer."""

    quantity: Decimal
    """Billable units, never below 0; for a model that prices value, the value."""
    event_count: int
    """Events behind the quantity."""
    currency: str
    """ISO 4217 code in which the prices are meant."""
    fraction: Decimal = Decimal(1)
    """Share of the period that is charged, above 0 and at most 1; 1 is the whole."""
    event_values: tuple[Decimal, ...] | None = None
    """Each event's value, only for a model whose `prices_events` says that it needs them."""
    included: Decimal | None = None
    """Units of the entitlement that the model names, with what is carried on; None where it names
    none."""


@dataclass(frozen=True, slots=True)
class PricedLine:
    """A quantity at a unit price; the core multiplies, and rounds once per invoice line."""

    label: str
    quantity: Decimal
    unit_price: Decimal

    @property
    def amount(self) -> Decimal:
        """Quantity × unit price, exact and unrounded."""
        return multiply(self.quantity, self.unit_price)


@dataclass(frozen=True, slots=True)
class FixedAmount:
    """A named amount that does not depend on the quantity, unrounded."""

    label: str
    amount: Decimal


class PricingModel(Component, ABC):
    """A way to turn usage into money. Its fields are the settings of one rate plan line."""

    needs_meter: ClassVar[bool] = True
    """False for a model that charges without usage, such as a flat fee."""

    def prices_events(self) -> bool:
        """Whether `price` needs the value of each event, not only their sum."""
        return False

    def entitlement_code(self) -> str | None:
        """The code of the entitlement whose units are included, or None.

        Each offering of the plan pins it: a quota over the meter of the line, by billing period.
        """
        return None

    @abstractmethod
    def price(self, usage: Usage) -> Sequence[PricedLine | FixedAmount]:
        """The lines of this usage. Pure: the same usage gives the same lines.

        Called within `exact()`: use `divide` where a division is meant. Usage of 0 gives one
        line at quantity 0.
        """
