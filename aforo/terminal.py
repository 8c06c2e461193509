"""What the command `aforo` shows: the loaded plugins, and the findings of the doctor."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from aforo.plugins import Registry, Source
from aforo.sdk import Component, settings_form
from aforo.sdk.kinds import KINDS

if TYPE_CHECKING:
    from aforo.doctor import Finding
    from aforo.storage.audit_check import Checked

_DECIMAL_PATTERN = "[0-9]"


def described(registry: Registry) -> list[dict[str, Any]]:
    """Every component as a value for JSON, with the JSON schema of its settings."""
    return [
        {
            "kind": kind,
            "key": component.key,
            "summary": component.summary,
            "distribution": source.distribution,
            "version": source.version,
            "module": source.module,
            "settingsForm": settings_form(component),
        }
        for kind, component, source in _components(registry)
    ]


def plugin_lines(registry: Registry) -> Iterator[str]:
    """Every component under its distribution, each setting on a line."""
    for origin, components in groupby(_components(registry), key=lambda each: _origin(each[2])):
        yield origin
        for kind, component, _ in components:
            form = settings_form(component)
            yield f"  {kind} {component.key}: {component.summary}"
            yield from (f"      {line}" for line in _setting_lines(form, form.get("$defs", {})))
        yield ""


def finding_lines(findings: Sequence["Finding"]) -> Iterator[str]:
    """A line per finding, and below a fault what to do."""
    width = max(len(each.check) for each in findings)
    for each in findings:
        yield f"{'ok   ' if each.ok else 'FAULT'}  {each.check:{width}}  {each.says}"
        if each.advice and not each.ok:
            yield f"{'':5}  {'':{width}}  → {each.advice}"


def audit_lines(found: Sequence["Checked"]) -> Iterator[str]:
    """A line per tenant's chain, and below a fault which entry it is."""
    for each in found:
        told = f"{each.entries} entries, {each.waiting} not sealed yet"
        yield f"{'FAULT' if each.fault else 'ok   '}  {each.tenant_id}  {told}"
        if each.fault:
            yield f"{'':5}  → {each.fault}"
            if each.entry_id:
                yield f"{'':5}    id {each.entry_id}"
    if not found:
        yield "the audit log is empty"


def _components(registry: Registry) -> list[tuple[str, type[Component], Source]]:
    found = [
        (kind.title, component, registry.sources[component])
        for kind in KINDS.values()
        for _, component in sorted(registry.components(kind).items())
    ]
    return sorted(found, key=lambda each: _origin(each[2]))


def _origin(source: Source) -> str:
    if source.distribution is None:
        return source.module
    return f"{source.distribution} {source.version}"


def _setting_lines(form: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[str]:
    properties: Mapping[str, Any] = form.get("properties", {})
    width = max((len(name) for name in properties), default=0)
    for name, schema in properties.items():
        if name in form.get("required", ()):
            need = ", required"
        else:
            need = f", else {_value(schema.get('default'))}"
        note = f"  {schema['description']}" if "description" in schema else ""
        yield f"{name:{width}}  {_type(schema, parts)}{need}.{note}"
        if part := _part(schema, parts):
            yield from (f"    {line}" for line in _setting_lines(part, parts))


def _type(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """What a value looks like, in a word or two."""
    if "$ref" in schema:
        schema = _resolved(schema, parts)
    if "anyOf" in schema:
        return " or ".join(_type(each, parts) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(str(each) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], parts)}"
    if schema.get("type") == "object":
        return str(schema.get("title", "object"))
    if _DECIMAL_PATTERN in schema.get("pattern", ""):
        return "decimal as text"
    kind = str(schema.get("type", "value"))
    return {"string": "text", "boolean": "true or false"}.get(kind, kind)


def _part(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The group of settings that a setting is, or is a list of."""
    options = [schema, schema.get("items", {}), *schema.get("anyOf", ())]
    for each in options:
        if "$ref" in each and "properties" in (found := _resolved(each, parts)):
            return found
    return None


def _resolved(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = parts[schema["$ref"].rpartition("/")[2]]
    return found


def _value(default: object) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)
