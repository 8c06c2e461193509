"""FLAT and PER_UNIT: prices and settings."""

from decimal import Decimal
from typing import Any

import pytest

from aforo.sdk import Invalid, PricingModel, Usage, configure, divide, exact, round_half_up
from aforo_standard.pricing.flat import Flat
from aforo_standard.pricing.per_unit import PerUnit


def usage(*, quantity: str = "0", fraction: Decimal = Decimal(1)) -> Usage:
    return Usage(quantity=Decimal(quantity), event_count=1, currency="USD", fraction=fraction)


# fee | days of 30 | amount
FEES = """
    20.00 | 30 | 20.00
    20.00 | 15 | 10.00
    20.00 | 10 |  6.67
    20.00 |  1 |  0.67
        0 | 30 |  0.00
"""


@pytest.mark.parametrize("row", FEES.strip().splitlines())
def test_a_flat_fee_follows_the_fraction_of_the_period(row: str) -> None:
    fee, days, amount = (Decimal(cell) for cell in row.split("|"))
    with exact():
        part = usage(fraction=divide(days, Decimal(30)))
        (line,) = configure(Flat, {"fee": fee}).price(part)
        assert round_half_up(line.amount, 2) == amount


def test_a_flat_fee_needs_no_meter_and_ignores_usage() -> None:
    assert not Flat.needs_meter
    flat = configure(Flat, {"fee": "20"})
    assert flat.price(usage(quantity="0")) == flat.price(usage(quantity="5"))
    assert flat.price(usage())[0].label == "Flat fee"
    assert (
        flat.price(usage(fraction=Decimal("0.5")))[0].label == "Flat fee for a part of the period"
    )


# quantity | unit price | amount
UNITS = """
           0 | 0.10                | 0
           1 | 0.10                | 0.10
         0.5 | 3                   | 1.5
     1000000 | 0.000000030         | 0.03
           7 | 0.000000000000001   | 0.000000000000007
"""


@pytest.mark.parametrize("row", UNITS.strip().splitlines())
def test_every_unit_costs_the_same(row: str) -> None:
    quantity, price, amount = (cell.strip() for cell in row.split("|"))
    (line,) = configure(PerUnit, {"unitPrice": price}).price(usage(quantity=quantity))
    assert (line.quantity, line.amount) == (Decimal(quantity), Decimal(amount))


@pytest.mark.parametrize(
    ("model", "settings", "field"),
    [
        (Flat, {}, "fee"),
        (Flat, {"fee": "-1"}, "fee"),
        (Flat, {"fee": 20.0}, "fee"),
        (PerUnit, {"unitPrice": "1e-9"}, "unitPrice"),
        (PerUnit, {"unitPrice": "1", "price": "1"}, "price"),
    ],
)
def test_wrong_settings_are_named(
    model: type[PricingModel], settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        configure(model, settings, field="")
    assert refused.value.field == field
