"""The terms of a quota: what happens beyond it, when it begins anew, and what is carried on."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

from aforo.catalog.models import (
    Aggregation,
    CalendarUnit,
    Entitlement,
    EntitlementKind,
    QuotaPolicy,
    QuotaReset,
)
from aforo.sdk import Invalid, parse_quantity

RESET_SECONDS_MAX = 366 * 24 * 3600
ROLLOVER_PERIODS_MAX = 12
ADDITIVE = frozenset({Aggregation.SUM, Aggregation.COUNT})
"""Aggregations whose units can be added up over time, and taken one after the other."""
BLOCKABLE = ADDITIVE | {Aggregation.UNIQUE}
"""Aggregations whose units come one after the other, so that the next can be refused."""

_BY_SECONDS = frozenset({QuotaReset.FIXED, QuotaReset.SLIDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTerms:
    """The terms of a QUOTA; a BOOLEAN has none."""

    policy: QuotaPolicy | None = None
    rate_per_second: Decimal | None = None
    """The rate that a throttle lowers, in units."""
    reset: QuotaReset | None = None
    reset_unit: CalendarUnit | None = None
    reset_seconds: int | None = None
    rollover_periods: int | None = None
    """For how many periods what was left over is good; None: it is not carried on."""
    rollover_cap: Decimal | None = None
    """The most that is carried on, of all periods together; None: as much as there is."""


def check_terms(
    terms: QuotaTerms, *, kind: EntitlementKind, aggregation: Aggregation | None
) -> QuotaTerms:
    """The terms with their defaults filled in; `aggregation` is that of the quota's meter.

    Raises `Invalid` with the field that does not fit.
    """
    if kind is EntitlementKind.BOOLEAN:
        _check_none(terms)
        return terms
    terms = replace(
        terms,
        policy=terms.policy or QuotaPolicy.OVERAGE,
        reset=terms.reset or QuotaReset.BILLING_PERIOD,
        rate_per_second=_positive(terms.rate_per_second, field="ratePerSecond"),
        rollover_cap=_positive(terms.rollover_cap, field="rolloverCap"),
    )
    if terms.policy is QuotaPolicy.BLOCK and aggregation not in BLOCKABLE:
        raise Invalid(
            f"of a {aggregation} no part can be refused: let it be OVERAGE, or choose a meter of "
            "SUM, COUNT or UNIQUE",
            field="policy",
        )
    _check_reset(terms, aggregation)
    _check_rollover(terms, aggregation)
    return terms


def check_included(
    pinned: Iterable[Entitlement], code: str, *, line: str, meter_id: UUID | None
) -> None:
    """Whether an offering pins the entitlement from which a line takes what is included.

    Raises `Invalid`: it is not there, is over another meter, or has other windows than a bill.
    """
    found = next((each for each in pinned if each.code == code), None)
    named = f"the line {line} takes what is included from the entitlement {code}"
    if found is None:
        raise Invalid(f"{named}: pin it as well", field="entitlementIds")
    if found.kind is not EntitlementKind.QUOTA or found.meter_id != meter_id:
        raise Invalid(f"{named}, which is no quota over the line's meter", field="entitlementIds")
    if found.reset is not QuotaReset.BILLING_PERIOD:
        raise Invalid(
            f"{named}, which begins anew by {found.reset}: a bill needs one of BILLING_PERIOD",
            field="entitlementIds",
        )


def _check_none(terms: QuotaTerms) -> None:
    given = {
        "policy": terms.policy,
        "ratePerSecond": terms.rate_per_second,
        "reset": terms.reset,
        "resetUnit": terms.reset_unit,
        "resetSeconds": terms.reset_seconds,
        "rolloverPeriods": terms.rollover_periods,
        "rolloverCap": terms.rollover_cap,
    }
    for name, value in given.items():
        if value is not None:
            raise Invalid(f"a BOOLEAN entitlement takes no {name}, leave it out", field=name)


def _check_reset(terms: QuotaTerms, aggregation: Aggregation | None) -> None:
    by_calendar = terms.reset is QuotaReset.CALENDAR
    by_seconds = terms.reset in _BY_SECONDS
    if by_calendar and terms.reset_unit is None:
        raise Invalid("CALENDAR needs the unit of the calendar, such as DAY", field="resetUnit")
    if not by_calendar and terms.reset_unit is not None:
        raise Invalid(f"{terms.reset} takes no resetUnit, leave it out", field="resetUnit")
    if by_seconds and terms.reset_seconds is None:
        raise Invalid(f"{terms.reset} needs the seconds of its window", field="resetSeconds")
    if not by_seconds and terms.reset_seconds is not None:
        raise Invalid(f"{terms.reset} takes no resetSeconds, leave it out", field="resetSeconds")
    if terms.reset_seconds is not None and not 1 <= terms.reset_seconds <= RESET_SECONDS_MAX:
        raise Invalid(
            f"a window lasts 1 to {RESET_SECONDS_MAX:,} seconds, not {terms.reset_seconds:,}",
            field="resetSeconds",
        )
    if terms.reset is QuotaReset.SLIDING and aggregation not in ADDITIVE:
        raise Invalid(
            f"units of a SUM or COUNT can leave a sliding window, not of {aggregation}",
            field="reset",
        )


def _check_rollover(terms: QuotaTerms, aggregation: Aggregation | None) -> None:
    if terms.rollover_periods is None:
        if terms.rollover_cap is not None:
            raise Invalid("a cap needs the periods of the rollover", field="rolloverPeriods")
        return
    if not 1 <= terms.rollover_periods <= ROLLOVER_PERIODS_MAX:
        raise Invalid(
            f"units are carried on for 1 to {ROLLOVER_PERIODS_MAX} periods, "
            f"not {terms.rollover_periods}",
            field="rolloverPeriods",
        )
    monthly = terms.reset is QuotaReset.BILLING_PERIOD or terms.reset_unit is CalendarUnit.MONTH
    if not monthly:
        raise Invalid(
            "units are carried from one month to the next: reset by BILLING_PERIOD or MONTH",
            field="rolloverPeriods",
        )
    if aggregation not in ADDITIVE:
        raise Invalid(
            f"units of a SUM or COUNT can be left over, not of {aggregation}",
            field="rolloverPeriods",
        )


def _positive(given: Decimal | None, *, field: str) -> Decimal | None:
    if given is None:
        return None
    parsed = parse_quantity(given, field=field)
    if parsed <= 0:
        raise Invalid(f"{field} is above 0, or left out", field=field)
    return parsed
