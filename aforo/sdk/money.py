"""Amounts of money and the arithmetic of rating: exact decimals, no float, one rounding."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from fractions import Fraction
from typing import Self

from aforo.sdk.currencies import EXPONENTS
from aforo.sdk.errors import Invalid

INTEGER_DIGITS_MAX = 15
QUANTITY_DECIMALS_MAX = 12
RATE_DECIMALS_MAX = 18

_BUGS = [InvalidOperation, DivisionByZero, Overflow, FloatOperation]
_EXACT = Context(prec=120, rounding=ROUND_HALF_UP, traps=[*_BUGS, Inexact])
_ROUNDING = Context(prec=120, rounding=ROUND_HALF_UP, traps=_BUGS)
_DIVISION = Context(prec=60, rounding=ROUND_HALF_UP, traps=_BUGS)

_PLAIN = {
    decimals: re.compile(rf"-?[0-9]{{1,{INTEGER_DIGITS_MAX}}}(?:\.[0-9]{{1,{decimals}}})?")
    for decimals in (QUANTITY_DECIMALS_MAX, RATE_DECIMALS_MAX)
}
_SHOWN_CHARACTERS_MAX = 40


class UnknownCurrency(Invalid):
    """The code is not an active ISO 4217 currency."""

    code = "UNKNOWN_CURRENCY"


class CurrencyMismatch(Invalid):
    """Two amounts in different currencies met; amounts are never converted silently."""

    code = "CURRENCY_MISMATCH"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency, in units of the currency (dollars, not cents), unrounded.

    Raises `TypeError` for an amount that is no Decimal, `Invalid` for one that is not finite,
    `UnknownCurrency`, and `CurrencyMismatch` where two currencies meet.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Decimal):
            raise TypeError(f"an amount is a Decimal, not {type(self.amount).__name__}")
        if not self.amount.is_finite():
            raise Invalid(f"{self.amount} is no amount of money", code="BAD_VALUE")
        currency_exponent(self.currency)

    @classmethod
    def zero(cls, currency: str) -> Self:
        return cls(Decimal(0), currency)

    def rounded(self) -> "Money":
        """This amount at the currency's smallest unit, halves away from zero."""
        return Money(round_half_up(self.amount, currency_exponent(self.currency)), self.currency)

    def __add__(self, other: "Money") -> "Money":
        return Money(_EXACT.add(self.amount, self._same(other)), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(_EXACT.subtract(self.amount, self._same(other)), self.currency)

    def __neg__(self) -> "Money":
        return Money(_EXACT.minus(self.amount), self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: "Money") -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: "Money") -> bool:
        return self.amount >= self._same(other)

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"

    def _same(self, other: "Money") -> Decimal:
        if not isinstance(other, Money):
            raise TypeError(f"money meets only money, not {type(other).__name__}")
        if other.currency != self.currency:
            raise CurrencyMismatch(f"{self} and {other} are amounts in different currencies")
        return other.amount


def currency_exponent(code: str) -> int:
    """Decimals of the smallest unit of an ISO 4217 currency; raises `UnknownCurrency`."""
    exponent = EXPONENTS.get(code) if isinstance(code, str) else None
    if exponent is None:
        raise UnknownCurrency(
            f"{_shown(code)} is no active ISO 4217 currency; use a code such as USD or EUR",
            field="currency",
        )
    return exponent


def parse_quantity(
    value: str | int | Decimal, *, negative: bool = False, field: str | None = None
) -> Decimal:
    """Read a plain decimal of at most 15 integer digits and 12 decimals.

    Raises `Invalid` (code `BAD_VALUE`) for everything else: floats, NaN, Infinity, exponents,
    `1_000`, non-ASCII digits, and a minus sign unless `negative`.
    """
    return _parsed(value, decimals=QUANTITY_DECIMALS_MAX, negative=negative, field=field)


def parse_rate(
    value: str | int | Decimal, *, negative: bool = False, field: str | None = None
) -> Decimal:
    """Read a unit price or cost rate: like `parse_quantity`, with up to 18 decimals."""
    return _parsed(value, decimals=RATE_DECIMALS_MAX, negative=negative, field=field)


def round_half_up(amount: Decimal, exponent: int) -> Decimal:
    """`amount` at `exponent` decimals, halves away from zero; never a negative zero."""
    rounded = amount.quantize(Decimal(1).scaleb(-exponent), context=_ROUNDING)
    return rounded if rounded else abs(rounded)


def allocate(total: Decimal, weights: Sequence[Decimal | Fraction], exponent: int) -> list[Decimal]:
    """Split a total of whole smallest units by weight, so that the parts sum exactly to it.

    Largest remainder; of equal remainders the earlier part gets the unit. A negative total is
    split as its mirror image. Weights that sum to 0 split evenly. Raises `ValueError` if the
    total has more than `exponent` decimals, or is not 0 and there is nobody to take it.
    """
    scaled = Fraction(total) * 10**exponent
    if scaled.denominator != 1:
        raise ValueError(f"{total} has more than {exponent} decimals: round it before allocating")
    if not weights:
        if total:
            raise ValueError(f"{total} cannot be allocated to nothing")
        return []
    units, sign = abs(scaled.numerator), -1 if total < 0 else 1
    shares = _shares(units, [Fraction(weight) for weight in weights])
    parts = [share.__floor__() for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - shares[index])
    for index in by_remainder[: units - sum(parts)]:
        parts[index] += 1
    return [Decimal(sign * part).scaleb(-exponent, _EXACT) for part in parts]


@contextmanager
def exact() -> Iterator[Context]:
    """Rating arithmetic: 120 digits, and any operation that would lose a digit raises.

    The exceptions are `divide` and `round_half_up`, which state what they lose.
    """
    with localcontext(_EXACT) as context:
        yield context


def multiply(quantity: Decimal, rate: Decimal) -> Decimal:
    """The exact product, also outside of `exact()`."""
    return _EXACT.multiply(quantity, rate)


def add(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum, also outside of `exact()`."""
    return _EXACT.add(one, other)


def divide(dividend: Decimal, divisor: Decimal) -> Decimal:
    """The stated division: 60 significant digits, halves away from zero."""
    return _DIVISION.divide(dividend, divisor)


def _parsed(value: object, *, decimals: int, negative: bool, field: str | None) -> Decimal:
    # The pattern comes before the number: Decimal() itself accepts NaN, 1e400, 1_000 and ٣.
    if isinstance(value, str):
        if _PLAIN[decimals].fullmatch(value) and (negative or value[0] != "-"):
            return _unsigned_zero(Decimal(value))
    elif isinstance(value, Decimal):
        if _is_bounded(value, decimals) and (negative or not value.is_signed()):
            return _unsigned_zero(value)
    elif (
        isinstance(value, int)
        and not isinstance(value, bool)
        and abs(value) < 10**INTEGER_DIGITS_MAX
        and (negative or value >= 0)
    ):
        return Decimal(value)
    sign = "" if negative else "non-negative "
    raise Invalid(
        f"{_shown(value)} is no {sign}plain decimal number of at most {INTEGER_DIGITS_MAX} "
        f"integer digits and {decimals} decimals",
        code="BAD_VALUE",
        field=field,
    )


def _is_bounded(value: Decimal, decimals: int) -> bool:
    _, digits, exponent = value.as_tuple()
    return (
        isinstance(exponent, int)  # NaN and Infinity have a letter there.
        and -decimals <= exponent <= 0
        and len(digits) + exponent <= INTEGER_DIGITS_MAX
    )


def _unsigned_zero(value: Decimal) -> Decimal:
    return value if value else value.copy_abs()


def _shares(units: int, weights: list[Fraction]) -> list[Fraction]:
    whole = sum(weights)
    if not whole:
        return [Fraction(units, len(weights))] * len(weights)
    return [units * weight / whole for weight in weights]


def _shown(value: object) -> str:
    if isinstance(value, str):
        cut = value[:_SHOWN_CHARACTERS_MAX]
        return repr(cut) if cut == value else f"{cut!r}…"
    if isinstance(value, Decimal):
        # At most one line, whatever the exponent: `f"{value:f}"` of 1E+400 would be 400 digits.
        return str(value)[:_SHOWN_CHARACTERS_MAX]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**_SHOWN_CHARACTERS_MAX else "the integer"
    return f"a {type(value).__name__}"
