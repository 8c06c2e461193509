"""CloudEvents 1.0 in their three modes over HTTP: structured, batched and binary.

See the specification's JSON format and its HTTP protocol binding, both of version 1.0.2.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

from aforo.api.auth.requests import Refused
from aforo.api.ingest.batches import array, decoded
from aforo.metering.ingest import KEY_LENGTH_MAX, TEXT_LENGTH_MAX, Misread, wrong_text
from aforo.metering.verdicts import Stage, rejected

SPEC_VERSION = "1.0"
HEADER_PREFIX = "ce-"

_REQUIRED = ("specversion", "id", "source", "type")
_MARKS = {HEADER_PREFIX + name for name in _REQUIRED}
_JSON_TYPE = re.compile(r"[^/\s]+/(json|[^/\s]+\+json)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
# Of CloudEvents, as an event of ours has it.
_FIELDS = {"type": "type", "subject": "customer", "apikey": "apiKey", "time": "occurredAt"}


def structured_event(body: bytes) -> list[object]:
    """The one event of `application/cloudevents+json`. Raises `Refused` with 400."""
    sent = decoded(body)
    if not isinstance(sent, dict):
        raise Refused(
            400,
            "BAD_REQUEST",
            "the body is one CloudEvent, a JSON object; several are sent in an array as "
            "application/cloudevents-batch+json",
        )
    return [_event(sent)]


def batched_events(body: bytes) -> list[object]:
    """The events of `application/cloudevents-batch+json`. Raises `Refused` with 400 or 413."""
    return [_event(sent) for sent in array(body, "CloudEvents")]


def is_binary(headers: Mapping[str, str], content_type: str) -> bool:
    """Whether a request is a CloudEvent in binary mode: attributes in its headers, and a body,
    if any, that is JSON data."""
    if _MARKS.isdisjoint(headers.keys()):
        return False
    return not content_type or _JSON_TYPE.fullmatch(content_type) is not None


def binary_event(body: bytes, headers: Iterable[tuple[str, str]]) -> list[object]:
    """The one event that is a body of data and headers of attributes. Raises `Refused` with 400."""
    sent: dict[str, Any] = {}
    wrong = None
    for name, value in headers:
        if name.startswith(HEADER_PREFIX):
            attribute = name.removeprefix(HEADER_PREFIX)
            if attribute in sent:
                wrong = wrong or f"{name} is sent more than once"
            try:
                sent[attribute] = _unescaped(value)
            except ValueError:
                wrong = wrong or f"{name} is not percent-encoded UTF-8 in printable ASCII"
    if "datacontenttype" in sent:
        wrong = wrong or "in binary mode the Content-Type says what the data is, and no ce- header"
    # Not as attributes: data never comes in a header.
    for member in ("data", "data_base64"):
        sent.pop(member, None)
    if body.strip():
        sent["data"] = decoded(body)
    return [_refused("BAD_VALUE", wrong, _key(sent)) if wrong else _event(sent)]


def key_of(source: str, event_id: str) -> str:
    """The idempotency key of a CloudEvent, which is one by its source and id together.

    No source has a space, so what stands before the first one is the source. Where the two are
    longer than a key may be, their SHA-256 stands for them.
    """
    key = f"{source} {event_id}"
    if len(key) <= KEY_LENGTH_MAX:
        return key
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def _event(sent: object) -> object:
    """A CloudEvent as an event of ours, or why it is none."""
    if not isinstance(sent, dict):
        return sent  # Ingestion knows what to say of it.
    key = _key(sent)
    for name in _REQUIRED:
        if sent.get(name) is None:
            return _refused("MISSING_FIELD", f"{name} is missing", key)
    correcting = _correcting(sent)
    if isinstance(correcting, Misread):
        return correcting
    if "voids" in correcting:
        return {"idempotencyKey": key, **correcting}
    if sent.get("subject") is None and sent.get("apikey") is None:
        message = "subject must say whose event it is, or the extension attribute apikey"
        return _refused("MISSING_FIELD", message, key)
    if wrong := _wrong_id(sent["source"], sent["id"]) or _wrong_data(sent):
        return _refused("BAD_VALUE", wrong, key)
    event = {ours: sent[theirs] for theirs, ours in _FIELDS.items() if sent.get(theirs) is not None}
    if sent.get("data") is not None:
        event["properties"] = sent["data"]
    return {"idempotencyKey": key, **event, **correcting}


def _correcting(sent: Mapping[str, Any]) -> dict[str, Any] | Misread:
    """What an event says by extension attributes of another one of its source, which it names by
    its id. One that voids says nothing else that is looked at."""
    found: dict[str, Any] = {}
    for name in ("supersedes", "voids"):
        target = sent.get(name)
        if target is None:
            continue
        if found:
            return _refused("BAD_VALUE", "an event supersedes another or voids it", _key(sent))
        if wrong := _wrong_id(sent["source"], target):
            return _refused("BAD_VALUE", wrong.replace("id ", f"{name} ", 1), _key(sent))
        found[name] = key_of(sent["source"], target)
    if sent.get("reason") is not None:
        found["reason"] = sent["reason"]
    return found


def _key(sent: Mapping[str, Any]) -> str | None:
    source, event_id = sent.get("source"), sent.get("id")
    if source is None or event_id is None or _wrong_id(source, event_id):
        return None
    return key_of(source, event_id)


def _wrong_id(source: object, event_id: object) -> str | None:
    for name, value in (("source", source), ("id", event_id)):
        if wrong := wrong_text(value, TEXT_LENGTH_MAX):
            return f"{name} {wrong}"
    if re.search(r"\s", str(source)):
        return "source must be a URI reference, and has a space"
    return None


def _wrong_data(sent: Mapping[str, Any]) -> str | None:
    if sent["specversion"] != SPEC_VERSION:
        return f"specversion must be {SPEC_VERSION}"
    if sent.get("data_base64") is not None:
        return "data_base64 is binary data; the properties of an event are JSON, sent as data"
    given = sent.get("datacontenttype")
    if given is None:
        return None
    content_type = given.partition(";")[0].strip().lower() if isinstance(given, str) else ""
    if not _JSON_TYPE.fullmatch(content_type):
        return "datacontenttype must be JSON, such as application/json"
    return None


def _unescaped(value: str) -> str:
    """A header's value as the attribute that it stands for. Raises ValueError."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("no printable ASCII")
    if quoted := _QUOTED.fullmatch(value):  # As older versions of the binding wrote spaces.
        value = _ESCAPED.sub(r"\1", quoted[1])
    if _BAD_ESCAPE.search(value):
        raise ValueError("no percent-encoding")
    return unquote_to_bytes(value).decode()


def _refused(code: str, message: str, key: str | None) -> Misread:
    return Misread(rejected(Stage.INGESTION, code, message), key)
