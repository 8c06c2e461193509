"""Stage 9: per rate on the sum of its base, rounded once, allocated, inside or on top."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.billing.tax import TAXES_MAX, Taxes, checked, compute_taxes
from aforo.sdk import AppliedTax, PluginError, TaxableLine

D = Decimal


def lines_of(*nets: str | Decimal) -> list[TaxableLine]:
    return [
        TaxableLine(id=str(number), category=None, net=D(net)) for number, net in enumerate(nets)
    ]


def applied(rate: str, *line_ids: str, **options: Any) -> AppliedTax:
    options = {"name": "Tax", "jurisdiction": "everywhere", "inclusive": False} | options
    return AppliedTax(rate=D(rate), line_ids=line_ids, **options)


def taxed(nets: str, *taxes: AppliedTax, currency: str = "USD") -> Taxes:
    lines = lines_of(*nets.split())
    return compute_taxes(lines, checked(list(taxes), lines, engine="test"), currency=currency)


# nets | rate | tax | per line
EXCLUSIVE = """
18.00 6.40 6.29 9.90 | 0.0825 | 3.35 | 1.48 0.53 0.52 0.82
0.05 0.05 0.05       | 0.10   | 0.02 | 0.01 0.01 0.00
0.04 0.04 0.04       | 0.10   | 0.01 | 0.01 0.00 0.00
100                  | 0.19   | 19.00 | 19.00
0 0                  | 0.19   | 0.00 | 0.00 0.00
50 50                | 0      | 0.00 | 0.00 0.00
"""


@pytest.mark.parametrize("row", EXCLUSIVE.strip().splitlines())
def test_a_tax_on_top_is_rounded_once_on_its_whole_base_and_allocated(row: str) -> None:
    nets, rate, amount, shares = (cell.strip() for cell in row.split("|"))
    ids = [str(number) for number in range(len(nets.split()))]
    result = taxed(nets, applied(rate, *ids))
    (tax,) = result.taxes
    assert tax.base == sum(D(net) for net in nets.split())
    assert str(tax.amount) == amount
    assert [f"{share:.2f}" for share in result.by_line] == shares.split()


# gross | rate | base | tax inside
INCLUSIVE = """
119.00 | 0.19 | 100.00 | 19.00
100.00 | 0.19 | 84.03  | 15.97
10.00  | 0.20 | 8.33   | 1.67
0.03   | 0.20 | 0.02   | 0.01
0.01   | 1.00 | 0.00   | 0.01
"""


@pytest.mark.parametrize("row", INCLUSIVE.strip().splitlines())
def test_an_inclusive_tax_lies_in_the_price(row: str) -> None:
    gross, rate, base, amount = (cell.strip() for cell in row.split("|"))
    result = taxed(gross, applied(rate, "0", inclusive=True))
    (tax,) = result.taxes
    assert (str(tax.base), str(tax.amount)) == (base, amount)
    assert tax.base + tax.amount == D(gross)
    assert result.by_line == (0,)  # Nothing comes on top.


def test_two_inclusive_taxes_share_one_line() -> None:
    state = applied("0.05", "0", name="State", inclusive=True)
    result = taxed("115.00", applied("0.10", "0", name="Country", inclusive=True), state)
    assert [(str(tax.base), str(tax.amount)) for tax in result.taxes] == [
        ("100.00", "10.00"),
        ("100.00", "5.00"),
    ]


def test_a_tax_on_top_of_a_price_that_contains_another_is_on_the_rest() -> None:
    on_top = applied("0.05", "0", name="Levy")
    result = taxed("119.00", applied("0.19", "0", inclusive=True), on_top)
    assert [str(tax.amount) for tax in result.taxes] == ["19.00", "5.00"]
    assert result.by_line == (D("5.00"),)


def test_rates_on_different_lines_are_rounded_apart() -> None:
    reduced = applied("0.07", "1", name="Reduced")
    result = taxed("0.05 0.08", applied("0.19", "0"), reduced)
    assert [str(tax.amount) for tax in result.taxes] == ["0.01", "0.01"]
    assert result.by_line == (D("0.01"), D("0.01"))


def test_an_engine_that_answers_line_by_line_is_still_rounded_once_per_rate() -> None:
    result = taxed("0.04 0.04 0.04", *(applied("0.10", line_id) for line_id in "012"))
    (tax,) = result.taxes
    assert (tax.base, tax.amount) == (D("0.12"), D("0.01"))


def test_a_tax_on_top_is_borne_by_what_was_taxed_and_not_by_the_price() -> None:
    result = taxed("10 8", applied("0.25", "0", inclusive=True), applied("0.10", "0", "1"))
    assert [(tax.base, tax.amount) for tax in result.taxes] == [(8, 2), (16, D("1.60"))]
    assert result.by_line == (D("0.80"), D("0.80"))


def test_an_amount_that_the_engine_gives_stands() -> None:
    result = taxed("60 40", applied("0.0825", "0", "1", amount=D("8.26")))
    assert result.taxes[0].amount == D("8.26")
    assert result.by_line == (D("4.96"), D("3.30"))


def test_taxes_follow_the_exponent_of_the_currency() -> None:
    assert taxed("105", applied("0.10", "0"), currency="JPY").by_line == (D(11),)


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "NoneType"),
    "text": ("tax", "str"),
    "something else": ([{"rate": "0.1"}], "dict"),
    "too many": ([applied("0.1", "0")] * (TAXES_MAX + 1), str(TAXES_MAX)),
    "an unknown line": ([applied("0.1", "7")], "not asked about"),
    "no line": ([applied("0.1")], "no line"),
    "a line twice": ([applied("0.1", "0", "0")], "twice"),
    "the same tax twice": ([applied("0.1", "0"), applied("0.1", "0")], "twice"),
    "a negative rate": ([applied("-0.1", "0")], "rate"),
    "a rate that is none": ([applied("NaN", "0")], "rate"),
    "an infinite rate": ([applied("Infinity", "0")], "rate"),
    "a rate in percent of thousands": ([applied("101", "0")], "rate"),
    "a negative amount": ([applied("0.1", "0", amount=D(-1))], "amount"),
    "an amount that is none": ([applied("0.1", "0", amount=D("NaN"))], "amount"),
    "a float": ([applied("0.1", "0", amount=0.5)], "amount"),
    "no name": ([applied("0.1", "0", name="")], "names"),
    "a name with a NUL": ([applied("0.1", "0", name="V\0T")], "printable"),
    "a guess": ([applied("0.1", "0", inclusive=None)], "inclusive"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_fails_with_the_name_of_the_engine(name: str) -> None:
    answer, said = WRONG[name]
    with pytest.raises(PluginError) as failed:
        checked(answer, lines_of("1.00"), engine="acme.tax")
    assert "'acme.tax'" in str(failed.value)
    assert said in str(failed.value)


CENTS = st.integers(0, 10**8).map(lambda cents: D(cents).scaleb(-2))
RATES = st.decimals(0, 1, places=4, allow_nan=False)


@given(st.lists(CENTS, min_size=1, max_size=10), st.lists(RATES, max_size=4), st.booleans())
def test_line_taxes_sum_to_the_taxes_on_top_and_inclusive_ones_never_exceed_the_price(
    nets: list[Decimal], rates: list[Decimal], inclusive: bool
) -> None:
    lines = lines_of(*nets)
    ids = tuple(line.id for line in lines)
    taxes = [
        applied(str(rate), *ids[number % len(ids) :], name=f"T{number}", inclusive=inclusive)
        for number, rate in enumerate(rates)
    ]
    result = compute_taxes(lines, taxes, currency="USD")
    on_top = sum((tax.amount for tax in result.taxes if not tax.inclusive), D(0))
    assert sum(result.by_line) == on_top
    assert all(share >= 0 for share in result.by_line)
    for tax in result.taxes:
        assert abs(tax.amount - tax.base * tax.rate) <= D("0.005") * (1 + tax.rate)
        if inclusive:
            assert tax.amount <= sum(nets)
