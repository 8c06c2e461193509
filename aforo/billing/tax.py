"""Stage 9, taxation: from the engine's answer to amounts, each rounded once on its whole base."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from aforo.plugins import is_printable
from aforo.sdk import (
    AppliedTax,
    PluginError,
    TaxableLine,
    allocate,
    currency_exponent,
    exact,
    round_half_up,
)

TAXES_MAX = 1_000
NAME_CHARACTERS_MAX = 200
RATE_MAX = 100
_DIGITS_MAX = 60
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """One tax of an invoice: its rate on the sum of its base."""

    name: str
    jurisdiction: str
    rate: Decimal
    inclusive: bool
    base: Decimal
    """What is taxed, without the taxes that the lines already contain."""
    amount: Decimal
    """Rounded once, on the whole base."""


@dataclass(frozen=True, slots=True)
class Taxes:
    """All taxes of an invoice."""

    taxes: tuple[Tax, ...]
    by_line: tuple[Decimal, ...]
    """What comes on top of each line, in their order; the sum is that of the exclusive taxes."""


def compute_taxes(
    lines: Sequence[TaxableLine], applied: Sequence[AppliedTax], *, currency: str
) -> Taxes:
    """Amounts of the taxes that apply to lines of 0 or more, net of discounts and rounded.

    A tax is rate × the sum of its base, rounded once, halves away from zero, and allocated to its
    lines by largest remainder (ties: the earlier line). An inclusive tax is the part of its lines
    that lies in them: of several on one line, each gets its share, line × rate / (1 + their sum).
    A tax on top of such a line is on what remains. `applied` is as `checked` gives it.
    """
    exponent = currency_exponent(currency)
    merged = _merged(applied)
    untaxed = _untaxed(lines, merged)
    taxes, by_line = [], [Decimal(0)] * len(lines)
    for tax in merged:
        covered = [index for index, line in enumerate(lines) if line.id in tax.line_ids]
        base = sum((untaxed[lines[index].id] for index in covered), Fraction(0))
        if tax.amount is None:
            amount = _to_decimal(floor(base * Fraction(tax.rate) * 10**exponent + _HALF), exponent)
        else:
            amount = round_half_up(tax.amount, exponent)
        taxes.append(
            Tax(
                name=tax.name,
                jurisdiction=tax.jurisdiction,
                rate=tax.rate,
                inclusive=tax.inclusive,
                # Halves down, so that a price is the sum of its base and the tax inside.
                base=_to_decimal(ceil(base * 10**exponent - _HALF), exponent),
                amount=amount,
            )
        )
        if not tax.inclusive:
            # By what was taxed: a line with another tax inside weighs less than its price.
            weights = [untaxed[lines[index].id] for index in covered]
            shares = allocate(amount, weights, exponent)
            with exact():
                for index, share in zip(covered, shares, strict=True):
                    by_line[index] += share
    return Taxes(tuple(taxes), tuple(by_line))


def checked(answer: object, lines: Sequence[TaxableLine], *, engine: str) -> tuple[AppliedTax, ...]:
    """The answer of a tax engine, if it keeps the contract.

    Raises: `PluginError`, which names the engine, for anything but a bounded sequence of applied
    taxes at finite rates of 0 or more on lines that were asked about.
    """
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise _wrong(engine, f"a {type(answer).__name__} is no sequence of taxes")
    if len(answer) > TAXES_MAX:
        raise _wrong(engine, f"{len(answer)} taxes are more than {TAXES_MAX}")
    known = {line.id for line in lines}
    for tax in answer:
        if not isinstance(tax, AppliedTax):
            raise _wrong(engine, f"a {type(tax).__name__} is no AppliedTax")
        if fault := _fault(tax, known):
            raise _wrong(engine, fault)
    _check_once(answer, engine)
    return tuple(answer)


def _fault(tax: AppliedTax, known: set[str]) -> str:
    for text in (tax.name, tax.jurisdiction):
        if not is_printable(text, length_max=NAME_CHARACTERS_MAX):
            return (
                "names and jurisdictions are texts of 1 to "
                f"{NAME_CHARACTERS_MAX} printable characters"
            )
    if not isinstance(tax.inclusive, bool):
        return f"{tax.name!r} does not say whether it is inclusive"
    if not _is_bounded(tax.rate) or tax.rate > RATE_MAX:
        return f"{tax.name!r} has the rate {tax.rate!r}; a rate is a Decimal from 0 to {RATE_MAX}"
    if tax.amount is not None and not _is_bounded(tax.amount):
        return f"{tax.name!r} has the amount {tax.amount!r}; an amount is a Decimal of 0 or more"
    if not isinstance(tax.line_ids, tuple) or not tax.line_ids:
        return f"{tax.name!r} is on no line"
    if not all(isinstance(line_id, str) and line_id in known for line_id in tax.line_ids):
        return f"{tax.name!r} is on a line that was not asked about"
    if len(set(tax.line_ids)) < len(tax.line_ids):
        return f"{tax.name!r} is on the same line twice"
    return ""


def _is_bounded(value: object) -> bool:
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        return False
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_DIGITS_MAX and value.adjusted() < _DIGITS_MAX


def _check_once(taxes: Sequence[AppliedTax], engine: str) -> None:
    seen = Counter((_identity(tax), line_id) for tax in taxes for line_id in tax.line_ids)
    for (identity, _), times in seen.items():
        if times > 1:
            raise _wrong(engine, f"{identity[0]!r} is on the same line twice")


_Identity = tuple[str, str, Decimal, bool]


def _identity(tax: AppliedTax) -> _Identity:
    return (tax.name, tax.jurisdiction, tax.rate, tax.inclusive)


def _merged(applied: Sequence[AppliedTax]) -> list[AppliedTax]:
    """One tax per rate: an engine may answer line by line, but the sum is what is rounded."""
    merged: dict[object, AppliedTax] = {}
    for number, tax in enumerate(applied):
        key: object = _identity(tax) if tax.amount is None else number
        held = merged.get(key)
        line_ids = tax.line_ids if held is None else held.line_ids + tax.line_ids
        merged[key] = AppliedTax(
            name=tax.name,
            jurisdiction=tax.jurisdiction,
            rate=tax.rate,
            inclusive=tax.inclusive,
            line_ids=line_ids,
            amount=tax.amount,
        )
    return list(merged.values())


def _untaxed(lines: Sequence[TaxableLine], taxes: Sequence[AppliedTax]) -> Mapping[str, Fraction]:
    """Each line without the taxes inside of it, unrounded."""
    inside: dict[str, Fraction] = defaultdict(Fraction)
    for tax in taxes:
        if tax.inclusive:
            for line_id in tax.line_ids:
                inside[line_id] += Fraction(tax.rate)
    return {line.id: Fraction(line.net) / (1 + inside[line.id]) for line in lines}


def _to_decimal(units: int, exponent: int) -> Decimal:
    with exact():
        return Decimal(units).scaleb(-exponent)


def _wrong(engine: str, fault: str) -> PluginError:
    return PluginError(f"the tax engine {engine!r} gave a wrong answer: {fault}")
