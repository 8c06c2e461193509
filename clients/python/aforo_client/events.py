"""One event as it is sent: checked where it arises, and written as JSON with exact numbers."""

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from aforo_client.errors import InvalidEvent

EVENT_BYTES_MAX = 1024 * 1024
"""Several times what Aforo's own limits let an event have."""
DIGITS_MAX = 100
DEPTH_MAX = 32

_FLOAT = (
    "a float is not exact, and bills are: write it as Decimal({text!r}), as an int of a smaller "
    "unit, or as a text"
)


def written_event(
    type_: str,
    *,
    key: str,
    customer: str | None,
    api_key: str | None,
    occurred_at: datetime | None,
    properties: Mapping[str, object] | None,
) -> bytes:
    """The event as one line of JSON. Without `occurred_at` it happened now. Raises `InvalidEvent`.

    Only what could not be sent, or not exactly, is refused here; Aforo judges the rest.
    """
    if customer is None and api_key is None:
        raise InvalidEvent("an event names its customer, or an api_key of the customer")
    event: dict[str, object] = {
        "idempotencyKey": _text(key, "idempotency_key"),
        "type": _text(type_, "type"),
        "occurredAt": _moment(occurred_at),
    }
    if customer is not None:
        event["customer"] = _text(customer, "customer")
    if api_key is not None:
        event["apiKey"] = _text(api_key, "api_key")
    if properties is not None:
        if not isinstance(properties, Mapping):
            raise InvalidEvent(f"properties are a mapping, not a {_kind(properties)}")
        event["properties"] = properties
    line = _json(event, "", 0).encode()
    if len(line) > EVENT_BYTES_MAX:
        raise InvalidEvent(f"an event has at most {EVENT_BYTES_MAX:,} bytes, not {len(line):,}")
    return line


def new_key() -> str:
    """A key that nobody else has: a UUID of version 7, which sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=number & ~(0b11 << 62) | 0b10 << 62))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidEvent(f"{name} is a text that is not empty, not {value!r:.100}")
    return value


def _moment(occurred_at: datetime | None) -> str:
    if occurred_at is None:
        occurred_at = datetime.now(UTC)
    if not isinstance(occurred_at, datetime):
        raise InvalidEvent(f"occurred_at is a datetime, not a {_kind(occurred_at)}")
    if occurred_at.utcoffset() is None:
        raise InvalidEvent(
            f"occurred_at {occurred_at.isoformat()} has no time zone: "
            "take datetime.now(UTC), or say which zone it is in"
        )
    try:
        moment = occurred_at.astimezone(UTC)
    except OverflowError as error:
        raise InvalidEvent(f"occurred_at {occurred_at.isoformat()} is no date in UTC") from error
    return moment.isoformat().replace("+00:00", "Z")


def _json(value: object, path: str, depth: int) -> str:
    """The value as JSON. `json.dumps` would write a Decimal only as a float."""
    if isinstance(value, str):
        return _quoted(value, path)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return _integer(value, path)
    if isinstance(value, Decimal):
        return _decimal(value, path)
    if depth == DEPTH_MAX:
        raise InvalidEvent(f"{path} is nested more than {DEPTH_MAX} levels deep")
    if isinstance(value, Mapping):
        members = (
            f"{_name(name, path)}:{_json(each, f'{path}.{name}' if path else name, depth + 1)}"
            for name, each in value.items()
        )
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        items = (_json(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(value))
        return f"[{','.join(items)}]"
    if isinstance(value, float):
        raise InvalidEvent(f"{path} is {value!r}: {_FLOAT.format(text=repr(value))}")
    raise InvalidEvent(
        f"{path} is a {_kind(value)}: send a text, int, Decimal, bool, None, list or mapping"
    )


def _name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise InvalidEvent(f"{path} has a name that is no text: {name!r:.100}")
    return _quoted(name, path)


def _quoted(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{path} has half of a surrogate pair in it") from error
    return json.dumps(text, ensure_ascii=False)


def _integer(value: int, path: str) -> str:
    if abs(value) >= 10**DIGITS_MAX:
        raise InvalidEvent(f"{path} has more than {DIGITS_MAX} digits")
    return int.__repr__(value)


def _decimal(value: Decimal, path: str) -> str:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise InvalidEvent(f"{path} is {value}, which is no number")
    if max(len(digits) + exponent, 1) + max(-exponent, 0) > DIGITS_MAX:
        raise InvalidEvent(f"{path} has more than {DIGITS_MAX} digits")
    return format(value, "f")  # An exponent is no plain notation.


def _kind(value: object) -> str:
    return type(value).__name__
