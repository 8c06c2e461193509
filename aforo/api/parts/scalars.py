"""The scalars of the API: exact decimals, moments with a zone, bounded JSON.

The framework's own accept what money cannot stand: NaN, Infinity, `1E+999999999`, naive times.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NewType

import strawberry
from graphql import (
    BooleanValueNode,
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)
from strawberry.types.scalar import ScalarDefinition

from aforo.sdk.errors import Invalid
from aforo.sdk.money import parse_rate

JSON_DEPTH_MAX = 16
NUMBER_CHARACTERS_MAX = 64

JSON = NewType("JSON", object)
"""Any JSON value; numbers with a point or an exponent are Decimals."""

BigInt = NewType("BigInt", int)
"""A count that may pass 32 bits."""

_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_FIRST_YEAR, _END_YEAR = 1970, 2200
_MICROSECONDS = re.compile(r"(\.\d{6})\d+", re.ASCII)


def parse_decimal(value: object) -> Decimal:
    """A plain decimal from text or a JSON number: 15 integer digits, 18 decimals, any sign."""
    if isinstance(value, str | int | Decimal):
        try:
            return parse_rate(value, negative=True)
        except Invalid as error:
            raise GraphQLError(f"Decimal cannot represent it: {error.message}.") from error
    raise GraphQLError("Decimal wants a string such as '12.50'.")


def show_decimal(value: object) -> str:
    """Plain notation, never with an exponent."""
    if not isinstance(value, Decimal) or not value.is_finite():
        raise TypeError(f"a Decimal field holds a finite Decimal, not {type(value).__name__}")
    return f"{value:f}"


def parse_moment(value: object) -> datetime:
    """A moment in UTC from RFC 3339 text; the zone is required, digits past µs are cut.

    Before 1970 and from 2200 on nothing is billed, and not every engine can count there.
    """
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment = datetime.fromisoformat(_MICROSECONDS.sub(r"\1", value.upper()))
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # The 31st of a short month, hour 25, or a year that the zone moves out of range.
        else:
            if _FIRST_YEAR <= moment.year < _END_YEAR:
                return moment
    raise GraphQLError(
        "DateTime wants RFC 3339 with a zone, such as '2026-11-20T10:00:00Z', from 1970 to 2199."
    )


def show_moment(value: object) -> str:
    """RFC 3339 in UTC, with as many decimals as the moment has."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError(f"a DateTime field holds an aware datetime, not {type(value).__name__}")
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat().replace("+00:00", "Z")


def show_integer(value: object) -> int:
    """A whole number that JavaScript can hold."""
    if not isinstance(value, int) or abs(value) >= 2**53:
        raise TypeError("a BigInt field holds an integer of at most 53 bits")
    return value


def parse_integer(value: object) -> int:
    """A whole number of at most 53 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**53:
        raise GraphQLError("BigInt wants a whole number of at most 53 bits.")
    return value


def parse_json(value: object) -> object:
    """A JSON value, if it is not nested deeper than 16 levels."""
    return _bounded(value, JSON_DEPTH_MAX)


def _bounded(value: object, levels: int) -> object:
    if isinstance(value, Mapping | list):
        if levels == 0:
            raise GraphQLError(f"JSON is nested deeper than {JSON_DEPTH_MAX} levels.")
        for item in value.values() if isinstance(value, Mapping) else value:
            _bounded(item, levels - 1)
    return value


def _decimal_literal(node: ValueNode, _variables: Any = None) -> Decimal:
    if isinstance(node, StringValueNode | IntValueNode | FloatValueNode):
        return parse_decimal(node.value)  # The digits as written: no float in between.
    raise GraphQLError("Decimal wants a string such as '12.50'.", node)


def _moment_literal(node: ValueNode, _variables: Any = None) -> datetime:
    return parse_moment(node.value if isinstance(node, StringValueNode) else None)


def _integer_literal(node: ValueNode, _variables: Any = None) -> int:
    if isinstance(node, IntValueNode) and len(node.value) < 20:
        return parse_integer(int(node.value))
    raise GraphQLError("BigInt wants a whole number of at most 53 bits.", node)


def _json_literal(node: ValueNode, variables: Mapping[str, Any] | None = None) -> object:
    return _json_of(node, variables or {}, JSON_DEPTH_MAX)


def _json_of(node: ValueNode, variables: Mapping[str, Any], levels: int) -> object:
    match node:
        case StringValueNode() | BooleanValueNode():
            return node.value
        case IntValueNode() | FloatValueNode():
            return _number(node)
        case NullValueNode():
            return None
        case VariableNode():
            return parse_json(variables.get(node.name.value))
        case ListValueNode() | ObjectValueNode() if levels == 0:
            raise GraphQLError(f"JSON is nested deeper than {JSON_DEPTH_MAX} levels.", node)
        case ListValueNode():
            return [_json_of(item, variables, levels - 1) for item in node.values]
        case ObjectValueNode():
            return {
                field.name.value: _json_of(field.value, variables, levels - 1)
                for field in node.fields
            }
    raise GraphQLError("JSON has no enum values: use a string.", node)


def _number(node: IntValueNode | FloatValueNode) -> int | Decimal:
    if len(node.value) > NUMBER_CHARACTERS_MAX:
        raise GraphQLError(f"JSON numbers have at most {NUMBER_CHARACTERS_MAX} characters.", node)
    return int(node.value) if isinstance(node, IntValueNode) else Decimal(node.value)


SCALARS: dict[object, ScalarDefinition] = {
    Decimal: strawberry.scalar(
        name="Decimal",
        description=(
            "An exact decimal number in plain notation, as a string such as `12.50`: at most 15 "
            "digits before the point and 18 after it. No exponent, NaN or Infinity."
        ),
        specified_by_url="https://www.w3.org/TR/xmlschema11-2/#decimal",
        serialize=show_decimal,
        parse_value=parse_decimal,
        parse_literal=_decimal_literal,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description=(
            "A moment as in RFC 3339, such as `2026-11-20T10:00:00Z`; the zone is required. "
            "From 1970 to 2199."
        ),
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=show_moment,
        parse_value=parse_moment,
        parse_literal=_moment_literal,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number of at most 53 bits, as a JSON number.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259#section-6",
        serialize=show_integer,
        parse_value=parse_integer,
        parse_literal=_integer_literal,
    ),
    JSON: strawberry.scalar(
        name="JSON",
        description="Any JSON value, at most 16 levels deep; numbers stay exact.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
        parse_value=parse_json,
        parse_literal=_json_literal,
    ),
}
