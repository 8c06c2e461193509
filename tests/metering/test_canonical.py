"""One text per value: equal values read alike, different ones do not."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.canonical import canonical, canonical_object, number, plain_text
from aforo.metering.canonical import texts as texts_quickly
from aforo.metering.projection import texts_of

decode = msgspec.json.Decoder(float_hook=Decimal).decode

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
decimals = st.decimals(allow_nan=False, allow_infinity=False) | st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**20), 10**20),
    st.integers(-60, 60),
)
numbers = st.integers() | st.integers(-(10**99), 10**99) | decimals
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (Decimal("-0.0"), "0"),
        (1, "1"),
        (Decimal("1.0"), "1"),
        (Decimal("1e0"), "1"),
        (Decimal("1E+2"), "100"),
        (Decimal("-12.3400"), "-12.34"),
        (Decimal("0.000000000001"), "0.000000000001"),
        (Decimal("999999999999999.999999999999"), "999999999999999.999999999999"),
        (123456789012345678901234567890, "123456789012345678901234567890"),
        (Decimal("1e40"), "1" + 40 * "0"),
        (Decimal("1e41"), "1e41"),
        (10**41, "1e41"),
        (Decimal("1e-41"), "1e-41"),
        (Decimal("1e999999999"), "1e999999999"),
        ("1", '"1"'),
        ("é\u2028\x00", '"é\u2028\\u0000"'),
        ({"b": 1, "a": [Decimal("2.50"), "x"]}, '{"a":[2.5,"x"],"b":1}'),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_a_value_has_one_canonical_text(value: object, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, "1"), (1, True), (0, False), (0, None), ("", None), ({}, []), (1, [1]), ("a", "A")],
)
def test_values_of_different_kinds_read_differently(one: object, other: object) -> None:
    assert canonical(one) != canonical(other)


@given(numbers, numbers)
def test_numbers_read_alike_if_and_only_if_they_are_equal(
    one: int | Decimal, other: int | Decimal
) -> None:
    assert (number(one) == number(other)) == (Decimal(one) == Decimal(other))


@given(numbers, st.integers(0, 50))
def test_the_spelling_of_a_number_does_not_matter(value: int | Decimal, zeros: int) -> None:
    sign, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int)
    respelled = Decimal((sign, digits + (0,) * zeros, exponent - zeros))
    assert number(respelled) == number(value)


@given(values)
def test_the_text_is_json_of_the_same_value(value: Any) -> None:
    assert plain(decode(canonical(value))) == plain(value)


@given(st.dictionaries(st.text(), values))
def test_an_object_reads_alike_the_quick_way(value: dict[str, Any]) -> None:
    assert canonical_object(value) == canonical(value)


@given(st.dictionaries(st.text(max_size=3), numbers | st.booleans() | st.none() | st.text()))
def test_so_does_one_of_texts_and_numbers_alone(value: dict[str, Any]) -> None:
    assert canonical_object(value) == canonical(value)


@given(st.dictionaries(st.text(max_size=3), values))
def test_texts_are_those_that_the_canonical_json_gives(value: dict[str, Any]) -> None:
    assert texts_quickly(value) == texts_of(canonical_object(value))


@given(values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical(reversed_keys(value)) == canonical(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        ("null", "null"),
        ('say "x"', 'say "x"'),
        (True, "true"),
        (Decimal("1.50"), "1.5"),
        ([1], "[1]"),
    ],
)
def test_filters_see_a_string_as_it_is_and_other_values_in_their_canonical_text(
    value: object, text: str | None
) -> None:
    assert plain_text(value) == text


def plain(value: Any) -> Any:
    """The value in a form in which Python's own equality is JSON's: true is not 1 there."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    if isinstance(value, int | Decimal):
        return ("number", Decimal(value))
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    return [plain(member) for member in value]


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reversed_keys(value[name]) for name in reversed(value)}
    return [reversed_keys(one) for one in value] if isinstance(value, list) else value
