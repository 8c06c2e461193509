"""Stage 8: ordered discounts, what is left, and who bears them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.billing.discount import AmountOff, PercentageOff, apply_discounts

D = Decimal


def parsed(text: str) -> PercentageOff | AmountOff:
    number = text.strip().removesuffix("%").strip()
    return PercentageOff(D(number) / 100) if "%" in text else AmountOff(D(number))


# lines | discounts in order | what each takes
REDUCTIONS = """
100          | 10 %, 95         | 10.00 90.00
100          | 95, 10 %         | 95.00 0.50
100          | 10 %, 10 %       | 10.00 9.00
60 40        | 10 %, 95         | 10.00 90.00
0            | 10 %, 5          | 0.00 0.00
100          | 100 %, 5, 5 %    | 100.00 0.00 0.00
0.01         | 50 %             | 0.01
0.01         | 49 %             | 0.00
45.10        | 10 %             | 4.51
44.63        | 10 %             | 4.46
0.05         | 10 %             | 0.01
0.05         | 10 %, 10 %       | 0.01 0.00
100          | 33.333333 %      | 33.33
10           | 0.005            | 0.01
10           | 250              | 10.00
"""


@pytest.mark.parametrize("row", REDUCTIONS.strip().splitlines())
def test_each_discount_takes_from_what_is_left(row: str) -> None:
    lines, discounts, taken = (cell.strip() for cell in row.split("|"))
    reductions = apply_discounts(
        [D(line) for line in lines.split()],
        [parsed(discount) for discount in discounts.split(",")],
        currency="USD",
    )
    assert [f"{reduction.amount:.2f}" for reduction in reductions] == taken.split()


# lines | discount | allocations
ALLOCATIONS = """
1.00 1.00 1.00  | 1.00  | 0.34 0.33 0.33
2.00 1.00       | 1.00  | 0.67 0.33
20 7.11 6.99 11 | 10 %  | 2.00 0.71 0.70 1.10
0 5             | 10 %  | 0.00 0.50
0 0             | 5     | 0.00 0.00
0.01 0.01       | 0.01  | 0.01 0.00
"""


@pytest.mark.parametrize("row", ALLOCATIONS.strip().splitlines())
def test_a_discount_is_allocated_by_largest_remainder(row: str) -> None:
    lines, discount, shares = (cell.strip() for cell in row.split("|"))
    (reduction,) = apply_discounts(
        [D(line) for line in lines.split()], [parsed(discount)], currency="USD"
    )
    assert [f"{share:.2f}" for share in reduction.allocations] == shares.split()


def test_amounts_follow_the_exponent_of_the_currency() -> None:
    for currency, taken in (("JPY", "1"), ("USD", "0.50"), ("KWD", "0.500")):
        (reduction,) = apply_discounts([D(5)], [PercentageOff(D("0.1"))], currency=currency)
        assert str(reduction.amount) == taken


def test_without_lines_nothing_is_taken() -> None:
    (reduction,) = apply_discounts([], [AmountOff(D(5))], currency="USD")
    assert (reduction.amount, reduction.allocations) == (0, ())


CENTS = st.integers(0, 10**9).map(lambda cents: D(cents).scaleb(-2))
DISCOUNTS = st.one_of(
    st.decimals(0, 1, places=6, allow_nan=False).map(PercentageOff),
    st.decimals(0, 10**7, places=4, allow_nan=False).map(AmountOff),
)


@given(st.lists(CENTS, max_size=12), st.lists(DISCOUNTS, max_size=6))
def test_nothing_falls_below_0_and_allocations_sum_to_the_discount(
    amounts: list[Decimal], discounts: list[PercentageOff | AmountOff]
) -> None:
    left = list(amounts)
    for reduction in apply_discounts(amounts, discounts, currency="USD"):
        assert reduction.of == sum(left)
        assert 0 <= reduction.amount <= sum(left)
        assert sum(reduction.allocations) == reduction.amount
        left = [one - share for one, share in zip(left, reduction.allocations, strict=True)]
        assert all(one >= 0 for one in left)
        assert all(share >= 0 for share in reduction.allocations)
