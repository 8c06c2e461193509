"""Stage 4: the COGS of an event, fixed by the rate versions of its moment."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from aforo.metering.enrich import Cost, RateInForce, cost_of

INPUT, OUTPUT = UUID(int=1), UUID(int=2)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def rate(
    number: int,
    unit_cost: str,
    since: datetime,
    *,
    currency: str = "USD",
    measure: str = "input",
    filters: int = 0,
) -> RateInForce:
    return RateInForce(
        UUID(int=number), Decimal(unit_cost), currency, since, measure=measure, filters=filters
    )


RATES = {
    INPUT: [rate(10, "0.000000030", JUNE), rate(11, "0.00000005", JULY)],
    OUTPUT: [rate(20, "0.000015", JUNE, measure="output")],
}


@pytest.mark.parametrize(
    ("units", "at", "amount", "rates"),
    [
        ({INPUT: "374"}, JUNE, "0.000011220", (10,)),
        ({INPUT: "374"}, JULY - TICK, "0.000011220", (10,)),
        ({INPUT: "374"}, JULY, "0.0000187", (11,)),
        ({INPUT: "374", OUTPUT: "44"}, JULY, "0.0006787", (11, 20)),
        ({INPUT: "0"}, JULY, "0", (11,)),
        ({INPUT: "-10"}, JULY, "-0.0000005", (11,)),
        ({INPUT: "999999999999999.999999999999"}, JUNE, "29999999.99999999999999999997", (10,)),
        # A meter without a rate adds nothing to what another one costs.
        ({INPUT: "10", UUID(int=9): "5"}, JULY, "0.0000005", (11,)),
    ],
)
def test_the_cost_is_units_times_the_rate_in_force(
    units: dict[UUID, str], at: datetime, amount: str, rates: tuple[int, ...]
) -> None:
    brought = {meter: Decimal(quantity) for meter, quantity in units.items()}
    expected = Cost(Decimal(amount), "USD", tuple(UUID(int=number) for number in rates))
    assert cost_of(brought, RATES, at) == expected


def test_of_versions_of_the_same_moment_the_last_is_in_force() -> None:
    rates = {INPUT: [rate(1, "1", JUNE), rate(2, "2", JUNE)]}
    assert cost_of({INPUT: Decimal(1)}, rates, JUNE) == Cost(Decimal(2), "USD", (UUID(int=2),))


@pytest.mark.parametrize(
    ("units", "at"),
    [
        ({}, JULY),
        ({UUID(int=9): Decimal(5)}, JULY),
        ({INPUT: Decimal(5)}, JUNE - TICK),
    ],
)
def test_an_event_without_a_rate_has_an_unknown_cost_and_is_not_free(
    units: dict[UUID, Decimal], at: datetime
) -> None:
    assert cost_of(units, RATES, at) is None


def test_costs_in_two_currencies_are_unknown_and_never_added() -> None:
    rates = RATES | {OUTPUT: [rate(21, "0.00001", JUNE, currency="EUR", measure="output")]}
    both = {INPUT: Decimal(1), OUTPUT: Decimal(1)}
    assert cost_of(both, rates, JULY) is None
    assert cost_of({OUTPUT: Decimal(1)}, rates, JULY) == Cost(
        Decimal("0.00001"), "EUR", (UUID(int=21),)
    )


def test_a_property_that_two_meters_count_is_costed_once() -> None:
    general, exact_one = UUID(int=7), UUID(int=8)
    rates = {
        general: [rate(70, "1", JULY)],
        exact_one: [rate(80, "3", JUNE, filters=1)],
    }
    units = {general: Decimal(2), exact_one: Decimal(2)}
    filtered, offered = (
        Cost(Decimal(6), "USD", (UUID(int=80),)),
        Cost(Decimal(2), "USD", (UUID(int=70),)),
    )
    # The rate with the filter is meant more exactly; the offering's own meter goes before it.
    assert cost_of(units, rates, JULY) == filtered
    assert cost_of(units, rates, JULY, preferred={general}) == offered
    assert cost_of(units, rates, JULY, preferred={exact_one}) == filtered


def test_of_two_equal_meters_the_newer_rate_counts() -> None:
    rates = {INPUT: [rate(1, "1", JUNE)], UUID(int=5): [rate(2, "2", JULY)]}
    units = {INPUT: Decimal(1), UUID(int=5): Decimal(1)}
    assert cost_of(units, rates, JULY) == Cost(Decimal(2), "USD", (UUID(int=2),))
    assert cost_of(units, rates, JUNE) == Cost(Decimal(1), "USD", (UUID(int=1),))
