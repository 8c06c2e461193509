"""Cursors: opaque texts that name a position in a list, and are read back with suspicion."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from aforo.sdk.encoding import decoded, encoded
from aforo.sdk.errors import Invalid
from aforo.storage.listing import Listing, Position

CURSOR_CHARACTERS_MAX = 2_000
"""A name of 200 characters, each of 6 bytes, fits."""


def cursor_of(row: Any, listing: Listing[Any]) -> str:
    """The cursor of a row of a list."""
    position = listing.position(row)
    if position.value is None:
        return encoded(position.id.bytes)
    value = position.value
    text = value.isoformat() if isinstance(value, datetime) else value
    return encoded(msgspec.json.encode([listing.column, text, position.id.hex]))


def position_of(cursor: str, listing: Listing[Any]) -> Position:
    """The position in a list that a cursor names; the row there may be gone.

    Raises `Invalid`, code `BAD_CURSOR`, also for the cursor of a list in another order.
    """
    try:
        raw = decoded(cursor, characters_max=CURSOR_CHARACTERS_MAX)
        if listing.column == "id":
            return Position(None, UUID(bytes=raw))
        column, text, id_ = msgspec.json.decode(raw, type=tuple[str, str, str])
        if column != listing.column or "\0" in text:
            raise bad_cursor()
        return Position(_moment(text) if listing.holds_moments else text, UUID(hex=id_))
    except (ValueError, msgspec.DecodeError) as error:
        raise bad_cursor() from error


def cursor_at(*parts: int | str) -> str:
    """The cursor of a position in a list that is not of rows."""
    return encoded(" ".join(str(part) for part in parts).encode())


def cursor_parts(cursor: str, count: int) -> list[str]:
    """What `cursor_at` was given, as text. Raises `Invalid`, code `BAD_CURSOR`."""
    try:
        parts = decoded(cursor, characters_max=CURSOR_CHARACTERS_MAX).decode("ascii").split(" ")
    except ValueError as error:
        raise bad_cursor() from error
    if len(parts) != count:
        raise bad_cursor()
    return parts


def bad_cursor(
    message: str = "after is no cursor of this field in this order: give the endCursor of a page",
) -> Invalid:
    """The error of a cursor that this field never gave."""
    return Invalid(message, code="BAD_CURSOR", field="after")


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError("a moment has a zone")
    return moment
