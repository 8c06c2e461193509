"""Stage 1, ingestion: the shape of an event."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from aforo.metering.stored import VOID
from aforo.metering.verdicts import Refusal, Stage, rejected

KEY_LENGTH_MAX = 255
TYPE_LENGTH_MAX = 128
PROPERTIES_MAX = 200
PROPERTIES_DEPTH_MAX = 8
VALUES_MAX = 1_000
TEXT_LENGTH_MAX = 8_192
TEXTS_LENGTH_MAX = 65_536
"""Of all names and texts in one event: it is kept whole in three engines and in live views."""
NUMBER_DIGITS_MAX = 100
REASON_LENGTH_MAX = 500
SHOWN_LENGTH_MAX = 40

_LENGTHS = {
    "idempotencyKey": KEY_LENGTH_MAX,
    "type": TYPE_LENGTH_MAX,
    "customer": KEY_LENGTH_MAX,
    "apiKey": KEY_LENGTH_MAX,
    "supersedes": KEY_LENGTH_MAX,
    "reason": REASON_LENGTH_MAX,
}
_FIELDS = _LENGTHS.keys() | {"occurredAt", "properties"}
_KNOWN = (
    "idempotencyKey, type, customer, apiKey, occurredAt, properties, and supersedes and reason "
    "where it takes the place of another one"
)
_VOID_LENGTHS = {
    "idempotencyKey": KEY_LENGTH_MAX,
    "voids": KEY_LENGTH_MAX,
    "reason": REASON_LENGTH_MAX,
}
_PLAIN_DIGITS_MAX = 30
_PLAIN_BITS_MAX = 64
# Control characters, line ends, halves of a surrogate pair: what cannot be stored, or not be seen.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class SentEvent(msgspec.Struct, frozen=True):
    """A well-formed event, as its sender wrote it."""

    key: str
    type: str
    customer: str | None
    api_key: str | None
    occurred_at: datetime | None
    """The instant that was sent, to the microsecond; None where the sender left it to us."""
    properties: dict[str, Any]
    supersedes: str | None = None
    """The key of the event that this one takes the place of, or that it voids."""
    reason: str | None = None
    """Why it does, for people."""

    @property
    def is_void(self) -> bool:
        """Whether it takes another event out of the count, and puts none in its place."""
        return self.type == VOID


class Misread(msgspec.Struct, frozen=True):
    """Stands in a batch for what its form could not read as an event."""

    refusal: Refusal
    key: str | None = None


def read_event(sent: object) -> SentEvent | Refusal:
    """Check the shape of one decoded element of a batch."""
    if not isinstance(sent, dict):
        return sent.refusal if isinstance(sent, Misread) else _bad("an event is a JSON object")
    if "voids" in sent:
        return _void(sent)
    if refusal := _wrong_texts(sent):
        return refusal
    occurred_at = _moment(sent.get("occurredAt"))
    if isinstance(occurred_at, Refusal):
        return occurred_at
    properties = {} if sent.get("properties") is None else sent["properties"]
    if not _is_plain(properties) and (wrong := _wrong_properties(properties)):
        return _bad(wrong)
    return SentEvent(
        sent["idempotencyKey"],
        sent["type"],
        sent.get("customer"),
        sent.get("apiKey"),
        occurred_at,
        properties,
        sent.get("supersedes"),
        sent.get("reason"),
    )


def key_of(sent: object) -> str | None:
    """The idempotency key of an element that is refused, where it has one that can be shown."""
    key = sent.get("idempotencyKey") if isinstance(sent, dict) else getattr(sent, "key", None)
    return key if isinstance(key, str) and not wrong_text(key, KEY_LENGTH_MAX) else None


def wrong_text(value: object, length_max: int) -> str | None:
    """What is wrong with a text that names something; None where nothing is."""
    if isinstance(value, str) and 0 < len(value) <= length_max and value.isprintable():
        return None  # Nearly always, and sooner said than what is wrong.
    if not isinstance(value, str):
        return "must be a string"
    if not 1 <= len(value) <= length_max:
        return f"must have 1 to {length_max} characters"
    if _CONTROL.search(value):
        return "must not contain control characters"
    return None


def _void(sent: dict[str, Any]) -> SentEvent | Refusal:
    if unknown := sorted(sent.keys() - _VOID_LENGTHS.keys()):
        known = ", ".join(_VOID_LENGTHS)
        return _bad(f"unknown field {_shown(unknown[0])}; an event that voids another has {known}")
    for field in ("idempotencyKey", "voids"):
        if sent.get(field) is None:
            return _missing(f"{field} is missing")
    if refusal := _wrong_lengths(sent, _VOID_LENGTHS) or _wrong_target(sent, "voids"):
        return refusal
    return SentEvent(
        sent["idempotencyKey"], VOID, None, None, None, {}, sent["voids"], sent.get("reason")
    )


def _wrong_texts(sent: dict[str, Any]) -> Refusal | None:
    if not sent.keys() <= _FIELDS:
        unknown = sorted(sent.keys() - _FIELDS)
        return _bad(f"unknown field {_shown(unknown[0])}; an event has {_KNOWN}")
    for field in ("idempotencyKey", "type"):
        if sent.get(field) is None:
            return _missing(f"{field} is missing")
    if sent.get("customer") is None and sent.get("apiKey") is None:
        return _missing("customer or apiKey must say whose event it is")
    return _wrong_lengths(sent, _LENGTHS) or _wrong_target(sent, "supersedes")


def _wrong_lengths(sent: dict[str, Any], lengths: dict[str, int]) -> Refusal | None:
    for field, length in lengths.items():
        if sent.get(field) is not None and (wrong := wrong_text(sent[field], length)):
            return _bad(f"{field} {wrong}")
    return None


def _wrong_target(sent: dict[str, Any], field: str) -> Refusal | None:
    target = sent.get(field)
    if target is None:
        if sent.get("reason") is None:
            return None
        return _bad("reason says why an event supersedes or voids another, and this one does not")
    if target == sent["idempotencyKey"]:
        return _bad(f"{field} is the key of another event; one that corrects it has its own")
    return None


def _missing(message: str) -> Refusal:
    return rejected(Stage.INGESTION, "MISSING_FIELD", message)


def _bad(message: str) -> Refusal:
    return rejected(Stage.INGESTION, "BAD_VALUE", message)


def _moment(value: object) -> datetime | Refusal | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        return _bad(
            "occurredAt must be a date and time with a zone, such as 2026-11-20T10:00:00.123Z"
        )
    try:
        # To the microsecond: what ClickHouse and Python both hold.
        if value[10] == "T" and value[-1] == "Z":
            return datetime.fromisoformat(value)
        return datetime.fromisoformat(value.upper().replace(" ", "T")).astimezone(UTC)
    except (ValueError, OverflowError):
        return _bad(f"occurredAt {value} is no date and time of the calendar")


def _is_plain(value: object) -> bool:
    """Whether properties are as nearly all are, and surely right: a few short texts and numbers."""
    if not isinstance(value, dict) or len(value) > PROPERTIES_MAX:
        return False
    length = 0
    for name, member in value.items():
        if not (0 < len(name) <= TYPE_LENGTH_MAX and name.isprintable()):
            return False
        length += len(name)
        if type(member) is str:
            length += len(member)
            if len(member) > TEXT_LENGTH_MAX or not member.isascii():
                return False
        elif not _is_small(member):
            return False
    return length <= TEXTS_LENGTH_MAX


def _is_small(value: object) -> bool:
    """Whether a value is no text, and a number, if it is one, of a few digits."""
    if type(value) is int:
        return value.bit_length() <= _PLAIN_BITS_MAX
    if type(value) is Decimal:
        return len(str(value)) <= _PLAIN_DIGITS_MAX
    return value is None or type(value) is bool


def _wrong_properties(value: object) -> str | None:
    if not isinstance(value, dict):
        return "properties must be an object"
    if len(value) > PROPERTIES_MAX:
        return f"properties has {len(value)} members, at most {PROPERTIES_MAX} are allowed"
    for name in value:
        if wrong := wrong_text(name, TYPE_LENGTH_MAX):
            return f"the name of a property {wrong}"
    wrong = _wrong_size(value) or _wrong_value(value, PROPERTIES_DEPTH_MAX)
    return wrong and f"properties{wrong}"


def _wrong_value(value: object, depth: int) -> str | None:
    """What is wrong, after the path to it."""
    match value:
        case str() if len(value) > TEXT_LENGTH_MAX:
            return f" has over {TEXT_LENGTH_MAX} characters"
        case str() if _HALF.search(value):
            return " has half of a surrogate pair"
        case int() if abs(value) >= 10**NUMBER_DIGITS_MAX:
            return f" has over {NUMBER_DIGITS_MAX} digits"
        case Decimal() if len(value.as_tuple().digits) > NUMBER_DIGITS_MAX:
            return f" has over {NUMBER_DIGITS_MAX} digits"
        case dict() | list():
            return _wrong_members(value, depth)
    return None


def _wrong_members(value: dict[str, object] | list[object], depth: int) -> str | None:
    if depth == 0:
        return f" is nested deeper than {PROPERTIES_DEPTH_MAX} levels"
    for name, member in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str) and (wrong := _wrong_value(name, depth)):
            return f": the name {_shown(name)}{wrong}"
        if wrong := _wrong_value(member, depth - 1):
            return f".{_shown(str(name))}{wrong}"
    return None


def _wrong_size(value: dict[str, object]) -> str | None:
    """What is wrong with values that may each be right."""
    values = length = 0
    stack: list[object] = [value]
    while stack:
        values += 1
        match stack.pop():
            case str() as text:
                length += len(text)
            case dict() as members:
                length += sum(map(len, members))
                stack += members.values()
            case list() as members:
                stack += members
        if values > VALUES_MAX:
            return f" has over {VALUES_MAX} values in all"
        if length > TEXTS_LENGTH_MAX:
            return f" has over {TEXTS_LENGTH_MAX} characters in all"
    return None


def _shown(name: str) -> str:
    """Enough of a name to find it by, whatever it holds."""
    return name[:SHOWN_LENGTH_MAX].encode(errors="replace").decode()
