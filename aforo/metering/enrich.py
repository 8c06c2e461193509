"""Stage 4, enrichment: whose event it is as of its moment, and what serving it cost us."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from aforo.sdk.money import add, multiply


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


class Cost(NamedTuple):
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
        rate = _in_force(rates.get(meter_id, ()), at)
        if rate is None:
            continue
        rival = chosen.get(rate.measure)
        candidate = _Candidate(meter_id, quantity, rate)
        if rival is None or candidate.rank(preferred) > rival.rank(preferred):
            chosen[rate.measure] = candidate
    amount, currency, used = Decimal(0), None, []
    for _, quantity, rate in chosen.values():
        if currency not in {None, rate.currency}:
            return None
        currency = rate.currency
        amount = add(amount, multiply(quantity, rate.unit_cost))
        used.append(rate.rate_id)
    return None if currency is None else Cost(amount, currency, tuple(used))


class _Candidate(NamedTuple):
    meter_id: UUID
    quantity: Decimal
    rate: RateInForce

    def rank(self, preferred: Collection[UUID]) -> tuple[bool, int, datetime, UUID]:
        rate = self.rate
        return (self.meter_id in preferred, rate.filters, rate.effective_from, rate.rate_id)


def _in_force(versions: Sequence[RateInForce], at: datetime) -> RateInForce | None:
    for rate in reversed(versions):
        if rate.effective_from <= at:
            return rate
    return None
