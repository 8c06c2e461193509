"""The figures of the reports, as tables and as properties."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.billing.discount import AmountOff, PercentageOff
from aforo.catalog.models import Interval
from aforo.reports.measures import (
    annual_recurring,
    margin,
    monthly_recurring,
    per_customer,
    whole_and_parts,
)

# revenue | COGS | margin
MARGINS = """
    100    | 80     | 0.2
    100    | 0      | 1
    100    | 150    | -0.5
    3      | 1      | 0.666667
    0.01   | 0.02   | -1
    0      | 5      | null
    0      | 0      | null
    -10    | 5      | null
"""


@pytest.mark.parametrize("row", MARGINS.strip().splitlines())
def test_the_margin_is_a_share_of_the_revenue_and_null_without_any(row: str) -> None:
    revenue, cogs, share = (cell.strip() for cell in row.split("|"))
    expected = None if share == "null" else Decimal(share)
    assert margin(Decimal(revenue), Decimal(cogs)) == expected


# fees | discounts in their order | MRR
RECURRING = """
    100      |              | 100
    100      | 10%          | 90
    100      | 10% 95       | 0
    100      | 95 10%       | 4.50
    100      | 120          | 0
    60 40    | 10%          | 90
    0        | 10%          | 0
             |              | 0
    9.99     | 50%          | 4.99
    9.99     | 33% 33%      | 4.48
    19.99    | 100%         | 0
"""


@pytest.mark.parametrize("row", RECURRING.strip().splitlines())
def test_recurring_revenue_is_what_the_discounts_leave_of_the_fees(row: str) -> None:
    fees, discounts, expected = (cell.split() for cell in row.split("|"))
    chain = [
        PercentageOff(Decimal(one.rstrip("%")) / 100) if "%" in one else AmountOff(Decimal(one))
        for one in discounts
    ]
    monthly = monthly_recurring(
        [Decimal(fee) for fee in fees], chain, interval=Interval.MONTH, currency="USD"
    )
    assert monthly == Decimal(expected[0])


def test_a_year_is_twelve_months() -> None:
    assert annual_recurring(Decimal("83.33")) == Decimal("999.96")


# MRR | active customers | currency | ARPU
PER_CUSTOMER = """
    100   | 3  | USD | 33.33
    200   | 3  | USD | 66.67
    100   | 3  | JPY | 33
    100   | 3  | KWD | 33.333
    0     | 4  | USD | 0
    100   | 0  | USD | null
"""


@pytest.mark.parametrize("row", PER_CUSTOMER.strip().splitlines())
def test_revenue_per_customer_is_rounded_to_the_currency(row: str) -> None:
    monthly, customers, currency, expected = (cell.strip() for cell in row.split("|"))
    arpu = per_customer(Decimal(monthly), int(customers), currency)
    assert arpu == (None if expected == "null" else Decimal(expected))


# parts | whole | rounded parts
PARTS = """
    0.004 0.004 0.004   | 0.01  | 0.01 0.00 0.00
    0.005 0.005         | 0.01  | 0.01 0.00
    1.239 2.461 3.3     | 7.00  | 1.24 2.46 3.30
    -0.004 0.014        | 0.01  | 0.00 0.01
    5 -5                | 0.00  | 5.00 -5.00
    0 0 0               | 0.00  | 0.00 0.00 0.00
                        | 0.00  |
"""


@pytest.mark.parametrize("row", PARTS.strip().splitlines())
def test_what_rounding_leaves_over_goes_to_the_largest_remainders(row: str) -> None:
    parts, expected, rounded = (cell.split() for cell in row.split("|"))
    whole, given_parts = whole_and_parts([Decimal(part) for part in parts], "USD")
    assert str(whole) == expected[0]
    assert [str(part) for part in given_parts] == rounded


AMOUNTS = st.decimals(
    min_value=-(10**9), max_value=10**9, places=30, allow_nan=False, allow_infinity=False
)


@given(parts=st.lists(AMOUNTS, max_size=40), currency=st.sampled_from(["USD", "JPY", "KWD", "CLF"]))
def test_rounded_parts_sum_to_their_rounded_whole(parts: list[Decimal], currency: str) -> None:
    unit = {"USD": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}.get(
        currency, Decimal("0.0001")
    )
    whole, rounded = whole_and_parts(parts, currency)
    assert sum(rounded, Decimal(0)) == whole
    assert whole == sum(parts, Decimal(0)).quantize(unit, ROUND_HALF_UP)
    assert all(part == part.quantize(unit) for part in rounded)
    assert all(abs(one - exact) < unit for one, exact in zip(rounded, parts, strict=True))


@given(
    fees=st.lists(st.integers(0, 10**7), max_size=5),
    percents=st.lists(st.integers(0, 100), max_size=4),
)
def test_discounts_never_take_recurring_revenue_below_zero_or_raise_it(
    fees: list[int], percents: list[int]
) -> None:
    amounts = [Decimal(fee).scaleb(-2) for fee in fees]
    chain = [PercentageOff(Decimal(percent).scaleb(-2)) for percent in percents]
    monthly = monthly_recurring(amounts, chain, interval=Interval.MONTH, currency="USD")
    assert 0 <= monthly <= sum(amounts, Decimal(0))
