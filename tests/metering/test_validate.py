"""Stage 2: the time window to the microsecond, the meters that select, the numbers they need."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from aforo.catalog.models import Aggregation
from aforo.metering.ingest import SentEvent
from aforo.metering.validate import MeterRule, check_meters, check_time, selects
from aforo.metering.verdicts import Refusal, Stage, VerdictKind

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
METER = UUID(int=1)
OTHER = UUID(int=2)


@pytest.mark.parametrize(
    ("occurred_at", "code"),
    [
        (NOW, None),
        (NOW + timedelta(minutes=5), None),
        (NOW + timedelta(minutes=5) + TICK, "TIMESTAMP_IN_FUTURE"),
        (NOW - timedelta(days=90), None),
        (NOW - timedelta(days=90) - TICK, "TIMESTAMP_TOO_OLD"),
        (datetime(1, 1, 1, tzinfo=UTC), "TIMESTAMP_TOO_OLD"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "TIMESTAMP_IN_FUTURE"),
    ],
)
def test_both_bounds_of_the_window_are_inside_and_a_microsecond_more_is_not(
    occurred_at: datetime, code: str | None
) -> None:
    found = check_time(occurred_at, NOW)
    assert (found and found.code) == code
    if found:
        assert (found.kind, found.stage) == (VerdictKind.REJECTED, Stage.VALIDATION)
        assert occurred_at.isoformat() in found.message


def test_an_event_of_a_type_that_no_meter_selects_is_quarantined() -> None:
    assert check_meters(event({}, type="other"), meters(rule(Aggregation.COUNT))) == Refusal(
        VerdictKind.QUARANTINED,
        Stage.VALIDATION,
        "UNKNOWN_METER",
        "no published meter selects events of type other",
    )


@pytest.mark.parametrize(
    ("aggregation", "value", "brought"),
    [
        (Aggregation.SUM, 374, "374"),
        (Aggregation.SUM, "374", "374"),
        (Aggregation.SUM, 0, "0"),
        (Aggregation.SUM, "0.000000000001", "0.000000000001"),
        (Aggregation.SUM, Decimal("999999999999999.999999999999"), "999999999999999.999999999999"),
        (Aggregation.SUM, "007.50", "7.5"),
        (Aggregation.SUM, 999_999_999_999_999, "999999999999999"),
        (Aggregation.MAX, Decimal("1.5"), "1.5"),
        (Aggregation.LATEST, "12", "12"),
        (Aggregation.UNIQUE, "claude", "1"),
        (Aggregation.UNIQUE, "", "1"),
        (Aggregation.UNIQUE, Decimal("1e400"), "1"),
        (Aggregation.UNIQUE, [1, 2], "1"),
        (Aggregation.UNIQUE, False, "1"),
    ],
)
def test_a_meter_gets_what_the_property_says(
    aggregation: Aggregation, value: object, brought: str
) -> None:
    found = check_meters(event({"tokens": value}), meters(rule(aggregation, property="tokens")))
    assert found == {METER: Decimal(brought)}


@pytest.mark.parametrize("aggregation", [Aggregation.SUM, Aggregation.MAX, Aggregation.LATEST])
@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "1e2",
        "1_000",
        "٣",
        "0x1",
        " 1",
        "1 ",
        "1\n",
        "+1",
        ".5",
        "1.",
        "1,5",
        "",
        "text",
        "-1",
        "-0",
        "1234567890123456",
        "0.1234567890123",
        -1,
        10**15,
        Decimal("1e400"),
        Decimal("1E+2"),
        Decimal("0.1234567890123"),
        Decimal("-0.5"),
        True,
        False,
        [1],
        {"value": 1},
    ],
)
def test_a_property_that_should_be_a_number_and_is_none_rejects_the_event(
    aggregation: Aggregation, value: object
) -> None:
    found = check_meters(event({"tokens": value}), meters(rule(aggregation, property="tokens")))
    assert isinstance(found, Refusal)
    assert (found.kind, found.stage, found.code) == (
        VerdictKind.REJECTED,
        Stage.VALIDATION,
        "BAD_VALUE",
    )
    assert found.message.startswith("properties.tokens is what meter tokens sums: ")


@pytest.mark.parametrize(("value", "brought"), [(-1, "-1"), ("-0.50", "-0.5"), ("-0", "0")])
def test_a_correction_counts_where_the_meter_allows_it(value: object, brought: str) -> None:
    allowing = meters(rule(Aggregation.SUM, property="tokens", allows_negative=True))
    assert check_meters(event({"tokens": value}), allowing) == {METER: Decimal(brought)}


@pytest.mark.parametrize("properties", [{}, {"tokens": None}, {"Tokens": 1}])
@pytest.mark.parametrize(
    "aggregation", [one for one in Aggregation if one is not Aggregation.COUNT]
)
def test_a_meter_whose_property_is_missing_does_not_count_the_event(
    aggregation: Aggregation, properties: dict[str, Any]
) -> None:
    counting = meters(rule(aggregation, property="tokens"), rule(Aggregation.COUNT, meter_id=OTHER))
    assert check_meters(event(properties), counting) == {OTHER: Decimal(1)}


def test_each_meter_of_the_type_takes_its_own_property() -> None:
    both = meters(
        rule(Aggregation.SUM, property="input"),
        rule(Aggregation.SUM, property="output", meter_id=OTHER),
    )
    assert check_meters(event({"input": 3, "output": "4"}), both) == {
        METER: Decimal(3),
        OTHER: Decimal(4),
    }


def test_a_bad_number_is_no_matter_to_a_meter_whose_filter_leaves_the_event_out() -> None:
    filtered = rule(Aggregation.SUM, property="tokens", filters=(("model", frozenset({"a"})),))
    assert check_meters(event({"tokens": "NaN", "model": "b"}), meters(filtered)) == {}
    assert isinstance(
        check_meters(event({"tokens": "NaN", "model": "a"}), meters(filtered)), Refusal
    )


@pytest.mark.parametrize(
    ("properties", "holds"),
    [
        ({"model": "a", "tier": 1}, True),
        ({"model": "b", "tier": Decimal("1.0")}, True),
        ({"model": "b", "tier": "1"}, True),
        ({"model": "A", "tier": 1}, False),
        ({"model": "a", "tier": 2}, False),
        ({"model": "a"}, False),
        ({"model": "a", "tier": None}, False),
        ({"tier": 1}, False),
    ],
)
def test_all_filters_must_hold_and_compare_texts(properties: dict[str, Any], holds: bool) -> None:
    filters = (("model", frozenset({"a", "b"})), ("tier", frozenset({"1", "null", ""})))
    assert selects(rule(Aggregation.COUNT, filters=filters), properties) is holds


def event(properties: dict[str, Any], *, type: str = "llm") -> SentEvent:  # noqa: A002
    return SentEvent(
        key="k", type=type, customer="acme", api_key=None, occurred_at=NOW, properties=properties
    )


def rule(aggregation: Aggregation, *, meter_id: UUID = METER, **settings: Any) -> MeterRule:
    return MeterRule(
        meter_id=meter_id,
        code=settings.get("property", "calls"),
        event_type="llm",
        aggregation=aggregation,
        **settings,
    )


def meters(*rules: MeterRule) -> Mapping[str, list[MeterRule]]:
    return {"llm": list(rules)}
