"""PERCENTAGE: prices, minimum and maximum fees, settings."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, Usage, configure, exact
from aforo_standard.pricing.percentage import Percentage


def charge(settings: dict[str, Any], values: list[Decimal]) -> list[Any]:
    model = configure(Percentage, settings)
    usage = Usage(
        quantity=max(sum(values, Decimal(0)), Decimal(0)),
        event_count=len(values),
        currency="USD",
        event_values=tuple(values) if model.prices_events() else None,
    )
    with exact():
        return list(model.price(usage))


def total(lines: list[Any]) -> Decimal:
    with exact():
        return sum((line.amount for line in lines), Decimal(0))


# rate | fixed fee | minimum | maximum | values of the events | per period | per event
CHARGES = """
    0.029 | 0    | -   | -  |              |  0    |  0
    0.029 | 0.30 | 5   | 9  |              |  0    |  0
    0.029 | 0    | -   | -  | 100          |  2.9  |  2.9
    0.029 | 0.30 | -   | -  | 100          |  3.20 |  3.20
    0.029 | 0.30 | -   | -  | 100 200 0    |  9.60 |  9.60
    0.01  | 0    | 5   | -  | 100 100 1000 | 12    | 20
    0.01  | 0    | 5   | -  | 100          |  5    |  5
    0.01  | 0    | 5   | -  | 0            |  5    |  5
    0.01  | 0    | 5   | -  | 500          |  5    |  5
    0.01  | 0    | -   | 8  | 500 500 1000 |  8    | 18
    0.01  | 0    | 5   | 8  | 100 900      |  8    | 13
    0.01  | 1    | 5   | -  | 500 300      | 10    | 11
    0.01  | 1    | -   | 5  | 500 300      |  5    |  9
    0.01  | 0    | -   | 0  | 500          |  0    |  0
    0.01  | 0    | 2   | -  | 500 -100     |  4    |  4
    0.01  | 0    | -   | 4  | 500 -100     |  4    |  3
    0.1   | 0    | -   | 1  | 100 -60      |  1    |  0
    0.01  | 0    | -   | -  | 100 -300     |  0    |  0
    1.2   | 0    | -   | -  | 10           | 12    | 12
"""


@pytest.mark.parametrize("scope", ["PERIOD", "EVENT"])
@pytest.mark.parametrize("row", CHARGES.strip().splitlines())
def test_a_share_of_the_value_with_its_fees(row: str, scope: str) -> None:
    rate, fixed, low, high, values, per_period, per_event = map(str.strip, row.split("|"))
    settings = {"rate": rate, "fixedFee": fixed, "scope": scope}
    settings |= {} if low == "-" else {"minimumFee": low}
    settings |= {} if high == "-" else {"maximumFee": high}
    lines = charge(settings, [Decimal(value) for value in values.split()])
    assert total(lines) == Decimal(per_period if scope == "PERIOD" else per_event)


def test_lines_say_what_they_are() -> None:
    settings = {"rate": "0.029", "fixedFee": "0.30", "minimumFee": "5"}
    lines = charge(settings, [Decimal(100)])
    assert [(line.label, line.amount) for line in lines] == [
        ("2.9 % of the value", Decimal("2.9")),
        ("Fixed fee per event", Decimal("0.30")),
        ("Minimum fee per period", Decimal("1.80")),
    ]
    per_event = charge({"rate": "0.5", "maximumFee": "10", "scope": "EVENT"}, [Decimal(100)])
    assert (per_event[-1].label, per_event[-1].amount) == ("Maximum fee per event", -40)


def test_event_values_are_asked_for_only_where_they_matter() -> None:
    asks = {"rate": "0.1", "scope": "EVENT", "minimumFee": "1"}
    assert configure(Percentage, asks).prices_events()
    assert not configure(Percentage, asks | {"scope": "PERIOD"}).prices_events()
    assert not configure(Percentage, {"rate": "0.1", "scope": "EVENT"}).prices_events()
    usage = Usage(quantity=Decimal(1), event_count=1, currency="USD")
    with pytest.raises(ValueError, match="value of every event"):
        configure(Percentage, asks).price(usage)


VALUES = st.lists(
    st.decimals(-1000, 10_000, places=2, allow_nan=False, allow_infinity=False), max_size=8
)


@given(values=VALUES, bounds=st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted))
def test_a_charge_per_period_stays_between_its_minimum_and_its_maximum(
    values: list[Decimal], bounds: list[int]
) -> None:
    low, high = bounds
    amount = total(charge({"rate": "0.01", "minimumFee": low, "maximumFee": high}, values))
    assert low <= amount <= high if values else amount == 0


@given(values=VALUES, bounds=st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted))
def test_a_charge_per_event_is_the_sum_of_the_bounded_charges(
    values: list[Decimal], bounds: list[int]
) -> None:
    low, high = bounds
    settings = {
        "rate": "0.01",
        "fixedFee": "0.3",
        "minimumFee": low,
        "maximumFee": high,
        "scope": "EVENT",
    }
    share = [value / 100 + Decimal("0.3") for value in values]
    charges = [
        min(max(s, Decimal(low)), Decimal(high)) if value >= 0 else s
        for value, s in zip(values, share, strict=True)
    ]
    # Values that sum below 0 are billed as a quantity of 0.
    missing = -min(sum(values, Decimal(0)), Decimal(0)) / 100
    expected = max(sum(charges, Decimal(0)) + missing, Decimal(0))
    assert total(charge(settings, values)) == expected


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "rate"),
        ({"rate": "-0.1"}, "rate"),
        ({"rate": 0.029}, "rate"),
        ({"rate": "0.1", "minimumFee": "5", "maximumFee": "4"}, "maximumFee"),
        ({"rate": "0.1", "scope": "MONTH"}, "scope"),
        ({"rate": "0.1", "fixedFee": None}, "fixedFee"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(Percentage, settings, field="")
    assert refused.value.field == field
