"""Stage 4, enrichment: whose event it is as of its moment, and what serving it cost us."""

from collections.abc import Collection, Mapping, Sequence
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
    measure: str | None = None
    """The event property that the meter counts; None for the event itself."""
    filters: int = 0
    """How many filters the meter has: the more, the more exactly its rate is meant."""


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
    *,
    preferred: Collection[UUID] = (),
) -> Cost | None:
    """Σ units × unit cost, each property of the event costed once.

    `units` and `rates` are by meter; rates hold each meter's versions, oldest first. Where several
    meters count the same property, the cost is that of a `preferred` one (the meters of the
    subscription's offering), else of the one with the most filters, else of the newest rate.
    None is UNKNOWN_COST, which is not the same as free: no meter has a rate, or the rates are in
    different currencies.
    """
    chosen: dict[str | None, _Candidate] = {}
    for meter_id, quantity in units.items():
        in_force = [rate for rate in rates.get(meter_id, ()) if rate.effective_from <= at]
        if not in_force:
            continue
        rate = in_force[-1]
        rank = (meter_id in preferred, rate.filters, rate.effective_from, rate.rate_id)
        rival = chosen.get(rate.measure)
        if rival is None or rank > rival.rank:
            chosen[rate.measure] = _Candidate(rank, quantity, rate)
    found = list(chosen.values())
    if not found or len({one.rate.currency for one in found}) > 1:
        return None
    with exact():
        amount = sum((one.quantity * one.rate.unit_cost for one in found), Decimal(0))
    return Cost(amount, found[0].rate.currency, tuple(one.rate.rate_id for one in found))


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: tuple[bool, int, datetime, UUID]
    quantity: Decimal
    rate: RateInForce
