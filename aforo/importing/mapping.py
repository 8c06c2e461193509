"""Which column of a file becomes which part of an event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from aforo.sdk.errors import Invalid

FIELDS = ("idempotencyKey", "type", "customer", "apiKey", "occurredAt")
"""What an event has beside its properties. A column of such a name needs no mapping."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    columns: Mapping[str, str]
    """By field, the column that it is read from."""
    fixed: Mapping[str, str]
    """By field, the value that it has in every row."""
    properties: Sequence[str] | None = None
    """The columns that become properties; None for all that become nothing else."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The same, held against the columns of a file."""

    fields: Sequence[tuple[str, str]]
    fixed: Mapping[str, str]
    properties: Sequence[str]

    def event(self, row: Mapping[str, object], *, key: str) -> tuple[str, bytes]:
        """The idempotency key and the event as JSON. `key` is for rows that have none.

        Raises: `Invalid` for a value that has no JSON form.
        """
        event: dict[str, Any] = {"idempotencyKey": key, **self.fixed}
        for name, column in self.fields:
            if not _is_empty(value := row[column]):
                event[name] = text_of(value, column)
        properties = {}
        for column in self.properties:
            if not _is_empty(value := row[column]):
                properties[column] = json_of(value, column)
        if properties:
            event["properties"] = properties
        return event["idempotencyKey"], msgspec.json.encode(event)


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Read `field=…` as it stands in an option. Raises `Invalid`."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if name not in FIELDS or not equals or not value:
            known = ", ".join(FIELDS)
            raise Invalid(f"{option} {each}: say <field>=<…>, with a field of {known}")
        if name in found:
            raise Invalid(f"{option} names {name} twice")
        found[name] = value
    return found


def planned(wanted: Wanted, columns: Sequence[str]) -> Plan:
    """Raises `Invalid` where a column is missing, or something that every event needs."""
    if doubled := sorted({name for name in columns if columns.count(name) > 1}):
        raise Invalid(f"the file has two columns of the name {doubled[0]}")
    if both := wanted.columns.keys() & wanted.fixed.keys():
        raise Invalid(f"{min(both)} is in --map and in --set: one of them must go")
    for column in [*wanted.columns.values(), *(wanted.properties or ())]:
        if column not in columns:
            raise Invalid(f"the file has no column {column}; it has {', '.join(columns)}")
    fields = {
        name: wanted.columns.get(name, name)
        for name in FIELDS
        if name not in wanted.fixed and (name in wanted.columns or name in columns)
    }
    given = fields.keys() | wanted.fixed.keys()
    for needed in ("type", "occurredAt"):
        if needed not in given:
            raise Invalid(
                f"no column is {needed}: name one with --map {needed}=<column>, or the value of "
                f"every row with --set {needed}=<value>"
            )
    if not given & {"customer", "apiKey"}:
        raise Invalid("no column says whose the events are: --map customer=<column>, or apiKey")
    used = set(fields.values())
    properties = wanted.properties
    if properties is None:
        properties = [name for name in columns if name not in used]
    return Plan(tuple(fields.items()), wanted.fixed, tuple(properties))


def text_of(value: object, column: str) -> str:
    """A value as the text of a field. Raises `Invalid`."""
    read = json_of(value, column)
    if isinstance(read, dict | list | bool):
        raise Invalid(f"the column {column} holds no text")
    return str(read)


def json_of(value: object, column: str) -> Any:
    """A value as a property: numbers as plain text, digit by digit. Raises `Invalid`."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return str(value)
        case Decimal():
            return _plain(value)
        case float():
            # The file itself has no decimals here: the shortest text that is this number.
            return _plain(Decimal(repr(value)))
        case datetime():
            return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
        case date():
            return value.isoformat()
        case dict():
            return {str(name): json_of(each, column) for name, each in value.items()}
        case list() | tuple():
            return [json_of(each, column) for each in value]
    raise Invalid(f"the column {column} holds {type(value).__name__}, which no property can be")


def _is_empty(value: object) -> bool:
    return value is None or value == ""


def _plain(number: Decimal) -> str:
    text = f"{number:f}" if number.is_finite() else str(number)
    return text.rstrip("0").rstrip(".") if "." in text else text
