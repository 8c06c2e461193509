"""Revenue accrued so far in a period that still runs: for margins, never for invoices."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from aforo.billing.discount import AmountOff, PercentageOff
from aforo.billing.invoice import Charge, Counted, Discounting, rate_charge
from aforo.sdk import Period, exact, multiply, round_half_up
from aforo.subscriptions.periods import PeriodPart

DECIMALS = 12
_UNROUNDED_DECIMALS = 40


def accrue(
    charges: Sequence[Charge],
    counted: Mapping[UUID, Counted],
    *,
    currency: str,
    part: PeriodPart,
    at: datetime,
    discounts: Sequence[Discounting] = (),
) -> Decimal:
    """Revenue of a subscription in `part` up to `at`, net of discounts, before tax, in `currency`.

    Flat fees accrue with the time that has passed, and so do discounts of a fixed amount; usage is
    rated as if the period ended now. Lines are not rounded to the currency, the sum is given to 12
    decimals. Raises `PluginError`, which names the pricing model that failed.
    """
    if at <= part.part.start:
        return Decimal(0)
    elapsed = Period(part.part.start, min(at, part.part.end))
    elapsed_share = elapsed.fraction_of(part.whole)
    with exact():
        left = Decimal(0)
        for charge in charges:
            if charge.meter_id is None:
                rated = rate_charge(charge, None, currency=currency, fraction=elapsed_share)
            else:
                usage = counted.get(charge.meter_id, Counted())
                rated = rate_charge(charge, usage, currency=currency, fraction=part.fraction)
            left += rated.unrounded
        for item in discounts:
            match item.rule:
                case PercentageOff(share):
                    taken = multiply(left, share)
                case AmountOff(amount):
                    taken = multiply(amount, elapsed.fraction_of(part.part))
            left = round_half_up(max(left - taken, Decimal(0)), _UNROUNDED_DECIMALS)
        return round_half_up(left, DECIMALS)
