"""Batches as JSON: an array of events, or an event on each line."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

from aforo.api.auth.requests import Refused
from aforo.api.parts.answers import Unreadable, decode_json
from aforo.metering.ingest import Misread
from aforo.metering.verdicts import Stage, rejected

EVENTS_MAX = 1_000
NUMBER_CHARACTERS_MAX = 4_000

_BEYOND: int = 10**NUMBER_CHARACTERS_MAX  # Stands for any number that nothing here could hold.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")  # From the first character that is not blank.


def array_of_events(body: bytes) -> list[object]:
    """The elements of `application/json`. Raises `Refused` with 400 or 413."""
    return array(body, "events")


def lines_of_events(body: bytes) -> list[object]:
    """The lines of `application/x-ndjson`, blank ones apart. A line that is no JSON is one event
    that was misread, and leaves the others alone. Raises `Refused` with 413."""
    lines = list(islice(_LINE.finditer(body), EVENTS_MAX + 1))
    if len(lines) > EVENTS_MAX:
        raise _too_many("more")
    return list(_read(line.group() for line in lines))


def array(body: bytes, of_what: str) -> list[object]:
    """The elements of a JSON array, decoded. Raises `Refused` with 400 or 413."""
    batch = decoded(body)
    if not isinstance(batch, list):
        raise Refused(400, "BAD_REQUEST", f"the body is a JSON array of {of_what}")
    if len(batch) > EVENTS_MAX:
        raise _too_many(str(len(batch)))
    return batch


def decoded(body: bytes) -> Any:
    """A body of JSON. Raises `Refused` with 400."""
    try:
        return _tolerantly(body)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400, "BAD_REQUEST", f"the body cannot be read as JSON: {_said(error)}"
        ) from error


def _read(lines: Iterator[bytes]) -> Iterator[object]:
    for line in lines:
        try:
            yield _tolerantly(line)
        except (ValueError, RecursionError) as error:
            message = f"the line cannot be read as JSON: {_said(error)}"
            yield Misread(rejected(Stage.INGESTION, "BAD_VALUE", message))


def _tolerantly(text: bytes) -> Any:
    """Read JSON, also where single values in it are beyond the fast decoder: halves of a
    surrogate pair, endless digits. Such a value is for ingestion to reject, with its event alone.
    Raises ValueError or RecursionError.
    """
    try:
        return decode_json(text)
    except Unreadable:
        return json.loads(
            text.decode(), parse_int=_integer, parse_float=_decimal, parse_constant=_no_constant
        )


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= NUMBER_CHARACTERS_MAX else _BEYOND


def _decimal(digits: str) -> Decimal | int:
    try:
        return Decimal(digits)
    except InvalidOperation:  # The exponent itself has more digits than a number can.
        return _BEYOND


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "it is nested too deeply"


def _too_many(asked: str) -> Refused:
    message = f"a batch has at most {EVENTS_MAX} events, not {asked}"
    return Refused(413, "TOO_MANY_EVENTS", message)
