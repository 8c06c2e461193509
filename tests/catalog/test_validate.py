"""What the catalogue accepts and refuses, by tables."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.catalog.models import Aggregation, DiscountKind, EntitlementKind
from aforo.catalog.validate import (
    DIMENSIONS_MAX,
    FILTER_VALUES_MAX,
    FILTERS_MAX,
    Filter,
    check_code,
    check_counting,
    check_currency,
    check_dimensions,
    check_filters,
    check_grant,
    check_reduction,
    check_text,
    check_unique,
)
from aforo.sdk import Invalid, UnknownCurrency

SUM, COUNT, MAX, UNIQUE, LATEST = (
    Aggregation(name) for name in ("SUM", "COUNT", "MAX", "UNIQUE", "LATEST")
)
BOOLEAN, QUOTA = EntitlementKind.BOOLEAN, EntitlementKind.QUOTA
PERCENTAGE, FIXED = DiscountKind.PERCENTAGE, DiscountKind.FIXED


def refusal(check: Callable[..., object], *arguments: Any, **named: Any) -> Invalid:
    with pytest.raises(Invalid) as refused:
        check(*arguments, **named)
    return refused.value


@pytest.mark.parametrize("code", ["a", "0", "input_tokens", "v1.2-beta", "x" * 64])
def test_a_code_of_lower_case_letters_digits_and_marks_is_kept(code: str) -> None:
    assert check_code(code) == code


@pytest.mark.parametrize(
    "code", ["", "A", "_a", ".a", "-a", "a b", "a\n", "ä", "٣", "x" * 65, "a/b", "\ud800"]
)
def test_any_other_code_is_refused_at_its_place(code: str) -> None:
    assert refusal(check_code, code, field="lines.3.code").field == "lines.3.code"


def test_a_refused_code_is_shown_in_short() -> None:
    assert len(refusal(check_code, "X" * 100_000).message) < 300


@pytest.mark.parametrize("text", ["x", "Pro — €20 / 月", " Pro ", "👩‍💻 seats", "x" * 200])
def test_a_text_that_people_can_read_is_kept(text: str) -> None:
    assert check_text(text, field="name") == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "\u3000\t", "x" * 201, "a\x00b", "a\nb", "\x7f", "\x85", "\ud800", "a\u2028b"],
)
def test_a_text_that_is_blank_long_or_unstorable_is_refused(text: str) -> None:
    assert refusal(check_text, text, field="name").field == "name"


@given(st.text(max_size=250))
def test_every_text_that_is_kept_can_be_stored(text: str) -> None:
    try:
        check_text(text, field="name")
    except Invalid:
        return
    assert 1 <= len(text) <= 200
    assert b"\x00" not in text.encode()  # And it has no half characters, or encode() raises.


@pytest.mark.parametrize("code", ["USD", "JPY", "KWD"])
def test_a_currency_of_iso_4217_is_kept(code: str) -> None:
    assert check_currency(code) == code


@pytest.mark.parametrize("code", ["", "usd", "US", "XAU", "XXX", "BTC"])
def test_any_other_currency_is_refused_at_its_place(code: str) -> None:
    error = refusal(check_currency, code, field="input.currency")
    assert isinstance(error, UnknownCurrency)
    assert (error.code, error.field) == ("UNKNOWN_CURRENCY", "input.currency")


@pytest.mark.parametrize(
    ("aggregation", "property_name", "allows_negative"),
    [
        (COUNT, None, False),
        (SUM, "tokens", False),
        (SUM, "tokens", True),
        (MAX, "seats", False),
        (UNIQUE, "user id", False),
        (LATEST, "seats", False),
    ],
)
def test_a_meter_that_says_what_it_counts_is_kept(
    aggregation: Aggregation, property_name: str | None, allows_negative: bool
) -> None:
    check_counting(
        aggregation=aggregation, property_name=property_name, allows_negative=allows_negative
    )


@pytest.mark.parametrize(
    ("aggregation", "property_name", "allows_negative", "field"),
    [
        (COUNT, "tokens", False, "property"),
        (COUNT, "", False, "property"),
        (SUM, None, False, "property"),
        (MAX, None, False, "property"),
        (UNIQUE, None, False, "property"),
        (LATEST, None, False, "property"),
        (SUM, "", False, "property"),
        (SUM, "x" * 129, False, "property"),
        (COUNT, None, True, "allowsNegative"),
        (MAX, "seats", True, "allowsNegative"),
        (UNIQUE, "user", True, "allowsNegative"),
        (LATEST, "seats", True, "allowsNegative"),
    ],
)
def test_a_meter_whose_parts_do_not_fit_is_refused(
    aggregation: Aggregation, property_name: str | None, allows_negative: bool, field: str
) -> None:
    error = refusal(
        check_counting,
        aggregation=aggregation,
        property_name=property_name,
        allows_negative=allows_negative,
    )
    assert error.field == field


def test_as_many_filters_and_values_as_allowed_are_kept() -> None:
    values = [str(number) for number in range(FILTER_VALUES_MAX)]
    check_filters([Filter("model", values)] * FILTERS_MAX)
    check_filters([Filter("region", ["", " "])])


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ([Filter("a", ["b"])] * (FILTERS_MAX + 1), "filters"),
        ([Filter("a", ["b"]), Filter("", ["b"])], "filters.1.property"),
        ([Filter("a", [])], "filters.0.values"),
        ([Filter("a", [str(n) for n in range(FILTER_VALUES_MAX + 1)])], "filters.0.values"),
        ([Filter("a", ["b", "c", "b"])], "filters.0.values.2"),
        ([Filter("a", ["b", "c\x00"])], "filters.0.values.1"),
        ([Filter("a", ["x" * 501])], "filters.0.values.0"),
    ],
)
def test_filters_that_are_too_many_or_malformed_are_refused(
    filters: list[Filter], field: str
) -> None:
    assert refusal(check_filters, filters).field == field


def test_as_many_dimensions_as_allowed_are_kept() -> None:
    check_dimensions([f"d{number}" for number in range(DIMENSIONS_MAX)])


@pytest.mark.parametrize(
    ("dimensions", "field"),
    [
        ([f"d{number}" for number in range(DIMENSIONS_MAX + 1)], "dimensions"),
        (["model", ""], "dimensions.1"),
        (["x" * 129], "dimensions.0"),
        (["a\x00"], "dimensions.0"),
        (["model", "region", "model"], "dimensions.2"),
    ],
)
def test_dimensions_that_are_too_many_or_malformed_are_refused(
    dimensions: list[str], field: str
) -> None:
    assert refusal(check_dimensions, dimensions).field == field


def test_the_second_of_two_equal_values_is_named() -> None:
    check_unique(["a", "b"], field="lines.{}.code")
    assert refusal(check_unique, ["a", "b", "a"], field="lines.{}.code").field == "lines.2.code"


@pytest.mark.parametrize("quota", [Decimal(0), Decimal("0.5"), Decimal(1_000_000)])
def test_a_quota_over_a_meter_is_kept(quota: Decimal) -> None:
    assert check_grant(kind=QUOTA, has_meter=True, quota=quota) == quota


@pytest.mark.parametrize(
    ("kind", "has_meter", "quota", "field"),
    [
        (BOOLEAN, True, None, "meterId"),
        (BOOLEAN, False, Decimal(1), "quota"),
        (QUOTA, False, Decimal(1), "meterId"),
        (QUOTA, True, None, "quota"),
        (QUOTA, True, Decimal(-1), "quota"),
        (QUOTA, True, Decimal("NaN"), "quota"),
    ],
)
def test_an_entitlement_whose_parts_do_not_fit_is_refused(
    kind: EntitlementKind, has_meter: bool, quota: Decimal | None, field: str
) -> None:
    assert refusal(check_grant, kind=kind, has_meter=has_meter, quota=quota).field == field


@pytest.mark.parametrize("rate", [Decimal("0.000000000000000001"), Decimal("0.1"), Decimal(1)])
def test_a_share_above_nothing_and_up_to_everything_is_kept(rate: Decimal) -> None:
    kept = check_reduction(kind=PERCENTAGE, rate=rate, amount=None, currency=None)
    assert kept == {"rate": rate}


@pytest.mark.parametrize(
    ("amount", "currency"), [("0.01", "USD"), ("1", "JPY"), ("0.001", "KWD"), ("95.00", "EUR")]
)
def test_an_amount_that_can_be_invoiced_is_kept(amount: str, currency: str) -> None:
    kept = check_reduction(kind=FIXED, rate=None, amount=Decimal(amount), currency=currency)
    assert kept == {"amount": Decimal(amount), "currency": currency}


@pytest.mark.parametrize(
    ("kind", "rate", "amount", "currency", "field"),
    [
        (PERCENTAGE, None, None, None, "rate"),
        (PERCENTAGE, "0", None, None, "rate"),
        (PERCENTAGE, "1.01", None, None, "rate"),
        (PERCENTAGE, "-0.1", None, None, "rate"),
        (PERCENTAGE, "0.1", "5", None, "amount"),
        (PERCENTAGE, "0.1", None, "USD", "currency"),
        (FIXED, "0.1", "5", "USD", "rate"),
        (FIXED, None, None, "USD", "amount"),
        (FIXED, None, "5", None, "currency"),
        (FIXED, None, "0", "USD", "amount"),
        (FIXED, None, "-5", "USD", "amount"),
        (FIXED, None, "5.001", "USD", "amount"),
        (FIXED, None, "0.5", "JPY", "amount"),
        (FIXED, None, "5", "XXX", "currency"),
    ],
)
def test_a_discount_whose_parts_do_not_fit_is_refused(
    kind: DiscountKind, rate: str | None, amount: str | None, currency: str | None, field: str
) -> None:
    error = refusal(
        check_reduction,
        kind=kind,
        rate=None if rate is None else Decimal(rate),
        amount=None if amount is None else Decimal(amount),
        currency=currency,
    )
    assert error.field == field
