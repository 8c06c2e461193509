"""GRADUATED and VOLUME: prices, tiers that do not fit, and what holds for all tiers."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, PricedLine, Usage, configure, exact
from aforo_standard.pricing.graduated import Graduated
from aforo_standard.pricing.tiers import TieredModel
from aforo_standard.pricing.volume import Volume

TIERS: list[dict[str, Any]] = [
    {"upTo": "100", "unitPrice": "1.00", "flatFee": "10"},
    {"upTo": None, "unitPrice": "0.50", "flatFee": "5"},
]
TOKENS: list[dict[str, Any]] = [
    {"upTo": "100000", "unitPrice": "0.000003"},
    {"upTo": "1000000", "unitPrice": "0.0000025"},
    {"unitPrice": "0.000002"},
]


def charge(model: type[TieredModel], quantity: Decimal, settings: dict[str, Any]) -> list[Any]:
    usage = Usage(quantity=quantity, event_count=1, currency="USD")
    with exact():
        return list(configure(model, settings).price(usage))


def total(lines: list[Any]) -> Decimal:
    with exact():
        return sum((line.amount for line in lines), Decimal(0))


# quantity | units per tier | total
GRADUATED = """
        0 | 0             |   0
      0.5 | 0.5           |  10.5
     99.5 | 99.5          | 109.5
      100 | 100           | 110
    100.5 | 100 0.5       | 115.25
      101 | 100 1         | 115.5
      200 | 100 100       | 165
"""


@pytest.mark.parametrize("row", GRADUATED.strip().splitlines())
def test_graduated_charges_each_part_at_its_tier(row: str) -> None:
    quantity, units, amount = (cell.strip() for cell in row.split("|"))
    lines = charge(Graduated, Decimal(quantity), {"tiers": TIERS})
    parts = [line.quantity for line in lines if isinstance(line, PricedLine)]
    assert parts == [Decimal(unit) for unit in units.split()]
    assert total(lines) == Decimal(amount)


# quantity | unit price | total
VOLUME = """
        0 | 1.00 |   0
      0.5 | 1.00 |  10.5
      100 | 1.00 | 110
    100.5 | 0.50 |  55.25
      101 | 0.50 |  55.5
      200 | 0.50 | 105
"""


@pytest.mark.parametrize("row", VOLUME.strip().splitlines())
def test_volume_charges_all_at_the_tier_of_the_total(row: str) -> None:
    quantity, price, amount = (Decimal(cell) for cell in row.split("|"))
    lines = charge(Volume, quantity, {"tiers": TIERS})
    assert (lines[0].quantity, lines[0].unit_price) == (quantity, price)
    assert total(lines) == amount


# tokens | graduated | volume
TOKEN_CHARGES = """
          1 | 0.000003    | 0.000003
     100000 | 0.3         | 0.3
     100001 | 0.3000025   | 0.2500025
    1000000 | 2.55        | 2.5
  3195716.5 | 6.941433    | 6.391433
"""


@pytest.mark.parametrize("row", TOKEN_CHARGES.strip().splitlines())
def test_prices_of_a_millionth_are_exact(row: str) -> None:
    tokens, graduated, volume = (Decimal(cell) for cell in row.split("|"))
    assert total(charge(Graduated, tokens, {"tiers": TOKENS})) == graduated
    assert total(charge(Volume, tokens, {"tiers": TOKENS})) == volume


@pytest.mark.parametrize("model", [Graduated, Volume])
def test_without_usage_there_is_one_line_of_0_and_no_flat_fee(model: type[TieredModel]) -> None:
    (line,) = charge(model, Decimal(0), {"tiers": TIERS})
    assert (line.quantity, line.unit_price, line.amount) == (0, 1, 0)


@pytest.mark.parametrize("model", [Graduated, Volume])
def test_the_flat_fee_is_charged_without_usage_if_the_plan_says_so(
    model: type[TieredModel],
) -> None:
    settings = {"tiers": TIERS, "chargeFlatFeeOnZeroUsage": True}
    assert total(charge(model, Decimal(0), settings)) == 10


def test_lines_say_which_tier_they_are() -> None:
    tiers = [
        {"upTo": "1000", "unitPrice": "1", "flatFee": "3"},
        {"upTo": "2500.5", "unitPrice": "1"},
        {"unitPrice": "1"},
    ]
    lines = charge(Graduated, Decimal(3000), {"tiers": tiers})
    assert [line.label for line in lines] == [
        "Up to 1,000",
        "Flat fee: up to 1,000",
        "Above 1,000 up to 2,500.5",
        "Above 2,500.5",
    ]
    assert charge(Volume, Decimal(1), {"tiers": [{"unitPrice": "1"}]})[0].label == "All units"


# upper bounds of the tiers (- is open) | the bound that does not fit
MISFITS = """
    10 20        | 1
    -  -         | 0
    -  10 -      | 0
    10 - 20 -    | 1
    10 10 -      | 1
    20 10 -      | 1
    10 20 15 -   | 2
    0  -         | 0
    10           | 0
"""


@pytest.mark.parametrize("model", [Graduated, Volume])
@pytest.mark.parametrize("row", MISFITS.strip().splitlines())
def test_tiers_that_overlap_or_leave_a_gap_are_refused_by_name(
    model: type[TieredModel], row: str
) -> None:
    bounds, misfit = row.split("|")
    tiers = [
        {"upTo": None if bound == "-" else bound, "unitPrice": "1"} for bound in bounds.split()
    ]
    with pytest.raises(Invalid) as refused:
        configure(model, {"tiers": tiers}, field="lines.3.settings")
    assert refused.value.field == f"lines.3.settings.tiers.{misfit.strip()}.upTo"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"tiers": []}, "tiers"),
        ({}, "tiers"),
        ({"tiers": [{"unitPrice": "1"}] * 101}, "tiers"),
        ({"tiers": [{"upTo": "-5", "unitPrice": "1"}, {"unitPrice": "1"}]}, "tiers.0.upTo"),
        ({"tiers": [{"unitPrice": "-1"}]}, "tiers.0.unitPrice"),
        ({"tiers": [{"unitPrice": "1", "flatFee": "-1"}]}, "tiers.0.flatFee"),
        ({"tiers": [{"upTo": None}]}, "tiers.0.unitPrice"),
        ({"tiers": [{"unitPrice": "1", "from": "0"}]}, "tiers.0.from"),
        (
            {"tiers": [{"unitPrice": "1"}], "chargeFlatFeeOnZeroUsage": "yes"},
            "chargeFlatFeeOnZeroUsage",
        ),
    ],
)
def test_other_settings_that_are_wrong_are_named_too(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(Graduated, settings)
    assert refused.value.field == f"settings.{path}"


QUANTITIES = st.decimals(0, 10**7, places=6, allow_nan=False, allow_infinity=False)
PRICES = st.decimals(0, 100, places=15, allow_nan=False, allow_infinity=False)


@st.composite
def tier_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    bounds = draw(st.lists(QUANTITIES.filter(bool), max_size=6, unique=True))
    return [
        {"upTo": upper, "unitPrice": draw(PRICES), "flatFee": draw(PRICES)}
        for upper in [*sorted(bounds), None]
    ]


@given(tiers=tier_lists(), quantity=QUANTITIES)
def test_the_parts_of_graduated_tiers_sum_to_the_whole(
    tiers: list[dict[str, Any]], quantity: Decimal
) -> None:
    lines = charge(Graduated, quantity, {"tiers": tiers})
    units = [line.quantity for line in lines if isinstance(line, PricedLine)]
    assert sum(units) == quantity
    assert all(unit > 0 for unit in units) or (quantity == 0 and units == [0])


@given(tiers=tier_lists(), quantities=st.tuples(QUANTITIES, QUANTITIES).map(sorted))
def test_more_usage_never_costs_less_when_graduated(
    tiers: list[dict[str, Any]], quantities: list[Decimal]
) -> None:
    less, more = (total(charge(Graduated, each, {"tiers": tiers})) for each in quantities)
    assert less <= more


@given(tiers=tier_lists(), quantity=QUANTITIES.filter(bool))
def test_volume_is_quantity_times_the_price_of_its_tier_plus_its_fee(
    tiers: list[dict[str, Any]], quantity: Decimal
) -> None:
    tier = next(tier for tier in tiers if tier["upTo"] is None or quantity <= tier["upTo"])
    with exact():
        expected = quantity * tier["unitPrice"] + tier["flatFee"]
    assert total(charge(Volume, quantity, {"tiers": tiers})) == expected


@given(price=PRICES, fee=PRICES, quantity=QUANTITIES)
def test_with_a_single_tier_both_models_agree(
    price: Decimal, fee: Decimal, quantity: Decimal
) -> None:
    settings = {"tiers": [{"unitPrice": price, "flatFee": fee}]}
    assert charge(Graduated, quantity, settings) == charge(Volume, quantity, settings)
