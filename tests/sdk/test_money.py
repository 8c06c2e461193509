"""Money, parsing, rounding, allocation and the arithmetic of rating."""

import json
from decimal import Decimal, FloatOperation, Inexact

import pytest
from babel.core import get_global
from hypothesis import example, given
from hypothesis import strategies as st

from aforo.sdk import (
    CurrencyMismatch,
    Invalid,
    Money,
    UnknownCurrency,
    allocate,
    currency_exponent,
    divide,
    exact,
    multiply,
    parse_quantity,
    parse_rate,
    round_half_up,
)
from aforo.sdk.currencies import EXPONENTS

D = Decimal


@pytest.mark.parametrize("amount", [1, 1.5, "1", None, True])
def test_money_takes_nothing_but_decimals(amount: object) -> None:
    with pytest.raises(TypeError, match="Decimal"):
        Money(amount, "USD")  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_money_is_finite(amount: str) -> None:
    with pytest.raises(Invalid) as refused:
        Money(D(amount), "USD")
    assert refused.value.code == "BAD_VALUE"


@pytest.mark.parametrize("code", ["usd", "US", "XXX", "XAU", "BTC", "", "DEM", "HRK", None, 840])
def test_a_code_that_is_no_active_currency_is_refused(code: object) -> None:
    with pytest.raises(UnknownCurrency) as refused:
        Money(D(1), code)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.field) == ("UNKNOWN_CURRENCY", "currency")


def test_money_adds_subtracts_and_compares_within_one_currency() -> None:
    one, two = Money(D("1.10"), "USD"), Money(D("2.20"), "USD")
    assert one + two == Money(D("3.30"), "USD")
    assert one - two == Money(D("-1.10"), "USD") == -one
    assert one < two
    assert one <= Money(D("1.1"), "USD") <= two
    assert two > one
    assert two >= Money(D("2.2"), "USD") >= one
    assert not two < one
    assert Money.zero("USD") + one == one
    assert str(one) == "1.10 USD"


def test_different_currencies_never_meet() -> None:
    dollar, yen = Money(D(1), "USD"), Money(D(1), "JPY")
    assert dollar != yen
    for meet in (
        lambda: dollar + yen,
        lambda: dollar - yen,
        lambda: dollar < yen,
        lambda: dollar <= yen,
        lambda: dollar > yen,
        lambda: dollar >= yen,
    ):
        with pytest.raises(CurrencyMismatch):
            meet()
    with pytest.raises(TypeError):
        dollar + D(1)  # type: ignore[operator]


def test_sums_keep_more_digits_than_the_default_context_of_python() -> None:
    total = Money(D("123456789012345"), "USD") + Money(D("0.000000000000000001"), "USD")
    assert str(total) == "123456789012345.000000000000000001 USD"


# amount | currency | rounded
ROUNDED = """
     0.005 | USD |  0.01
    -0.005 | USD | -0.01
   0.00499 | USD |  0.00
  -0.00499 | USD |  0.00
     2.675 | USD |  2.68
       0.5 | JPY |  1
      -0.5 | JPY | -1
      1.49 | JPY |  1
    0.0005 | KWD |  0.001
   0.00005 | CLF |  0.0001
       100 | EUR |  100.00
"""


@pytest.mark.parametrize("row", ROUNDED.strip().splitlines())
def test_amounts_round_half_up_to_the_smallest_unit(row: str) -> None:
    amount, currency, rounded = (cell.strip() for cell in row.split("|"))
    assert str(Money(D(amount), currency).rounded().amount) == rounded
    assert str(round_half_up(D(amount), currency_exponent(currency))) == rounded


def test_every_active_currency_is_known() -> None:
    assert {code: currency_exponent(code) for code in ("JPY", "USD", "KWD", "CLF")} == {
        "JPY": 0,
        "USD": 2,
        "KWD": 3,
        "CLF": 4,
    }
    # Every currency that is legal tender somewhere today, by an independent table.
    territories = get_global("territory_currencies")
    tender = {
        code
        for currencies in territories.values()
        for code, _, end, is_tender in currencies
        if end is None and is_tender
    }
    withdrawn_since = {"BGN", "ANG", "SLL", "HRK", "CUC", "ZWL"}
    assert tender - withdrawn_since - set(EXPONENTS) == set()


QUANTITIES = ["0", "1", "007", "0.5", "374", "123456789012345", "0.123456789012"]
NO_QUANTITIES: list[object] = [
    *("", " ", " 1", "1 ", "1\n", "+1", "-1", ".5", "5.", "1,000", "1_000", "1e3", "1E-3", "0x10"),
    *(
        "NaN",
        "nan",
        "sNaN",
        "Infinity",
        "-Infinity",
        "inf",
        "1e400",
        "٣",
        "1٣",
        "\uff11",
        "½",
        "--1",
    ),
    *("1234567890123456", "0.1234567890123", "1.2.3", "12abc", "null", "9" * 100_000),
    *(1.5, float("nan"), float("inf"), True, False, None, [], {}, b"1", -1, 10**15, 10**5000),
    *map(D, ("NaN", "sNaN", "Infinity", "1E+400", "1E+3", "1E-13", "-1", "-0", "1E+15")),
    D("1234567890123456"),
    D("0.1234567890123"),
]


@pytest.mark.parametrize("text", QUANTITIES)
def test_plain_decimals_are_quantities(text: str) -> None:
    assert parse_quantity(text) == D(text)
    assert parse_quantity(D(text)) == D(text)


def test_integers_are_quantities() -> None:
    assert parse_quantity(0) == D(0)
    assert parse_quantity(10**15 - 1) == D("999999999999999")


@pytest.mark.parametrize("value", NO_QUANTITIES, ids=range(len(NO_QUANTITIES)))
def test_anything_else_is_no_quantity(value: object) -> None:
    with pytest.raises(Invalid) as refused:
        parse_quantity(value, field="properties.tokens")  # type: ignore[arg-type]
    assert refused.value.code == "BAD_VALUE"
    assert refused.value.field == "properties.tokens"
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("value", ["-1.5", -3, D("-0.25")])
def test_corrections_may_be_negative_where_that_is_allowed(value: str | int | Decimal) -> None:
    assert parse_quantity(value, negative=True) == D(value)
    with pytest.raises(Invalid, match="non-negative"):
        parse_quantity(value)


@pytest.mark.parametrize("value", ["-0", "-0.00", D("-0.0")])
def test_a_negative_zero_is_read_as_zero(value: str | Decimal) -> None:
    assert not parse_quantity(value, negative=True).is_signed()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=0, max_value=10**14))
def test_numbers_of_a_json_body_are_read_exactly(value: Decimal) -> None:
    body = json.loads(f"[{value:f}]", parse_float=Decimal)
    assert parse_quantity(body[0]) == value


def test_rates_have_up_to_18_decimals() -> None:
    assert parse_rate("0.000000000000000001") == D("1E-18")
    assert parse_rate("0.000000030") == D("0.00000003")
    assert parse_rate(D("1E-18")) == D("1E-18")
    assert parse_rate("-0.5", negative=True) == D("-0.5")
    for refused in ("0.0000000000000000001", "-0.5", "1e-9"):
        with pytest.raises(Invalid):
            parse_rate(refused)


# total | weights | parts
ALLOCATED = """
   1.00 | 1 1 1      |  0.34  0.33  0.33
  -1.00 | 1 1 1      | -0.34 -0.33 -0.33
   0.01 | 1 1        |  0.01  0.00
   0.02 | 1 2 1      |  0.01  0.01  0.00
  10.00 | 0 1 0      |  0.00 10.00  0.00
   0.05 | 0 1 1 0    |  0.00  0.03  0.02  0.00
  95.00 | 0.9 0      | 95.00  0.00
   0.01 | 0 0        |  0.01  0.00
   0.00 | 0 0        |  0.00  0.00
   0.00 | 5 -5       |  0.00  0.00
   3.00 | 4 -1       |  4.00 -1.00
   8.25 | 33.33 66.67 |  2.75  5.50
"""


@pytest.mark.parametrize("row", ALLOCATED.strip().splitlines())
def test_totals_are_split_by_largest_remainder(row: str) -> None:
    total, weights, parts = (cell.split() for cell in row.split("|"))
    assert allocate(D(total[0]), [D(weight) for weight in weights], 2) == [
        D(part) for part in parts
    ]


def test_a_total_that_cannot_be_split_is_refused() -> None:
    assert allocate(D(0), [], 2) == []
    with pytest.raises(ValueError, match="to nothing"):
        allocate(D(1), [], 2)
    with pytest.raises(ValueError, match="round it"):
        allocate(D("0.001"), [D(1)], 2)


@given(
    units=st.integers(-(10**12), 10**12),
    weights=st.lists(
        st.decimals(0, 10**9, places=6, allow_nan=False, allow_infinity=False), min_size=1
    ),
    exponent=st.sampled_from([0, 2, 3, 4]),
)
@example(units=1, weights=[D(0), D(1)], exponent=2)
def test_parts_sum_to_the_total_and_are_at_most_a_unit_off(
    units: int, weights: list[Decimal], exponent: int
) -> None:
    with exact():
        total, unit = D(units).scaleb(-exponent), D(1).scaleb(-exponent)
        parts = allocate(total, weights, exponent)
        assert sum(parts) == total
        assert parts == [-part for part in allocate(-total, weights, exponent)]
        whole = sum(weights)
        if whole:
            shares = [divide(total * weight, whole) for weight in weights]
            assert all(abs(p - s) < unit for p, s in zip(parts, shares, strict=True))
            assert all(not p for p, w in zip(parts, weights, strict=True) if not w)


def test_in_rating_a_lost_digit_is_an_error_and_a_stated_division_is_not() -> None:
    with exact():
        assert D("123456789012345") * D("1E-18") * D("1E-60") == D("123456789012345E-78")
        with pytest.raises(Inexact):
            D(1) / D(3)
        with pytest.raises(Inexact):
            D("0.005").quantize(D("0.01"))
        with pytest.raises(FloatOperation):
            D(0.1)
        assert divide(D(1), D(3)) == D("0." + "3" * 60)
        assert divide(D(2), D(3)) == D("0." + "6" * 59 + "7")
        assert round_half_up(divide(D(2), D(3)), 2) == D("0.67")
    assert D(1) / D(3)  # Outside of it Python's own context is back.


def test_products_are_exact_everywhere() -> None:
    product = multiply(D("123456789012345.123456789012"), D("0.000000000000000001"))
    assert str(product) == "0.000123456789012345123456789012"
