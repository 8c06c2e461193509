"""The same events in every form in which they can be sent."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from aforo.api.ingest.cloud_events import key_of
from aforo.api.parts.answers import encode_json

Sent = tuple[bytes, dict[str, str]]
"""A body, and the headers that say what it is."""

ARRAY = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}
CLOUD_EVENT = {"Content-Type": "application/cloudevents+json"}
CLOUD_BATCH = {"Content-Type": "application/cloudevents-batch+json"}

_OURS = {
    "type": "type",
    "subject": "customer",
    "apikey": "apiKey",
    "time": "occurredAt",
    "data": "properties",
}


def cloud_event(**attributes: Any) -> dict[str, Any]:
    """A good CloudEvent with some attributes changed; those that are None are left out."""
    given = {
        "specversion": "1.0",
        "id": "1",
        "source": "/gateway",
        "type": "llm.request",
        "subject": "acme",
        "time": "2026-11-20T10:00:00Z",
        "data": {"tokens": 10},
        **attributes,
    }
    return {name: value for name, value in given.items() if value is not None}


def plain(event: Mapping[str, Any]) -> dict[str, Any]:
    """A CloudEvent as an event of ours."""
    ours = {_OURS[name]: value for name, value in event.items() if name in _OURS}
    if "id" in event and "source" in event:
        ours["idempotencyKey"] = key_of(event["source"], event["id"])
    return ours


def array(events: Sequence[Mapping[str, Any]]) -> list[Sent]:
    return [(encode_json([plain(event) for event in events]), ARRAY)]


def lines(events: Sequence[Mapping[str, Any]]) -> list[Sent]:
    return [(b"\n".join(encode_json(plain(event)) for event in events), LINES)]


def batched(events: Sequence[Mapping[str, Any]]) -> list[Sent]:
    return [(encode_json(list(events)), CLOUD_BATCH)]


def structured(events: Sequence[Mapping[str, Any]]) -> list[Sent]:
    return [(encode_json(event), CLOUD_EVENT) for event in events]


def binary(events: Sequence[Mapping[str, Any]]) -> list[Sent]:
    return [
        (
            encode_json(event["data"]) if "data" in event else b"",
            ARRAY
            | {f"ce-{name}": quote(event[name], safe="/:") for name in event if name != "data"},
        )
        for event in events
    ]


FORMS = {
    "array": array,
    "lines": lines,
    "batched": batched,
    "structured": structured,
    "binary": binary,
}
