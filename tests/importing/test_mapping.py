"""Columns become events: which ones, and how their values are written."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.importing.mapping import Wanted, json_of, pairs, planned
from aforo.sdk.errors import Invalid

COLUMNS = ["type", "customer", "occurredAt", "tokens", "model"]
ROW = {
    "type": "llm.request",
    "customer": "acme",
    "occurredAt": "2026-11-20T10:00:00Z",
    "tokens": "0.10",
    "model": "m1",
}


def event(wanted: Wanted, row: dict[str, Any]) -> dict[str, Any]:
    _, text = planned(wanted, list(row)).event(row, key="made")
    found: dict[str, Any] = json.loads(text)
    return found


def test_columns_of_known_names_need_no_mapping_and_all_others_are_properties() -> None:
    assert event(Wanted({}, {}), ROW) == {
        "idempotencyKey": "made",
        "type": "llm.request",
        "customer": "acme",
        "occurredAt": "2026-11-20T10:00:00Z",
        "properties": {"tokens": "0.10", "model": "m1"},
    }


def test_columns_are_mapped_fixed_and_chosen() -> None:
    row = {"id": "k1", "account": "acme", "when": "2026-11-20T10:00:00Z", "a": "1", "b": "2"}
    wanted = Wanted(
        {"idempotencyKey": "id", "customer": "account", "occurredAt": "when"},
        {"type": "call"},
        ["b", "account"],
    )
    assert event(wanted, row) == {
        "idempotencyKey": "k1",
        "type": "call",
        "customer": "acme",
        "occurredAt": "2026-11-20T10:00:00Z",
        "properties": {"b": "2", "account": "acme"},
    }


def test_an_empty_cell_is_nothing() -> None:
    row = ROW | {"idempotencyKey": "", "customer": None, "tokens": "", "model": None}
    found = event(Wanted({}, {}), row)
    assert found == {
        "idempotencyKey": "made",
        "type": "llm.request",
        "occurredAt": "2026-11-20T10:00:00Z",
    }


PLUS_ONE = timezone(timedelta(hours=1))
VALUES: list[tuple[object, object]] = [
    (True, True),
    (12, "12"),
    (10**30, "1" + "0" * 30),
    (Decimal("1.50"), "1.5"),
    (Decimal("-0.000000000030"), "-0.00000000003"),
    (Decimal("1E+3"), "1000"),
    (Decimal("100"), "100"),
    (Decimal("12345678901234567890123456789012345.678"), "12345678901234567890123456789012345.678"),
    (0.1, "0.1"),
    (1e-7, "0.0000001"),
    (1e21, "1" + "0" * 21),
    (float("nan"), "NaN"),
    (float("-inf"), "-Infinity"),
    ("0.10", "0.10"),
    (datetime(2026, 11, 20, 11, tzinfo=PLUS_ONE), "2026-11-20T10:00:00+00:00"),
    (datetime(2026, 11, 20, 11, tzinfo=UTC), "2026-11-20T11:00:00+00:00"),
    (datetime(2026, 11, 20, 11), "2026-11-20T11:00:00"),  # noqa: DTZ001 — files have such.
    (date(2026, 11, 20), "2026-11-20"),
    ([1, {"a": Decimal("0.5")}, None], ["1", {"a": "0.5"}, None]),
]


@pytest.mark.parametrize(("value", "written"), VALUES, ids=str)
def test_a_value_is_written_to_the_last_digit(value: object, written: object) -> None:
    assert json_of(value, "x") == written


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12) | st.integers())
def test_no_number_changes_its_value(number: Decimal | int) -> None:
    assert Decimal(json_of(number, "x")) == number


def test_bytes_are_refused_with_the_name_of_their_column() -> None:
    with pytest.raises(Invalid, match="the column x holds bytes"):
        json_of(b"\0", "x")
    with pytest.raises(Invalid, match="the column customer holds no text"):
        event(Wanted({}, {}), ROW | {"customer": ["acme"]})


REFUSED: list[tuple[Wanted, list[str], str]] = [
    (Wanted({"type": "kind"}, {}), COLUMNS, "the file has no column kind; it has type, customer"),
    (Wanted({}, {}, ["tokens", "x"]), COLUMNS, "the file has no column x"),
    (Wanted({}, {}), [*COLUMNS, "model"], "two columns of the name model"),
    (Wanted({}, {}), ["customer", "occurredAt"], "no column is type: name one with --map type="),
    (Wanted({}, {}), ["customer", "type"], "no column is occurredAt"),
    (Wanted({}, {}), ["occurredAt", "type"], "whose the events are"),
    (Wanted({"type": "model"}, {"type": "x"}), COLUMNS, "type is in --map and in --set"),
]


@pytest.mark.parametrize(("wanted", "columns", "said"), REFUSED)
def test_what_does_not_fit_the_file_is_said(wanted: Wanted, columns: list[str], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        planned(wanted, columns)


def test_an_option_names_a_field_and_a_value() -> None:
    assert pairs(["type=a=b", "customer=c"], "--set") == {"type": "a=b", "customer": "c"}
    for wrong in (["kind=x"], ["type"], ["type="], ["type=a", "type=b"]):
        with pytest.raises(Invalid, match="--set"):
            pairs(wrong, "--set")
