"""JSON in and out: numbers stay exact, and what is sent is always text."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import orjson
from starlette.responses import Response


class Unreadable(ValueError):
    """The text is no JSON, or JSON that no number type or stack can hold."""


def decode_json(text: bytes | str) -> Any:
    """Read JSON; numbers with a point or exponent become Decimals. Raises `Unreadable`."""
    try:
        return _DECODER.decode(text)
    except UnicodeError as error:
        raise Unreadable("the text is not UTF-8") from error
    except msgspec.DecodeError as error:
        raise Unreadable(f"{error}") from error
    except InvalidOperation as error:
        raise Unreadable("a number has an exponent that is out of range") from error
    except RecursionError as error:
        raise Unreadable("JSON is nested too deeply") from error


def encode_json(value: object) -> bytes:
    """Write JSON."""
    try:
        return orjson.dumps(value, default=_plain)
    except (orjson.JSONEncodeError, RecursionError):
        # More than 254 levels, or integers of more than 64 bits.
        return _ENCODER.encode(value)


def already_json(text: bytes) -> object:
    """A part of what is to be written that is JSON already."""
    return orjson.Fragment(text)


def json_response(
    value: object,
    status: int = 200,
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response with a JSON body."""
    return Response(
        encode_json(value), status, headers=headers, media_type=f"{media_type}; charset=utf-8"
    )


def error_response(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    *,
    field: str | None = None,
) -> Response:
    """An error of a route that is not GraphQL."""
    error = {"code": code, "message": message}
    if field:
        error["field"] = field
    return json_response({"error": error}, status, headers=headers)


def _plain(value: object) -> object:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))  # A JSON number, digit by digit.
    raise TypeError(f"{type(value).__name__} has no JSON form")


_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
