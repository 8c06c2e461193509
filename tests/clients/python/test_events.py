"""One event as the client writes it: exact, complete, and refused in words where it cannot be."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo_client import InvalidEvent
from aforo_client.events import DEPTH_MAX, EVENT_BYTES_MAX, new_key, written_event

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def written(**given: Any) -> dict[str, Any]:
    values = {
        "key": "a",
        "customer": "acme",
        "api_key": None,
        "occurred_at": NOON,
        "properties": None,
        **given,
    }
    event: dict[str, Any] = json.loads(
        written_event(values.pop("type_", "llm.request"), **values), parse_float=Decimal
    )
    return event


def test_an_event_is_written_as_aforo_takes_it() -> None:
    assert written(properties={"tokens": 3}, api_key="sk_live_1") == {
        "idempotencyKey": "a",
        "type": "llm.request",
        "occurredAt": "2026-11-20T12:00:00Z",
        "customer": "acme",
        "apiKey": "sk_live_1",
        "properties": {"tokens": 3},
    }


def test_it_happened_now_where_nobody_says_when() -> None:
    before = datetime.now(UTC)
    stated = datetime.fromisoformat(written(occurred_at=None)["occurredAt"])
    assert before <= stated <= datetime.now(UTC)
    assert stated.utcoffset() == timedelta(0)


def test_every_zone_is_written_as_utc() -> None:
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2026, 11, 20, 21, 0, 0, 1, tzinfo=tokyo)
    assert written(occurred_at=moment)["occurredAt"] == "2026-11-20T12:00:00.000001Z"


class Grade(IntEnum):
    GOOD = 2


class Model(StrEnum):
    SMALL = "small"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("0.000000030"), "0.000000030"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-12"), "0.000000000001"),
        (Decimal("-0"), "-0"),
        (10**99, "1" + "0" * 99),
        (Grade.GOOD, "2"),
        (Model.SMALL, '"small"'),
        (True, "true"),
        (None, "null"),
        ((1, "é\n"), '[1,"é\\n"]'),
        ({"a": {"b": []}}, '{"a":{"b":[]}}'),
    ],
)
def test_a_value_is_written_exactly(value: object, text: str) -> None:
    line = written_event(
        "t", key="a", customer="c", api_key=None, occurred_at=NOON, properties={"v": value}
    )
    assert line.decode().endswith(f'"properties":{{"v":{text}}}}}')


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"customer": None}, "an event names its customer, or an api_key of the customer"),
        ({"customer": ""}, "customer is a text that is not empty, not ''"),
        ({"type_": 7}, "type is a text that is not empty, not 7"),
        ({"key": ""}, "idempotency_key is a text"),
        ({"occurred_at": datetime(2026, 1, 1)}, "has no time zone: take datetime.now"),  # noqa: DTZ001
        ({"occurred_at": "2026-01-01T00:00:00Z"}, "occurred_at is a datetime, not a str"),
        (
            {"occurred_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
            "is no date in UTC",
        ),
        ({"properties": [1]}, "properties are a mapping, not a list"),
        (
            {"properties": {"cost": 0.1}},
            "properties.cost is 0.1: a float is not exact, and bills are: "
            "write it as Decimal('0.1')",
        ),
        ({"properties": {"a": [1, {"b": 1.5}]}}, "properties.a[1].b is 1.5: a float"),
        ({"properties": {"a": Decimal("NaN")}}, "properties.a is NaN, which is no number"),
        ({"properties": {"a": Decimal("Infinity")}}, "which is no number"),
        ({"properties": {"a": Decimal("1E+100")}}, "properties.a has more than 100 digits"),
        ({"properties": {"a": Decimal("1E-100")}}, "has more than 100 digits"),
        ({"properties": {"a": 10**100}}, "has more than 100 digits"),
        ({"properties": {"a": "\ud800"}}, "properties.a has half of a surrogate pair in it"),
        ({"properties": {1: "a"}}, "properties has a name that is no text: 1"),
        ({"properties": {"a": NOON}}, "properties.a is a datetime: send a text"),
        ({"properties": {"a": b"b"}}, "properties.a is a bytes"),
        ({"properties": {"a": "x" * EVENT_BYTES_MAX}}, "an event has at most 1,048,576 bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidEvent, match=re.escape(sentence)):
        written(**given)


def test_endless_nesting_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InvalidEvent, match=f"nested more than {DEPTH_MAX} levels deep"):
        written(properties={"a": endless})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(10**30), 10**30) | st.decimals(
    min_value=-(10**15), max_value=10**15, places=12
)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(properties=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_was_given_is_what_is_read(properties: dict[str, Any]) -> None:
    event = written(properties=properties)
    assert event["properties"] == properties


@given(number=st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_value_or_is_refused(number: Decimal) -> None:
    try:
        event = written(properties={"v": number})
    except InvalidEvent:
        return
    assert event["properties"]["v"] == number


def test_a_key_is_a_uuid_of_version_7_and_nobody_elses() -> None:
    keys = [new_key() for _ in range(1_000)]
    assert len(set(keys)) == 1_000
    assert {(UUID(key).version, UUID(key).variant) for key in keys} == {
        (7, "specified in RFC 4122")
    }
    assert sorted(keys[::100], key=lambda key: key[:13]) == keys[::100]
