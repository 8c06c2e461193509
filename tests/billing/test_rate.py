"""Stage 7: what a pricing model may answer, exact sums, one rounding."""

from collections.abc import Callable
from decimal import Decimal, getcontext
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.billing.rate import STEPS_MAX, rate
from aforo.plugins import guard
from aforo.sdk import FixedAmount, PluginError, PricedLine, PricingModel, Usage
from aforo_standard.pricing.flat import Flat
from aforo_standard.pricing.graduated import Graduated
from aforo_standard.pricing.per_unit import PerUnit

D = Decimal


class Answering(PricingModel):
    """Answers with whatever a test wants."""

    key = "acme.answering"
    summary = "For tests"

    answer: Callable[[Usage], Any]

    def price(self, usage: Usage) -> Any:
        return self.answer(usage)


def used(quantity: str = "1", *, currency: str = "USD", fraction: str = "1") -> Usage:
    return Usage(quantity=D(quantity), event_count=1, currency=currency, fraction=D(fraction))


# quantity | unit price | currency | unrounded | amount
AMOUNTS = """
        1 | 0.005               | USD | 0.005                 | 0.01
        1 | 0.0049999           | USD | 0.0049999             | 0.00
        3 | 0.335               | USD | 1.005                 | 1.01
        1 | 0.5                 | JPY | 0.5                   | 1
        1 | 0.0005              | KWD | 0.0005                | 0.001
    333.5 | 0.000000030         | USD | 0.000010005           | 0.00
1234567.5 | 0.000000030         | USD | 0.037037025           | 0.04
        0 | 5                   | USD | 0                     | 0.00
999999999999999.999999999999 | 0.000000000000000001 | USD | 0.000999999999999999999999999999 | 0.00
"""


@pytest.mark.parametrize("row", AMOUNTS.strip().splitlines())
def test_a_line_is_multiplied_exactly_and_rounded_once(row: str) -> None:
    quantity, price, currency, unrounded, amount = (cell.strip() for cell in row.split("|"))
    rated = rate(PerUnit(unit_price=D(price)), used(quantity, currency=currency))
    assert rated.unrounded == D(unrounded)
    assert str(rated.amount) == amount


def test_tiers_are_summed_before_the_rounding() -> None:
    tiers = [{"upTo": "1", "unitPrice": "0.004"}, {"upTo": None, "unitPrice": "0.004"}]
    rated = rate(Graduated.model_validate({"tiers": tiers}), used("3"))
    assert [step.amount for step in rated.steps] == [D("0.004"), D("0.008")]
    assert rated.amount == D("0.01")  # Rounded by tier it would be 0.00 + 0.01, by unit 0.00.


# fee | part of the whole | amount: the exact share is a half cent, which no decimal share hits
PRORATED = """
 20.01 | 25 / 30 | 16.68
 29.97 | 25 / 30 | 24.98
  0.03 |  5 /  6 |  0.03
  0.03 |  1 /  6 |  0.01
 10.00 |  1 /  3 |  3.33
 20.00 | 31 / 31 | 20.00
"""


@pytest.mark.parametrize("row", PRORATED.strip().splitlines())
def test_half_a_cent_of_a_prorated_fee_is_rounded_up(row: str) -> None:
    fee, share, amount = (cell.strip() for cell in row.split("|"))
    part, whole = (D(side) for side in share.split("/"))
    with_60_digits = getcontext().copy()
    with_60_digits.prec = 60
    fraction = with_60_digits.divide(part, whole)
    assert rate(Flat(fee=D(fee)), used(fraction=str(fraction))).amount == D(amount)


def test_the_steps_are_those_of_the_model() -> None:
    answer = [PricedLine("Units", D(3), D("0.10")), FixedAmount("Fee", D(2))]
    rated = rate(Answering(answer=lambda _: answer), used("3"))
    assert [(s.label, s.quantity, s.unit_price, s.amount) for s in rated.steps] == [
        ("Units", D(3), D("0.10"), D("0.30")),
        ("Fee", None, None, D(2)),
    ]
    assert rated.amount == D("2.30")


def test_a_step_may_be_negative_as_long_as_the_sum_is_not() -> None:
    answer = [PricedLine("Units", D(3), D(1)), FixedAmount("Maximum", D("-1"))]
    assert rate(Answering(answer=lambda _: answer), used()).amount == D(2)


class Priced(PricedLine):
    """A line with an amount of its own, which nobody asks for."""

    @property
    def amount(self) -> Decimal:
        return D(1_000_000)


def test_the_core_multiplies_whatever_the_plugin_says_the_amount_is() -> None:
    rated = rate(Answering(answer=lambda _: [Priced("Units", D(2), D(3))]), used())
    assert rated.amount == D(6)


class Mute(Exception):
    """Fails even at saying what it is about."""

    def __str__(self) -> str:
        raise RuntimeError


def raises(error: type[BaseException]) -> Callable[[Usage], Any]:
    def answer(usage: Usage) -> Any:
        raise error("on purpose")

    return answer


WRONG: dict[str, tuple[Callable[[Usage], Any], str]] = {
    "nothing": (lambda _: None, "NoneType"),
    "text": (lambda _: "10.00", "str"),
    "a generator": (lambda _: (line for line in ()), "generator"),
    "a number": (lambda _: [D(1)], "neither PricedLine nor FixedAmount"),
    "a float": (lambda _: [FixedAmount("Fee", 1.5)], "float"),  # type: ignore[arg-type]
    "an int": (lambda _: [PricedLine("Units", 1, D(1))], "int"),  # type: ignore[arg-type]
    "a NaN": (lambda _: [FixedAmount("Fee", D("NaN"))], "NaN"),
    "an infinity": (lambda _: [PricedLine("Units", D("Infinity"), D(1))], "Infinity"),
    "a giant": (lambda _: [FixedAmount("Fee", D("1E+30"))], "beyond all bounds"),
    "a giant product": (lambda _: [PricedLine("U", D("1E+20"), D("1E+20"))], "beyond all bounds"),
    "dust": (lambda _: [FixedAmount("Fee", D("1E-121"))], "beyond all bounds"),
    "too many lines": (lambda _: [FixedAmount("Fee", D(0))] * (STEPS_MAX + 1), str(STEPS_MAX)),
    "no label": (lambda _: [FixedAmount("", D(1))], "label"),
    "a label with a NUL": (lambda _: [FixedAmount("a\0b", D(1))], "printable"),
    "a label of half a character": (lambda _: [FixedAmount("\ud800", D(1))], "printable"),
    "less than 0": (lambda _: [FixedAmount("Credit", D("-0.01"))], "-0.01"),
    "a lost digit": (lambda u: [FixedAmount("Fee", u.quantity / 3)], "divide"),
    "a sum with a lost digit": (
        lambda _: [FixedAmount("Fee", D("1E+29")), FixedAmount("Dust", D("1E-119"))],
        "divide",
    ),
    "an error": (raises(KeyError), "KeyError"),
    "a failed assertion": (raises(AssertionError), "on purpose"),
    "a way out": (raises(SystemExit), "SystemExit"),
    "an error that fails": (raises(Mute), "Mute"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_fails_with_the_name_of_the_model(name: str) -> None:
    answer, said = WRONG[name]
    with pytest.raises(PluginError) as failed:
        rate(Answering(answer=answer), used())
    assert "'acme.answering'" in str(failed.value)
    assert said in str(failed.value)


def test_a_model_that_does_not_come_back_fails_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spin(_usage: Usage) -> Any:
        while True:
            pass

    monkeypatch.setattr(guard, "COMPUTING_SECONDS_MAX", 0.1)
    with pytest.raises(PluginError, match=r"'acme\.answering' .* failed: TookTooLong: ") as raised:
        rate(Answering(answer=spin), used())
    assert "it had computed for more than 0.1 s" in raised.value.message


def test_a_model_cannot_change_the_arithmetic_of_the_core() -> None:
    def answer(usage: Usage) -> Any:
        getcontext().prec = 2
        return [PricedLine("Units", D("1.2345"), D("1.2345")), FixedAmount("Fee", D("0.0001"))]

    before = getcontext().prec
    assert rate(Answering(answer=answer), used()).unrounded == D("1.52409025")
    assert getcontext().prec == before


@given(
    st.lists(
        st.tuples(
            st.decimals(0, 10**12, places=12, allow_nan=False),
            st.decimals(0, 10**12, places=18, allow_nan=False),
        ),
        max_size=20,
    )
)
def test_the_rounded_amount_is_within_half_a_cent_of_the_exact_sum(
    lines: list[tuple[Decimal, Decimal]],
) -> None:
    answer = [PricedLine("Units", quantity, price) for quantity, price in lines]
    rated = rate(Answering(answer=lambda _: answer), used())
    exact_sum = sum(Fraction(quantity) * Fraction(price) for quantity, price in lines)
    assert Fraction(rated.unrounded) == exact_sum
    assert abs(Fraction(rated.amount) - exact_sum) <= Fraction(1, 200)
