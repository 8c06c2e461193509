"""The domain events as documents: a table for the manual, and a JSON schema for receivers."""

from typing import Any

import msgspec

from aforo.storage.event_types import SHAPES, Member, Shape

_FORMS: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    "text": {"type": "string"},
    "amount": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
    "moment": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
}


def event_table() -> str:
    """Markdown: each type with what it says and what its data has."""
    rows = [
        f"| `{kind.value}` | {shape.description} | {shape.object} | {_members(shape)} |"
        for kind, shape in SHAPES.items()
    ]
    head = ("| type | when | in order per | `data` |", "|---|---|---|---|")
    return "\n".join((*head, *rows)) + "\n"


def event_schema() -> str:
    """JSON schema of the body of every webhook; members that it does not list may be added."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The body of a webhook of Aforo",
        "oneOf": [_schema_of(kind.value, shape) for kind, shape in SHAPES.items()],
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _members(shape: Shape) -> str:
    return ", ".join(f"`{name}`{_note(member)}" for name, member in shape.members.items())


def _note(member: Member) -> str:
    return "?" if member.nullable else ""


def _schema_of(name: str, shape: Shape) -> dict[str, Any]:
    return {
        "title": name,
        "description": shape.description,
        "type": "object",
        "required": ["id", "type", "version", "timestamp", "data"],
        "properties": {
            "id": {"type": "string", "pattern": "^evt_[0-9a-f]{32}$"},
            "type": {"const": name},
            "version": {"const": shape.version},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {
                "type": "object",
                "required": list(shape.members),
                "properties": {
                    member: _member_schema(value) for member, value in shape.members.items()
                },
            },
        },
    }


def _member_schema(member: Member) -> dict[str, Any]:
    form = dict(_FORMS[member.form])
    if member.nullable:
        form["type"] = [form["type"], "null"]
    said = member.description
    if member.kind is not None:
        said = f"{said} The global id of a {member.kind}."
    return form | {"description": said}
