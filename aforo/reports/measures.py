"""The arithmetic of the figures: margins, recurring revenue, parts that sum to their whole."""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal

from aforo.billing.discount import AmountOff, PercentageOff, apply_discounts
from aforo.catalog.models import Interval
from aforo.sdk import currency_exponent, divide, exact, multiply, round_half_up

MARGIN_DECIMALS = 6

_MONTHS = {Interval.MONTH: Decimal(1)}


def margin(revenue: Decimal, cogs: Decimal) -> Decimal | None:
    """(revenue − COGS) / revenue as a share at 6 decimals; None where no revenue came in."""
    if revenue <= 0:  # Below 0 the quotient would call a loss a gain.
        return None
    with exact():
        return round_half_up(divide(revenue - cogs, revenue), MARGIN_DECIMALS)


def monthly_recurring(
    fees: Sequence[Decimal],
    discounts: Sequence[PercentageOff | AmountOff],
    *,
    interval: Interval,
    currency: str,
) -> Decimal:
    """What one subscription brings in a month: its rounded fees, net of the discounts that it
    has in every period, in their order; rounded to the currency. Without tax and usage."""
    reductions = apply_discounts(fees, discounts, currency=currency)
    with exact():
        net = sum(fees, Decimal(0)) - sum((one.amount for one in reductions), Decimal(0))
    return round_half_up(divide(net, _MONTHS[interval]), currency_exponent(currency))


def annual_recurring(monthly: Decimal) -> Decimal:
    """ARR = 12 × MRR."""
    return multiply(Decimal(12), monthly)


def per_customer(monthly: Decimal, active_customers: int, currency: str) -> Decimal | None:
    """ARPU = MRR / active customers, rounded to the currency; None without a customer."""
    if not active_customers:
        return None
    return round_half_up(divide(monthly, Decimal(active_customers)), currency_exponent(currency))


def whole_and_parts(parts: Sequence[Decimal], currency: str) -> tuple[Decimal, list[Decimal]]:
    """The sum of unrounded amounts, rounded once, and the parts rounded so that they sum to it.

    Each part is off by less than one smallest unit of the currency: it is rounded down, and the
    units that are missing go to the largest remainders, of equal ones to the earlier part.
    """
    unit = Decimal(1).scaleb(-currency_exponent(currency))
    with exact() as context:
        whole = round_half_up(sum(parts, Decimal(0)), currency_exponent(currency))
        context.clear_traps()  # Rounding down is the point here.
        rounded = [part.quantize(unit, rounding=ROUND_FLOOR) + 0 for part in parts]
        missing = int((whole - sum(rounded, Decimal(0))) / unit)
        by_remainder = sorted(range(len(parts)), key=lambda at: rounded[at] - parts[at])
        for at in by_remainder[:missing]:
            rounded[at] += unit
    return whole, rounded
