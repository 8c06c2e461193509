"""One text per value: JSON with sorted keys, where numbers that are equal read alike."""

from decimal import Decimal
from typing import Any

import msgspec

# Past this many digits either way a number keeps its exponent: 1e999999999 must stay short.
_PLAIN_EXPONENT_MAX = 40
_PLAIN_BITS_MAX = 63
_PLAIN_CHARACTERS_MAX = 30
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def canonical(value: Any) -> str:
    """The canonical JSON of a decoded JSON value.

    Equal values have equal texts: key order is ignored, `1`, `1.0` and `1e0` are the same,
    `1` and `"1"` are not.
    """
    if isinstance(value, str):
        return _encode(value).decode()
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int | Decimal):
        return number(value)
    if isinstance(value, dict):
        members = (f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    return "[" + ",".join(map(canonical, value)) + "]"


def canonical_object(value: dict[str, Any]) -> str:
    """The canonical JSON of an object; quickly, where its members are texts and small numbers."""
    plain: dict[str, Any] = value
    for name, member in value.items():
        kind = type(member)
        if kind is Decimal:
            if plain is value:
                plain = dict(value)
            plain[name] = msgspec.Raw(number(member).encode())
        elif kind is int:
            if member.bit_length() > _PLAIN_BITS_MAX:
                return canonical(value)
        elif kind is not str and kind is not bool and member is not None:
            return canonical(value)
    return _encode_sorted(plain).decode()


def number(value: int | Decimal) -> str:
    """The shortest plain text of a number, or one with an exponent where that is far off."""
    if isinstance(value, int) and abs(value) < 10**_PLAIN_EXPONENT_MAX:
        return str(value)
    written = str(value)
    if len(written) <= _PLAIN_CHARACTERS_MAX and "E" not in written:
        if "." in written:
            written = written.rstrip("0").rstrip(".")
        return "0" if written in {"-0", ""} else written
    sign, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int), "JSON has no NaN and no Infinity"
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return "0"
    shortened = text.rstrip("0")
    exponent += len(text) - len(shortened)
    minus = "-" if sign else ""
    if not -_PLAIN_EXPONENT_MAX <= exponent <= _PLAIN_EXPONENT_MAX:
        return f"{minus}{shortened}e{exponent}"
    if exponent >= 0:
        return minus + shortened + "0" * exponent
    padded = shortened.rjust(1 - exponent, "0")
    return f"{minus}{padded[:exponent]}.{padded[exponent:]}"


def texts(value: dict[str, Any]) -> dict[str, str]:
    """Each property as one text: a string behind a quotation mark, the rest as canonical JSON.

    Meters read these and not the JSON, because ClickHouse takes a JSON number for a double: it
    would lose digits, and one number out of a double's range would hide the whole event.
    """
    found = {}
    for name, member in value.items():
        kind = type(member)
        if kind is str:
            found[name] = '"' + member
        elif kind is int or kind is Decimal:
            found[name] = number(member)
        else:
            found[name] = canonical(member)
    return found


def plain_text(value: Any) -> str | None:
    """A property as filters and distinct counts see it: a string as it is, else its canonical
    text; None where the property is missing or null."""
    if value is None:
        return None
    return value if isinstance(value, str) else canonical(value)
