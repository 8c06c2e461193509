"""Stage 4, enrichment: whose event it is as of its moment, and what serving it cost us."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from aforo.sdk.money import exact


@dataclass(frozen=True, slots=True)
class RateInForce:
    """A version of the cost rate of one meter, from a moment on."""

    rate_id: UUID
    unit_cost: Decimal
    currency: str
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """The COGS of one event, fixed at its moment, with the rate versions that made it."""

    amount: Decimal
    currency: str
    rates: tuple[UUID, ...]


def cost_of(
    units: Mapping[UUID, Decimal],
    rates: Mapping[UUID, Sequence[RateInForce]],
    at: datetime,
) -> Cost | None:
    """Σ units × unit cost over the meters that have a rate at that moment.

    `rates` holds each meter's versions, oldest first. None is UNKNOWN_COST, which is not the
    same as free: no meter has a rate, or the rates are in different currencies.
    """
    found: list[tuple[Decimal, RateInForce]] = []
    for meter_id, quantity in units.items():
        in_force = [rate for rate in rates.get(meter_id, ()) if rate.effective_from <= at]
        if in_force:
            found.append((quantity, in_force[-1]))
    if not found or len({rate.currency for _, rate in found}) > 1:
        return None
    with exact():
        amount = sum((quantity * rate.unit_cost for quantity, rate in found), Decimal(0))
    return Cost(amount, found[0][1].currency, tuple(rate.rate_id for _, rate in found))
