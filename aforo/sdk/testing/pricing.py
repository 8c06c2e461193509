"""What every pricing model promises: exact, repeatable lines that sum to 0 or more."""

from collections.abc import Iterator, Sequence
from decimal import Decimal, DecimalException, getcontext

from aforo.sdk.money import exact
from aforo.sdk.pricing import FixedAmount, PricedLine, PricingModel, Usage
from aforo.sdk.testing.contract import Case, ContractBroken, check, demand, is_text

LABEL_CHARACTERS_MAX = 200
QUANTITIES = (
    *("0", "0.000000000001", "0.5", "1", "99.5", "100", "100.5", "999", "1000", "1000.1"),
    *("33333.333333333333", "123456789012345.123456789012"),
)
"""Up to what an event can hold: 15 integer digits and 12 decimals."""
_FRACTIONS = (Decimal(1), Decimal("0.5"), Decimal("0.016666666666666666666666666667"))

Lines = Sequence[PricedLine | FixedAmount]


@check(PricingModel)
def no_usage_gives_a_line_and_no_units(case: Case) -> None:
    lines = _price(case, _usage(case, Decimal(0)))
    demand(lines, "usage of 0 gives no line: an invoice says so with a line of quantity 0")
    units = [line for line in lines if isinstance(line, PricedLine) and line.quantity != 0]
    demand(not units, f"usage of 0 gives units: {units!r}")


@check(PricingModel)
def every_usage_has_an_exact_price(case: Case) -> None:
    for usage in _usages(case):
        _price(case, usage)


@check(PricingModel)
def a_price_is_made_of_decimals_with_labels(case: Case) -> None:
    for usage in _usages(case):
        for line in _price(case, usage):
            demand(
                isinstance(line, PricedLine | FixedAmount),
                f"{line!r} is neither a PricedLine nor a FixedAmount",
            )
            demand(
                is_text(line.label, length_max=LABEL_CHARACTERS_MAX),
                f"a label is 1 to {LABEL_CHARACTERS_MAX} characters on one line, not "
                f"{line.label!r}",
            )
            for number in _numbers(line):
                demand(
                    isinstance(number, Decimal) and number.is_finite(),
                    f"{line.label!r} has {number!r} where a finite Decimal belongs",
                )


@check(PricingModel)
def no_price_is_below_zero(case: Case) -> None:
    for usage in _usages(case):
        with exact():
            total = sum((line.amount for line in _price(case, usage)), Decimal(0))
        demand(total >= 0, f"{usage.quantity:f} units come to {total:f}: never below 0")


@check(PricingModel)
def the_same_usage_gives_the_same_lines(case: Case) -> None:
    usages = list(_usages(case))
    model = case.configured()
    there = [_asked(model, usage) for usage in usages]
    back = [_asked(model, usage) for usage in reversed(usages)][::-1]
    fresh = [_asked(case.configured(), usage) for usage in usages]
    for usage, *answers in zip(usages, there, back, fresh, strict=True):
        demand(
            answers[0] == answers[1] == answers[2],
            f"{usage.quantity:f} units have more than one price: it keeps nothing between calls",
        )


@check(PricingModel)
def the_arithmetic_around_it_stays_as_it_was(case: Case) -> None:
    model = case.configured()
    with exact():
        before = (getcontext().prec, getcontext().rounding, dict(getcontext().traps))
        model.price(_usage(case, Decimal("100.5")))
        after = (getcontext().prec, getcontext().rounding, dict(getcontext().traps))
    demand(before == after, "it changes the decimal context: use `localcontext` for that")


def _usages(case: Case) -> Iterator[Usage]:
    assert issubclass(case.component, PricingModel), "the check is for pricing models"
    quantities = QUANTITIES if case.component.needs_meter else ("0",)
    for currency in ("USD", "JPY", "KWD"):
        for fraction in _FRACTIONS:
            for quantity in quantities:
                yield _usage(case, Decimal(quantity), currency=currency, fraction=fraction)


def _usage(
    case: Case, quantity: Decimal, *, currency: str = "USD", fraction: Decimal = Decimal(1)
) -> Usage:
    values: tuple[Decimal, ...] = ()
    if quantity:
        with exact():
            values = (quantity,) if quantity < 2 else (Decimal(1), quantity - 1)
    return Usage(
        quantity=quantity,
        event_count=len(values),
        currency=currency,
        fraction=fraction,
        event_values=values if case.configured().prices_events() else None,
        included=None if case.configured().entitlement_code() is None else Decimal(100),
    )


def _numbers(line: PricedLine | FixedAmount) -> tuple[object, ...]:
    return (line.amount,) if isinstance(line, FixedAmount) else (line.quantity, line.unit_price)


def _price(case: Case, usage: Usage) -> Lines:
    return _asked(case.configured(), usage)


def _asked(model: PricingModel, usage: Usage) -> Lines:
    try:
        with exact():
            lines = model.price(usage)
    except DecimalException as error:
        raise ContractBroken(
            f"{usage.quantity:f} units lose digits ({type(error).__name__}): use `divide` where a "
            "division is meant"
        ) from error
    demand(
        isinstance(lines, Sequence) and not isinstance(lines, str | bytes),
        f"it answers with a {type(lines).__name__}, not with a sequence of lines",
    )
    return list(lines)
