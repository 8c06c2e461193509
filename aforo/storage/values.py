"""Values of columns as the audit log shows them: plain, bounded, and no secret among them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

TEXT_CHARACTERS_MAX = 500
JSON_CHARACTERS_MAX = 2_000
REDACTED = "[secret]"
_EXACT_IN_JSON = 2**53

_encode = msgspec.json.Encoder(order="sorted").encode


def shown(value: Any, *, secret: bool = False) -> Any:
    """A value as JSON has it: numbers with decimals are text, so that none is rounded."""
    if value is None:
        return None
    if secret:
        return REDACTED
    if isinstance(value, Mapping | list | tuple):
        return _container(value)
    is_plain = isinstance(value, bool | int) and not isinstance(value, Enum)
    if is_plain and abs(value) < _EXACT_IN_JSON:
        return value
    return cut(_text(value), TEXT_CHARACTERS_MAX)


def cut(text: str, characters_max: int) -> str:
    """The text, or its beginning and how long it was; without the NUL, which PostgreSQL refuses."""
    text = text.replace("\0", "�")
    if len(text) <= characters_max:
        return text
    return f"{text[:characters_max]}… ({len(text)} characters)"


def camel(name: str) -> str:
    """A column's name as the API spells it."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _text(value: Any) -> str:
    match value:
        case Enum():
            return value.name
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case bytes():
            return f"[{len(value)} bytes]"
    return str(value)


def _container(value: Any) -> Any:
    plain = _plain(value)
    text = _encode(plain).decode()
    return plain if len(text) <= JSON_CHARACTERS_MAX else cut(text, JSON_CHARACTERS_MAX)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return shown(value)
