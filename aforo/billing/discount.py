"""Stage 8, discounting: ordered discounts, each a line of its own, allocated to what it covers."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from aforo.sdk import allocate, currency_exponent, exact, multiply, round_half_up


@dataclass(frozen=True, slots=True)
class PercentageOff:
    """A share of what is left: 0.10 is ten percent."""

    rate: Decimal


@dataclass(frozen=True, slots=True)
class AmountOff:
    """A fixed amount, capped at what is left, in the currency of the invoice."""

    amount: Decimal


@dataclass(frozen=True, slots=True)
class Reduction:
    """What one discount takes off."""

    of: Decimal
    """What was left of the lines before it."""
    unrounded: Decimal
    """Never more than what was left."""
    amount: Decimal
    """Positive or 0, rounded once."""
    allocations: tuple[Decimal, ...]
    """The part that each covered line bears, in their order; they sum to `amount`."""


def apply_discounts(
    amounts: Sequence[Decimal], discounts: Sequence[PercentageOff | AmountOff], *, currency: str
) -> list[Reduction]:
    """Apply discounts in their order to the rounded amounts of lines, none of them below 0.

    Each discount is computed on the sum of what is left of the lines, rounded once, and allocated
    to them by largest remainder of what is left of each (ties: the earlier line). No line ever
    falls below 0.
    """
    exponent = currency_exponent(currency)
    left = list(amounts)
    reductions = []
    for discount in discounts:
        with exact():
            whole = sum(left, Decimal(0))
            unrounded = min(_taken(discount, whole), whole)
            amount = min(round_half_up(unrounded, exponent), whole)
            allocations = tuple(allocate(amount, left, exponent))
            left = [one - share for one, share in zip(left, allocations, strict=True)]
        reductions.append(Reduction(whole, unrounded, amount, allocations))
    return reductions


def _taken(discount: PercentageOff | AmountOff, whole: Decimal) -> Decimal:
    match discount:
        case PercentageOff(rate):
            return multiply(whole, rate)
        case AmountOff(amount):
            return amount
