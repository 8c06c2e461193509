"""How the schema may change: what breaks a client is declared, and every change is listed."""

from itertools import pairwise
from pathlib import Path

import pytest
from graphql import build_schema, get_introspection_query, graphql_sync
from graphql.utilities import BreakingChangeType, find_breaking_changes

from aforo.api.schema import schema_text
from aforo.api.schema_changes import (
    Severity,
    changelog_page,
    changes_between,
    check_declared,
    in_order,
    undeclared,
)
from aforo.sdk.errors import Invalid

ROOT = Path(__file__).parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
RELEASES = {
    path.stem: path.read_text() for path in sorted(ROOT.glob("docs/schema/releases/*.graphql"))
}

BEFORE = """
directive @gone on FIELD
directive @narrowed(kept: Int, gone: Int) repeatable on FIELD | QUERY
interface Named { name: String }
type Gone { id: ID }
type Kind { id: ID }
type Thing implements Named {
  name: String
  gone: String
  kind: String
  list(gone: Int, kind: Int): Int
}
union Any = Thing | Kind
enum Color { RED, GREEN }
input Filter { color: Color }
type Query {
  thing: Thing
  any: Any
  gone: Gone
  kind: Kind
  find(filter: Filter): Thing
  named: Named
}
"""
AFTER = """
directive @narrowed(kept: Int, needed: Int!) on FIELD
interface Named { name: String }
input Kind { id: ID }
type Other { id: ID }
type Thing { name: String, kind: Int, list(kind: String, needed: Int!): Int }
union Any = Thing | Other
enum Color { RED, BLUE }
input Filter { color: Color, needed: Int!, optional: Int }
type Query {
  thing: Thing
  any: Any
  kind(kind: Kind): Int
  find(filter: Filter): Thing
  named: Named
}
"""
BROKEN = {
    "@gone",
    "@narrowed",
    "@narrowed(gone:)",
    "@narrowed(needed:)",
    "Any",
    "Color.GREEN",
    "Filter.needed",
    "Gone",
    "Kind",
    "Query.gone",
    "Query.kind",
    "Thing",
    "Thing.gone",
    "Thing.kind",
    "Thing.list(gone:)",
    "Thing.list(kind:)",
    "Thing.list(needed:)",
}


def test_the_schema_breaks_no_client_of_the_last_release_without_saying_so() -> None:
    check_declared(RELEASES, schema_text(), CHANGELOG.read_text())


def test_the_page_of_changes_is_that_of_this_code() -> None:
    page = (ROOT / "docs/schema/changelog.md").read_text()
    assert page == changelog_page(RELEASES, schema_text()), "out of date: write it: make schema"


def test_every_release_is_a_schema_and_is_in_the_page() -> None:
    page = (ROOT / "docs/schema/changelog.md").read_text()
    assert RELEASES
    for name, text in RELEASES.items():
        assert f"## {name}\n" in page
        read = graphql_sync(build_schema(text), get_introspection_query())
        assert read.errors is None


def test_every_kind_of_break_is_found_and_named_by_its_place() -> None:
    kinds = {each.type for each in find_breaking_changes(build_schema(BEFORE), build_schema(AFTER))}
    assert kinds == set(BreakingChangeType)
    found = changes_between(BEFORE, AFTER)
    assert {each.coordinate for each in found if each.severity is Severity.BREAKING} == BROKEN
    dangerous = {each.coordinate for each in found if each.severity is Severity.DANGEROUS}
    assert dangerous == {"Any", "Color.BLUE", "Filter.optional", "Query.kind(kind:)"}


def test_a_break_is_declared_by_its_place_above_the_release() -> None:
    found = [each for each in changes_between(BEFORE, AFTER) if each.coordinate == "Thing.gone"]
    assert len(found) == 1
    declared = "## [Unreleased]\n\n### Breaking\n\n- `Thing.gone` is gone; ask for `name`.\n\n"
    before = "## [1.0.0] - 2026-01-01\n\n### Added\n\n- `Thing.gone`\n"
    assert undeclared(found, declared + before, since="1.0.0") == []
    assert undeclared(found, before, since="1.0.0") == found
    for elsewhere in (
        declared.replace("Breaking", "Added"),
        declared.replace("`Thing.gone`", "Thing.gone"),
        declared.replace("`Thing.gone`", "`Thing.gone2`"),
    ):
        assert undeclared(found, elsewhere + before, since="1.0.0") == found
    assert undeclared(found, before + declared, since="1.0.0") == found


def test_what_is_not_declared_is_refused_and_told() -> None:
    with pytest.raises(Invalid, match=r"breaks clients of 1\.10\.0") as refused:
        check_declared({"1.10.0": BEFORE, "1.9.0": AFTER}, AFTER, "## [1.10.0]\n")
    told = refused.value.message.splitlines()
    assert "  - `Thing.gone`: Field Thing.gone was removed." in told
    assert len(told) - 1 == len(
        [each for each in changes_between(BEFORE, AFTER) if each.severity is Severity.BREAKING]
    )
    check_declared({"1.10.0": BEFORE, "1.9.0": AFTER}, BEFORE, "")
    with pytest.raises(Invalid, match="no schema of a release"):
        check_declared({}, AFTER, "")


def test_releases_are_ordered_by_number() -> None:
    assert in_order(dict.fromkeys(("0.10.0", "0.9.1", "1.0.0", "0.9.0"), "")) == [
        "0.9.0",
        "0.9.1",
        "0.10.0",
        "1.0.0",
    ]
    with pytest.raises(Invalid, match="is no version"):
        in_order({"latest": ""})


def test_the_page_goes_from_release_to_release_the_newest_first() -> None:
    page = changelog_page({"0.2.0": AFTER, "0.1.0": BEFORE}, AFTER)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Unreleased", "## 0.2.0", "## 0.1.0"]
    for one, following in pairwise(headings):
        part = page.partition(f"{one}\n")[2].partition(f"{following}\n")[0]
        assert ("Nothing changed." in part) == (one == "## Unreleased")
    assert "- Enum value `Color.GREEN` was removed.\n" in page


def test_words_alone_are_no_change() -> None:
    assert changes_between('type Query { "One." a: Int }', 'type Query { "Two." a: Int }') == []
    with pytest.raises(Invalid, match="this is no GraphQL schema"):
        changes_between("type Query {", "")
