"""What a document may ask for, and how long it takes to say no."""

import time

import pytest
from graphql import get_introspection_query

from aforo.api.protocol.cost import COST_MAX
from aforo.api.protocol.documents import (
    CACHED_CHARACTERS_MAX,
    CACHED_DOCUMENT_CHARACTERS_MAX,
    DocumentRefused,
    Documents,
    Request,
)
from aforo.api.protocol.errors import format_errors
from aforo.api.protocol.limits import (
    ALIASES_MAX,
    CHARACTERS_MAX,
    DEFINITIONS_MAX,
    DEPTH_MAX,
    DIRECTIVES_MAX,
    DIRECTIVES_OF_ONE_MAX,
    FIELDS_MAX,
    NAME_CHARACTERS_MAX,
    SPREADS_MAX,
    TOKENS_MAX,
)
from tests.api.small import schema


def _code(query: str, *, introspection: bool = True, **variables: object) -> str | None:
    documents = Documents(schema, introspection=introspection)
    try:
        documents.prepare(Request(query, variables, None))
    except DocumentRefused as refused:
        return refused.code
    return None


def _nested(levels: int) -> str:
    return "{ " + "item { " * (levels - 1) + "name" + " }" * levels


def test_fields_are_nested_ten_deep_at_most() -> None:
    assert _code(_nested(DEPTH_MAX)) is None
    assert _code(_nested(DEPTH_MAX + 1)) == "LIMIT_EXCEEDED"


def test_depth_counts_through_fragments() -> None:
    half = "item { " * 5
    document = f"{{ {half} ...F {'}' * 5} }} fragment F on Item {{ {half} name {'}' * 5} }}"
    assert _code(document) == "LIMIT_EXCEEDED"


def test_introspection_has_a_limit_of_its_own_that_the_tools_stay_below() -> None:
    assert _code(get_introspection_query()) is None
    types = "type { ofType { ofType { ofType { ofType { ofType { ofType { ofType { name"
    deep = "{ __schema { types { fields { args { " + types
    assert _code(deep + " }" * deep.count("{")) is None
    deeper = deep.replace("ofType { name", "ofType { ofType { ofType { ofType { ofType { name")
    assert _code(deeper + " }" * deeper.count("{")) == "LIMIT_EXCEEDED"


def test_aliases_count_as_often_as_their_fragment_is_spread() -> None:
    aliases = " ".join(f"a{number}: name" for number in range(ALIASES_MAX))
    assert _code(f"{{ item {{ {aliases} }} }}") is None
    assert _code(f"{{ item {{ {aliases} b: name }} }}") == "LIMIT_EXCEEDED"
    half = " ".join(f"a{number}: name" for number in range(ALIASES_MAX // 2 + 1))
    spread = f"{{ item {{ ...F item {{ ...F }} }} }} fragment F on Item {{ {half} }}"
    assert _code(spread) == "LIMIT_EXCEEDED"


def test_the_document_itself_is_bounded() -> None:
    different = [f"field{number}" for number in range(FIELDS_MAX + 1)]
    assert _code(f"{{ {' '.join(different[1:])} }}") == "GRAPHQL_VALIDATION_FAILED"
    assert _code(f"{{ {' '.join(different)} }}") == "LIMIT_EXCEEDED"
    skips = "@skip(if: false) "
    assert _code("{ hello " + skips * DIRECTIVES_OF_ONE_MAX + "}") == "GRAPHQL_VALIDATION_FAILED"
    assert _code("{ hello " + skips * (DIRECTIVES_OF_ONE_MAX + 1) + "}") == "LIMIT_EXCEEDED"
    assert _code("{ " + f"hello {skips} " * DIRECTIVES_MAX + "}") is None
    assert _code("{ " + f"hello {skips} " * (DIRECTIVES_MAX + 1) + "}") == "LIMIT_EXCEEDED"
    many = " ".join(f"query Q{number} {{ hello }}" for number in range(DEFINITIONS_MAX + 1))
    assert _code(many) == "LIMIT_EXCEEDED"
    for spreads, code in ((SPREADS_MAX, None), (SPREADS_MAX + 1, "LIMIT_EXCEEDED")):
        assert _code("{ " + "...F " * spreads + "} fragment F on Query { hello }") == code
    assert _code("{ hello }".ljust(CHARACTERS_MAX)) is None
    assert _code("{ hello }".ljust(CHARACTERS_MAX + 1)) == "LIMIT_EXCEEDED"
    assert _code("{ hello " * TOKENS_MAX + "}" * TOKENS_MAX) == "GRAPHQL_PARSE_FAILED"
    assert _code("#\n" * (TOKENS_MAX + 1) + "{ hello }") == "GRAPHQL_PARSE_FAILED"


def test_a_field_is_not_asked_for_again_and_again() -> None:
    assert _code("{ " + "hello " * 141 + "}") is None
    assert _code("{ " + "hello " * 142 + "}") == "LIMIT_EXCEEDED"
    spread = "".join(f"fragment F{number} on Query {{ {'hello ' * 4} }} " for number in range(40))
    everywhere = "{ " + " ".join(f"...F{number}" for number in range(40)) + " } "
    assert _code(everywhere + spread) == "LIMIT_EXCEEDED"


def test_an_alias_cannot_make_the_answer_long() -> None:
    assert _code(f"{{ {'a' * NAME_CHARACTERS_MAX}: hello }}") is None
    assert _code(f"{{ {'a' * (NAME_CHARACTERS_MAX + 1)}: hello }}") == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("document", "name", "asked", "maximum"),
    [
        ("{ " + "hello " * TOKENS_MAX + "}", "tokens", TOKENS_MAX + 1, TOKENS_MAX),
        (_nested(DEPTH_MAX + 2), "levels of fields", DEPTH_MAX + 2, DEPTH_MAX),
        (
            "{ " + " ".join(f"a{n}: hello" for n in range(33)) + " }",
            "aliases",
            33,
            ALIASES_MAX,
        ),
        (
            "{ hello" + " @skip(if: false)" * (DIRECTIVES_OF_ONE_MAX + 2) + " }",
            "directives on one field",
            DIRECTIVES_OF_ONE_MAX + 2,
            DIRECTIVES_OF_ONE_MAX,
        ),
        (
            "{ " + "hello @skip(if: false) @include(if: true) " * 20 + " }",
            "directives",
            40,
            DIRECTIVES_MAX,
        ),
        (
            "{ items(first: 100) { edges { node {"
            + " ".join(f"a{n}: item {{ name }}" for n in range(10))
            + " } } } }",
            "points of cost",
            1_101,
            COST_MAX,
        ),
        ("{ " + "a" * 200 + ": hello }", "characters in a name", 200, NAME_CHARACTERS_MAX),
    ],
)
def test_an_error_names_the_limit_and_what_was_asked_for(
    document: str, name: str, asked: int, maximum: int
) -> None:
    with pytest.raises(DocumentRefused) as refused:
        Documents(schema, introspection=True).prepare(Request(document, {}, None))
    [error] = format_errors(refused.value.errors, request_id="r", code=refused.value.code)
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "limit": {"name": name, "asked": asked, "maximum": maximum},
    }
    assert error["message"].startswith(f"{name}: {asked:,} asked for, at most {maximum:,} allowed")


def test_a_cost_is_remembered_for_so_many_sizes_and_right_for_all() -> None:
    documents = Documents(schema, introspection=True)
    query = "query($n: Int, $m: Int) { items(first: $n) { edges { node { name } } } "
    query += "b: items(first: $m) { edges { node { name } } } }"
    for number in (*range(1, 40), *range(1, 40)):
        prepared = documents.prepare(Request(query, {"n": number, "m": 2}, None))
        assert prepared.cost == (1 + number) + (1 + 2)
    assert documents.prepare(Request("{ __typename }", {}, None)).cost == 1


def test_a_connection_costs_its_page_times_one_item() -> None:
    page = "{ items(first: %s) { edges { node { name item { item { name } } } } } }"
    assert _code(page % 100) is None  # 1 + 100 x 3
    aliased = " ".join(f"a{n}: item {{ name }}" for n in range(10))
    wide = f"query($n: Int) {{ items(first: $n) {{ edges {{ node {{ {aliased} }} }} }} }}"
    assert COST_MAX == 1_000
    assert _code(wide, n=90) is None  # 1 + 90 x 11 = 991
    assert _code(wide, n=91) == "LIMIT_EXCEEDED"
    assert _code(wide, n=100_000) == "LIMIT_EXCEEDED"
    assert _code(wide) is None  # Pages are of 20 where nobody says.
    assert _code(wide.replace("$n: Int", "$n: Int = 100")) == "LIMIT_EXCEEDED"
    assert _code(wide.replace("$n: Int", "$n: Int = 100"), n=1) is None
    written = wide.replace("$n)", "2000000000)").replace("($n: Int)", "")
    assert _code(written) == "LIMIT_EXCEEDED"


def test_pages_within_pages_multiply_also_through_fragments() -> None:
    twice = "{ a: items(first: 100) { ...F } b: items(first: 100) { ...F } } "
    fragment = "fragment F on ItemConnection { edges { node { item { item { item { item { name"
    fragment += " }" * fragment.count("{")
    assert _code(twice + fragment) == "LIMIT_EXCEEDED"


def test_text_with_a_nul_is_refused_where_it_stands_in_the_document() -> None:
    assert _code('{ hello(name: "a\\u0000") }') == "BAD_TEXT"
    assert _code('{ hello(name: "a\\u{0}") }') == "BAD_TEXT"
    assert _code('{ echo(value: {a: ["\\u0000"]}) }') == "BAD_TEXT"


def test_what_was_valid_is_remembered_and_what_was_not_is_judged_again() -> None:
    documents = Documents(schema, introspection=True)
    first = documents.prepare(Request("{ hello }", {}, None))
    assert documents.prepare(Request("{ hello }", {}, None)).document is first.document
    for _ in range(2):
        with pytest.raises(DocumentRefused):
            documents.prepare(Request("{ nothing }", {}, None))


def test_documents_are_forgotten_before_they_fill_the_memory() -> None:
    documents = Documents(schema, introspection=True)
    for number in range(60):
        text = f"# {number} " + "x" * (CACHED_DOCUMENT_CHARACTERS_MAX - 100) + "\n{ hello }"
        document = documents.prepare(Request(text, {}, None)).document
        assert documents.prepare(Request(text, {}, None)).document is document
        assert documents.remembered_characters <= CACHED_CHARACTERS_MAX
    longer = "#" + "x" * CACHED_DOCUMENT_CHARACTERS_MAX + "\n{ hello }"
    first, again = [documents.prepare(Request(longer, {}, None)).document for _ in range(2)]
    assert first is not again


def _doubling(levels: int) -> str:
    fragments = [
        f"fragment F{n} on Item {{ item {{ ...F{n + 1} ...F{n + 1} }} }}" for n in range(levels)
    ]
    return "{ item { ...F0 } } " + " ".join(fragments) + f" fragment F{levels} on Item {{ name }}"


ATTACKS = {
    "doubling fragments": _doubling(40),
    "doubling fragments within the depth": _doubling(8),
    "a circle of fragments": "{ item { ...A } } fragment A on Item { ...B } "
    "fragment B on Item { ...A item { ...A ...B } }",
    "one field many times": "{ " + "hello " * FIELDS_MAX + "}",
    "one object many times": "{ " + "item { name } " * (FIELDS_MAX // 2) + "}",
    "conflicting aliases": "{ item { " + "a: name a: __typename " * 100 + "} }",
    "deep inline fragments": "{ " + "... { " * 900 + "hello" + " }" * 900 + " }",
    "deep lists": "{ echo(value: " + "[" * 1_500 + "]" * 1_500 + ") }",
    "many variables": "query("
    + " ".join(f"$v{n}: Int" for n in range(600))
    + ") { "
    + " ".join(f"i{n}: items(first: $v{n}) {{ edges {{ node {{ name }} }} }}" for n in range(25))
    + " }",
    "fragments that spread each other": "{ item { ...F0 } } "
    + " ".join(
        f"fragment F{n} on Item {{ " + " ".join(f"...F{m}" for m in range(n + 1, 45)) + " name }"
        for n in range(45)
    ),
    "long comments": "#" + "x" * 900_000 + "\n{ hello }",
    "a long string": '{ hello(name: "' + "x" * 900_000 + '") }',
    "a long number": "{ twice(value: " + "9" * 900_000 + ") }",
    "fragments with the same fields": "{ item { "
    + " ".join(f"...F{n}" for n in range(45))
    + " } } "
    + " ".join(f"fragment F{n} on Item {{ item {{ name }} name }}" for n in range(45)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_judged_quickly(attack: str) -> None:
    started = time.process_time()
    _code(ATTACKS[attack])
    assert time.process_time() - started < 5
