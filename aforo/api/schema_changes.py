"""What changed between two schemas, how much it may break, and the page that lists it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from graphql import GraphQLError, GraphQLSchema, build_schema
from graphql.utilities import (
    BreakingChange,
    DangerousChange,
    SafeChangeType,
    SchemaChange,
    find_schema_changes,
)

from aforo.sdk.errors import Invalid

UNRELEASED = "Unreleased"


class Severity(StrEnum):
    """What a change may do to a client that was written for the schema before."""

    BREAKING = "Breaking"
    DANGEROUS = "Dangerous"
    SAFE = "Safe"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change, and the place of the schema that it is about."""

    coordinate: str
    words: str
    severity: Severity


def changes_between(old: str, new: str) -> list[Change]:
    """The changes from one schema to another, but for those of descriptions, in order of place.

    Raises: `Invalid` where a text is no schema.
    """
    found = find_schema_changes(_schema(old), _schema(new))
    told = [each for each in found if each.type is not SafeChangeType.DESCRIPTION_CHANGED]
    return sorted({Change(_coordinate(each), each.description, _severity(each)) for each in told})


def undeclared(changes: Sequence[Change], changelog: str, *, since: str) -> list[Change]:
    """Breaking changes that the changelog does not name above the release `since`.

    They are declared by their coordinate, such as `Customer.name`, in a list under the heading
    "Breaking".
    """
    recent = re.split(rf"^## \[{re.escape(since)}\]", changelog, maxsplit=1, flags=re.MULTILINE)[0]
    sections = re.findall(r"^### Breaking\n(.*?)(?=^##|\Z)", recent, re.MULTILINE | re.DOTALL)
    declared = {name for section in sections for name in re.findall(r"`([^`]+)`", section)}
    breaking = [each for each in changes if each.severity is Severity.BREAKING]
    return [each for each in breaking if each.coordinate not in declared]


def check_declared(releases: Mapping[str, str], current: str, changelog: str) -> None:
    """Raise `Invalid` where the code breaks the last release and the changelog does not say so."""
    if not releases:
        raise Invalid("there is no schema of a release to compare with")
    last = in_order(releases)[-1]
    missing = undeclared(changes_between(releases[last], current), changelog, since=last)
    if missing:
        told = "\n".join(f"  - `{each.coordinate}`: {each.words}" for each in missing)
        raise Invalid(
            f"the schema breaks clients of {last}, and the changelog does not say so: keep what "
            f"was there, or name each under the heading `### Breaking`\n{told}"
        )


def in_order(releases: Mapping[str, str]) -> list[str]:
    """The versions of releases, the oldest first. Raises `Invalid` for what is no version."""
    return sorted(releases, key=_numbers)


def changelog_page(releases: Mapping[str, str], current: str) -> str:
    """The page of all changes, from release to release and up to now, the newest first."""
    ordered = in_order(releases)
    texts = [*(releases[name] for name in ordered), current]
    sections = [
        _section(name, changes_between(old, new))
        for name, old, new in zip([*ordered[1:], UNRELEASED], texts, texts[1:], strict=False)
    ]
    first = f"## {ordered[0]}\n\nThe first release.\n"
    return "\n".join([_HEAD, *reversed(sections), first])


def report(changes: Sequence[Change]) -> list[str]:
    """Lines that list changes by severity, the worst first."""
    lines = []
    for severity in Severity:
        told = [
            f"- {each.words.replace(each.coordinate, f'`{each.coordinate}`', 1)}"
            for each in changes
            if each.severity is severity
        ]
        if told:
            lines += [f"### {severity}", "", *told, ""]
    return lines


_HEAD = """# Changes of the schema

Written by `make schema` from the schemas of the releases in `docs/schema/releases` and that of the
code; changes of descriptions are left out. **Breaking** changes can make a document of a client
invalid, **dangerous** ones can surprise a client that was valid before (such as a new value of an
enum), **safe** ones do neither.
"""


def _section(name: str, changes: Sequence[Change]) -> str:
    return "\n".join([f"## {name}", "", *(report(changes) or ["Nothing changed.", ""])])


def _severity(change: SchemaChange) -> Severity:
    if isinstance(change, BreakingChange):
        return Severity.BREAKING
    return Severity.DANGEROUS if isinstance(change, DangerousChange) else Severity.SAFE


_PLACE = r"@?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?(?:\(\w+:\))?"
_OF_ANOTHER = re.compile(
    # What is named first is a member, an interface, or a location of what is meant.
    rf"^.*? (?:union type|interfaces implemented by|(?:removed from|added to)) ({_PLACE})\.$"
)
_ITSELF = re.compile(
    rf"^(?:(?:A required|An optional) (?:field|argument) |Field |Argument |Directive |Enum value "
    rf"|Standard scalar )?({_PLACE})"
)


def _coordinate(change: SchemaChange) -> str:
    """The place that a change's sentence is about: the library has it in no other form."""
    match = _OF_ANOTHER.match(change.description) or _ITSELF.match(change.description)
    assert match is not None, f"a change in words that are not known: {change.description}"
    return match[1]


def _schema(text: str) -> GraphQLSchema:
    try:
        return build_schema(text)
    except GraphQLError as error:
        raise Invalid(f"this is no GraphQL schema: {error.message}") from error


def _numbers(name: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", name):
        raise Invalid(f"{name} is no version such as 1.2.0")
    return tuple(int(part) for part in name.split("."))
