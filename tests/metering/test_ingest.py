"""Stage 1: every wrong shape gets its code and says where it is wrong."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering import ingest
from aforo.metering.ingest import SentEvent, key_of, read_event
from aforo.metering.verdicts import Refusal, Stage, VerdictKind

GOOD: dict[str, Any] = {
    "idempotencyKey": "req-8f3a",
    "type": "llm.request",
    "customer": "acme-corp",
    "occurredAt": "2026-11-20T10:00:00.123Z",
    "properties": {"input_tokens": 374, "output_tokens": "44", "model": "claude-sonnet"},
}
TIME_MESSAGE = "occurredAt must be a date and time with a zone, such as 2026-11-20T10:00:00.123Z"


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


def test_a_well_formed_event_is_read_as_it_was_sent() -> None:
    assert read_event(GOOD) == SentEvent(
        key="req-8f3a",
        type="llm.request",
        customer="acme-corp",
        api_key=None,
        occurred_at=datetime(2026, 11, 20, 10, 0, 0, 123_000, UTC),
        properties={"input_tokens": 374, "output_tokens": "44", "model": "claude-sonnet"},
    )


def test_time_and_properties_may_be_left_out_and_null_is_as_good_as_missing() -> None:
    for sent in (
        without("occurredAt", "properties"),
        GOOD | {"occurredAt": None, "properties": None, "apiKey": None},
    ):
        event = read_event(sent)
        assert isinstance(event, SentEvent)
        assert (event.occurred_at, event.properties, event.api_key) == (None, {}, None)


def test_a_key_may_stand_in_the_place_of_the_customer_or_beside_it() -> None:
    for sent in (without("customer") | {"apiKey": "sk_live_1"}, GOOD | {"apiKey": "sk_live_1"}):
        event = read_event(sent)
        assert isinstance(event, SentEvent)
        assert (event.customer, event.api_key) == (sent.get("customer"), "sk_live_1")


@pytest.mark.parametrize("sent", [None, 1, "x", [], [GOOD], True, Decimal("1.5")])
def test_what_is_no_object_is_no_event(sent: object) -> None:
    assert refusal(sent) == ("BAD_VALUE", "an event is a JSON object")
    assert key_of(sent) is None


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({}, "idempotencyKey is missing"),
        (without("idempotencyKey"), "idempotencyKey is missing"),
        (GOOD | {"idempotencyKey": None}, "idempotencyKey is missing"),
        (without("type"), "type is missing"),
        (without("customer"), "customer or apiKey must say whose event it is"),
        (GOOD | {"customer": None}, "customer or apiKey must say whose event it is"),
    ],
)
def test_a_missing_field_is_named(sent: object, message: str) -> None:
    assert refusal(sent) == ("MISSING_FIELD", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"custmer": "x"},
            "unknown field custmer; an event has idempotencyKey, type, customer, apiKey, "
            "occurredAt, properties, and supersedes and reason "
            "where it takes the place of another one",
        ),
        (
            {"x" * 500: 1},
            f"unknown field {'x' * 40}; an event has idempotencyKey, type, customer, apiKey, "
            "occurredAt, properties, and supersedes and reason "
            "where it takes the place of another one",
        ),
        ({"idempotencyKey": 7}, "idempotencyKey must be a string"),
        ({"idempotencyKey": ""}, "idempotencyKey must have 1 to 255 characters"),
        ({"idempotencyKey": "k" * 256}, "idempotencyKey must have 1 to 255 characters"),
        ({"idempotencyKey": "a\nb"}, "idempotencyKey must not contain control characters"),
        ({"idempotencyKey": "a\x00b"}, "idempotencyKey must not contain control characters"),
        ({"idempotencyKey": "\ud800"}, "idempotencyKey must not contain control characters"),
        ({"type": ["llm"]}, "type must be a string"),
        ({"type": "t" * 129}, "type must have 1 to 128 characters"),
        ({"type": "a\u2028b"}, "type must not contain control characters"),
        ({"type": "a\x85b"}, "type must not contain control characters"),
        ({"customer": {"id": 1}}, "customer must be a string"),
        ({"customer": "c" * 256}, "customer must have 1 to 255 characters"),
        ({"customer": "\x7f"}, "customer must not contain control characters"),
        ({"apiKey": 1}, "apiKey must be a string"),
        ({"apiKey": ""}, "apiKey must have 1 to 255 characters"),
        ({"apiKey": "k" * 256}, "apiKey must have 1 to 255 characters"),
        ({"properties": []}, "properties must be an object"),
        ({"properties": ""}, "properties must be an object"),
        ({"properties": 0}, "properties must be an object"),
        ({"properties": False}, "properties must be an object"),
        (
            {"properties": {f"p{number}": 1 for number in range(201)}},
            "properties has 201 members, at most 200 are allowed",
        ),
        ({"properties": {"": 1}}, "the name of a property must have 1 to 128 characters"),
        ({"properties": {"n" * 129: 1}}, "the name of a property must have 1 to 128 characters"),
        ({"properties": {"a\tb": 1}}, "the name of a property must not contain control characters"),
        ({"properties": {"a": "x" * 8193}}, "properties.a has over 8192 characters"),
        ({"properties": {"a": "\udfff"}}, "properties.a has half of a surrogate pair"),
        ({"properties": {"a": [{"b": "\ud83d"}]}}, "properties.a.0.b has half of a surrogate pair"),
        (
            {"properties": {"a": {"\ud83d": 1}}},
            "properties.a: the name ? has half of a surrogate pair",
        ),
        (
            {"properties": {"a": {"x" * 8193: 1}}},
            f"properties.a: the name {'x' * 40} has over 8192 characters",
        ),
        ({"properties": {"a": 10**100}}, "properties.a has over 100 digits"),
        ({"properties": {"a": [1, -(10**100)]}}, "properties.a.1 has over 100 digits"),
        ({"properties": {"a": Decimal("0." + "1" * 101)}}, "properties.a has over 100 digits"),
        ({"properties": {"a": [1] * 999}}, "properties has over 1000 values in all"),
        (
            {"properties": {"a": ["x" * 8192] * 8, "b": "x"}},
            "properties has over 65536 characters in all",
        ),
        (
            {"properties": {"a": nested(8)}},
            "properties.a.a.a.a.a.a.a.a is nested deeper than 8 levels",
        ),
    ],
)
def test_a_bad_value_is_told_by_its_place(change: dict[str, Any], message: str) -> None:
    assert refusal(GOOD | change) == ("BAD_VALUE", message)


@pytest.mark.parametrize(
    "change",
    [
        {
            "idempotencyKey": "k" * 255,
            "type": "t" * 128,
            "customer": "c" * 255,
            "apiKey": "k" * 255,
        },
        {"idempotencyKey": " ", "customer": "Ünïcødé 😀"},
        {"properties": {f"p{number}": 1 for number in range(200)}},
        {"properties": {"n" * 128: "x" * 8192}},
        {"properties": {"a": [1] * 998}},
        {"properties": {"a": ["x" * 8192] * 7, "b": "x" * 8190}},
        {"properties": {"a": "\x00\n\u2028"}},
        {"properties": {"a": nested(7)}},
        {"properties": {"a": 10**100 - 1, "b": Decimal("1e999999"), "c": None, "d": True}},
    ],
)
def test_the_limits_themselves_are_allowed(change: dict[str, Any]) -> None:
    assert isinstance(read_event(GOOD | change), SentEvent)


@pytest.mark.parametrize(
    ("sent", "instant"),
    [
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20t10:00:00z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20 10:00:00+00:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T15:30:00+05:30", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T02:00:00-08:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00.1Z", datetime(2026, 11, 20, 10, 0, 0, 100_000, UTC)),
        ("2026-11-20T10:00:00.123456Z", datetime(2026, 11, 20, 10, 0, 0, 123_456, UTC)),
        # Nanoseconds are cut: neither Python nor the event log holds them.
        ("2026-11-20T10:00:00.123456789Z", datetime(2026, 11, 20, 10, 0, 0, 123_456, UTC)),
        ("2026-11-20T23:59:59.999999999Z", datetime(2026, 11, 20, 23, 59, 59, 999_999, UTC)),
        ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_to_the_microsecond_in_utc(sent: str, instant: datetime) -> None:
    event = read_event(GOOD | {"occurredAt": sent})
    assert isinstance(event, SentEvent)
    assert event.occurred_at == instant
    assert event.occurred_at.tzinfo is UTC


@pytest.mark.parametrize(
    "sent",
    [
        "2026-11-20T10:00:00",
        "2026-11-20T10:00:00+0100",
        "2026-11-20T10:00:00 Z",
        "2026-11-20T10:00Z",
        "2026-11-20",
        "20261120T100000Z",
        "2026-W47-5T10:00:00Z",
        "2026-11-20T10:00:00,5Z",
        "2026-11-20T10:00:00.Z",
        "2026-11-20T10:00:00.1234567890Z",
        "\uff12\uff10\uff12\uff16-11-20T10:00:00Z",
        "-2026-11-20T10:00:00Z",
        "12026-11-20T10:00:00Z",
        "2026-11-20T10:00:00Z\n",
        "now",
        "",
        1763632800,
        Decimal("1763632800.5"),
        True,
        {},
    ],
)
def test_a_moment_without_zone_or_in_another_form_is_refused(sent: object) -> None:
    assert refusal(GOOD | {"occurredAt": sent}) == ("BAD_VALUE", TIME_MESSAGE)


@pytest.mark.parametrize(
    "sent",
    [
        "2026-02-29T10:00:00Z",
        "2026-13-01T10:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T10:60:00Z",
        "2016-12-31T23:59:60Z",  # A leap second, which no clock here can show.
        "2026-11-20T10:00:00+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",  # Before the first year in UTC.
        "9999-12-31T23:59:59-00:01",
    ],
)
def test_a_moment_that_the_calendar_lacks_is_refused(sent: str) -> None:
    assert refusal(GOOD | {"occurredAt": sent}) == (
        "BAD_VALUE",
        f"occurredAt {sent} is no date and time of the calendar",
    )


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("req-1", "req-1"),
        (7, None),
        ("", None),
        ("a\x00", None),
        ("\ud800", None),
        ("k" * 256, None),
    ],
)
def test_a_refused_event_is_named_by_its_key_where_that_can_be_shown(
    key: object, shown: str | None
) -> None:
    assert key_of({"idempotencyKey": key}) == shown


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*GOOD, "apiKey", "other"]) | st.text()


@given(st.one_of(json_values, st.dictionaries(fields, json_values)), st.booleans())
def test_whatever_is_sent_is_read_or_refused_in_words_that_can_be_answered(
    sent: Any, is_almost_good: bool
) -> None:
    if is_almost_good and isinstance(sent, dict):
        sent = GOOD | sent
    found = read_event(sent)
    if isinstance(found, Refusal):
        assert found.kind is VerdictKind.REJECTED
        assert found.code in {"MISSING_FIELD", "BAD_VALUE"}
        assert found.message.encode()


def refusal(sent: object) -> tuple[str, str]:
    """Code and message of an event that stage 1 refuses."""
    found = read_event(sent)
    assert isinstance(found, Refusal), found
    assert (found.kind, found.stage) == (VerdictKind.REJECTED, Stage.INGESTION)
    return found.code, found.message


_MEMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**101), 10**101),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(st.characters(), max_size=20),
    st.lists(st.none(), max_size=2),
)


@given(st.dictionaries(st.text(st.characters(), max_size=6), _MEMBERS, max_size=6))
def test_what_is_plainly_right_at_first_sight_is_right_at_the_second(value: dict[str, Any]) -> None:
    if ingest._is_plain(value):
        assert ingest._wrong_properties(value) is None
