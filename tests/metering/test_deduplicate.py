"""Stage 3: what is the same event."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
import pytest

from aforo.metering.canonical import canonical
from aforo.metering.deduplicate import KeyedEvent, KnownKey, keyed, seen_before
from aforo.metering.ingest import SentEvent, read_event
from aforo.metering.verdicts import Stage, VerdictKind

SENT: dict[str, Any] = {
    "idempotencyKey": "k",
    "type": "llm",
    "customer": "acme",
    "apiKey": "sk_live_1",
    "occurredAt": "2026-11-20T10:00:00Z",
    "properties": {"a": 1, "b": {"c": [1, "x"], "d": None}},
}
FIRST = UUID(int=7)
decode = msgspec.json.Decoder(float_hook=Decimal).decode


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"properties": {"b": {"d": None, "c": [1, "x"]}, "a": 1}},
        {"properties": {"a": Decimal("1.0"), "b": {"c": [Decimal("1e0"), "x"], "d": None}}},
        {"occurredAt": "2026-11-20T15:30:00+05:30"},
        {"occurredAt": "2026-11-20T10:00:00.000000Z"},
    ],
)
def test_bodies_are_equal_whatever_the_order_of_keys_spelling_of_numbers_and_zone(
    change: dict[str, Any],
) -> None:
    assert payload(SENT | change) == payload(SENT)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Llm"},
        {"customer": "acme2"},
        {"customer": None},
        {"apiKey": "sk_live_2"},
        {"apiKey": None},
        {"occurredAt": None},
        {"occurredAt": "2026-11-20T10:00:00.000001Z"},
        {"properties": {"a": 1}},
        {"properties": {"a": 1, "b": {"c": ["x", 1], "d": None}}},
        {"properties": {"a": 1, "b": {"c": [1, "x"]}}},
        {"properties": {"a": "1", "b": {"c": [1, "x"], "d": None}}},
        {"properties": {"a": True, "b": {"c": [1, "x"], "d": None}}},
        {"properties": {"A": 1, "b": {"c": [1, "x"], "d": None}}},
    ],
)
def test_any_other_difference_makes_another_body(change: dict[str, Any]) -> None:
    assert payload(SENT | change) != payload(SENT)


def test_no_two_different_fields_can_be_mistaken_for_each_other() -> None:
    # As customer or as key, the same text is not the same.
    values = [None, "x", "y", "x,y", '"x"', "x\\"]
    bodies = [
        payload({"idempotencyKey": "k", "type": type_, "customer": customer, "apiKey": api_key})
        for type_, customer, api_key in itertools.product(values, values, values)
        if type_ and (customer or api_key)
    ]
    assert len(set(bodies)) == len(bodies)


def test_as_json_the_same_number_in_three_spellings_is_one_body() -> None:
    texts = [b"1", b"1.0", b"1e0", b"10E-1", b"1.000000000000000000000000"]
    bodies = {payload(SENT | {"properties": decode(b'{"a":%b}' % text)}) for text in texts}
    assert len(bodies) == 1


def test_without_a_time_an_event_equals_only_one_without_a_time() -> None:
    without = {name: value for name, value in SENT.items() if name != "occurredAt"}
    assert payload(without) == payload(SENT | {"occurredAt": None})
    assert payload(without) != payload(SENT)


def test_the_hash_of_a_body_is_that_of_its_canonical_form() -> None:
    # Keys are kept for months: a release that hashes otherwise takes honest retries for conflicts.
    told = ["llm", "acme", None, "2026-11-20T00:00:00+00:00", {"a": 1}]
    assert item("k").payload_hash == sha256(canonical(told).encode()).digest()
    assert item("k").payload_hash.hex().startswith("4a2c19946ff52d6c")


def test_a_key_is_told_from_another_by_every_character() -> None:
    keys = ["k", "K", "k ", " k", "k\u0301", "ḱ"]
    assert len({item(key).key_hash for key in keys}) == len(keys)


def test_a_known_key_with_the_same_body_is_a_duplicate_and_with_another_a_conflict() -> None:
    same, other = item("a"), item("b", index=1)
    verdicts = [
        seen_before(same, KnownKey(FIRST, same.payload_hash)),
        seen_before(other, KnownKey(FIRST, b"another body")),
    ]
    assert [(one.index, one.idempotency_key, one.kind, one.code) for one in verdicts] == [
        (0, "a", VerdictKind.DUPLICATE, "DUPLICATE"),
        (1, "b", VerdictKind.CONFLICT, "CONFLICT"),
    ]
    assert all(one.stage is Stage.DEDUPLICATION and one.event_id == FIRST for one in verdicts)


def item(key: str, *, index: int = 0) -> KeyedEvent:
    return keyed(
        index,
        SentEvent(
            key=key,
            type="llm",
            customer="acme",
            api_key=None,
            occurred_at=datetime(2026, 11, 20, tzinfo=UTC),
            properties={"a": 1},
        ),
    )


def payload(sent: dict[str, Any]) -> bytes:
    event = read_event(sent)
    assert isinstance(event, SentEvent), event
    return keyed(0, event).payload_hash
