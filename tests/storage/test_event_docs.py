"""The documents about domain events say what the code does."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aforo.storage.event_docs import event_schema, event_table
from aforo.storage.event_types import SHAPES, EventType, Member
from aforo.storage.outbox import body_of
from aforo.storage.tables import new_id
from aforo.webhooks.courier import CALL_SECONDS, RESPONSE_BYTES_MAX
from aforo.webhooks.fan_out import BACKLOG_MAX, KEPT
from aforo.webhooks.schedule import DISABLED_AFTER, PAUSES, WARNED_AFTER

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/webhooks.md").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
VALUES: dict[str, Any] = {"text": "x", "amount": Decimal("-1.50"), "moment": NOW, "integer": 7}


def test_the_published_schema_is_that_of_the_code() -> None:
    published = (ROOT / "docs/schema/webhook-events.json").read_text(encoding="utf-8")
    assert published == event_schema(), "out of date: write it with `make schema`"


def test_the_table_of_the_manual_is_that_of_the_code() -> None:
    found = re.search(r"<!-- events: .*? -->\n(.*?)<!-- end of events -->", PAGE, re.DOTALL)
    assert found
    assert found[1] == event_table(), "out of date: `aforo schema events --table` prints it"


@pytest.mark.parametrize("kind", EventType)
@pytest.mark.parametrize("nulls", [False, True])
def test_a_body_is_as_the_schema_says(kind: EventType, *, nulls: bool) -> None:
    def value(member: Member) -> Any:
        if nulls and member.nullable:
            return None
        return new_id() if member.form == "id" else VALUES[member.form]

    data = {name: value(member) for name, member in SHAPES[kind].members.items()}
    body = json.loads(body_of(new_id(), kind, data, NOW))
    [schema] = [one for one in json.loads(event_schema())["oneOf"] if one["title"] == kind.value]
    assert_fits(body, schema)


def assert_fits(value: Any, schema: dict[str, Any]) -> None:
    """Whether a value meets the keywords that our schema uses."""
    if "const" in schema:
        assert value == schema["const"]
        return
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kinds = {"object": dict, "string": str, "integer": int, "null": type(None)}
    assert isinstance(value, tuple(kinds[one] for one in allowed))
    if isinstance(value, str) and "pattern" in schema:
        assert re.search(schema["pattern"], value)
    if schema.get("format") == "date-time" and value is not None:
        assert datetime.fromisoformat(value).tzinfo is not None
    if isinstance(value, dict):
        assert set(schema["required"]) == set(schema["properties"]) == set(value)
        for name, inner in schema["properties"].items():
            assert_fits(value[name], inner)


def test_the_figures_of_the_manual_are_those_of_the_code() -> None:
    pauses = re.search(r"^\| after the one before \| (.*) \|$", PAGE, re.MULTILINE)
    assert pauses
    units = {"s": 1, "min": 60, "h": 3600}
    told = [each.split() for each in pauses[1].split(" | ")]
    assert [int(number) * units[unit] for number, unit in told] == [
        pause.total_seconds() for pause in PAUSES
    ]
    assert (WARNED_AFTER, DISABLED_AFTER.days, KEPT.days) == (3, 5, 30)
    assert (CALL_SECONDS, RESPONSE_BYTES_MAX, BACKLOG_MAX) == (10, 1_024, 100_000)
