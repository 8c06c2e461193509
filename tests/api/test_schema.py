"""What the published schema promises: words for everything, problems where they can occur."""

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLUnionType,
    get_named_type,
    validate_schema,
)

from aforo.api.parts import relay
from aforo.api.schema import schema_text
from aforo.storage.listing import PAGE_DEFAULT
from tests.api.walk import SCHEMA, root_fields, slots

TYPES = {
    name: kind
    for name, kind in SCHEMA.type_map.items()
    if not name.startswith("__") and name not in {"String", "Int", "Boolean", "ID"}
}
MUTATIONS = [name for operation, name, _ in root_fields() if operation == "mutation"]


def _undescribed(kind: GraphQLNamedType) -> list[str]:
    parts: dict[str, str | None] = {"": kind.description}
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        for name, field in kind.fields.items():
            parts[name] = field.description
            parts |= {f"{name}({one})": each.description for one, each in field.args.items()}
    elif isinstance(kind, GraphQLInputObjectType):
        parts |= {name: field.description for name, field in kind.fields.items()}
    elif isinstance(kind, GraphQLEnumType):
        parts |= {name: value.description for name, value in kind.values.items()}
    return [name for name, description in parts.items() if not (description or "").strip()]


def test_the_schema_is_valid() -> None:
    assert validate_schema(SCHEMA) == []


@pytest.mark.parametrize("name", sorted(TYPES))
def test_everything_has_a_description(name: str) -> None:
    assert _undescribed(TYPES[name]) == []


@pytest.mark.parametrize("name", sorted(TYPES))
def test_there_is_no_float_anywhere(name: str) -> None:
    kind = TYPES[name]
    assert name != "Float"
    if isinstance(kind, GraphQLScalarType):
        assert kind.specified_by_url


def _members(mutation: str) -> set[str]:
    kind = get_named_type(_field(mutation).type)
    assert isinstance(kind, GraphQLUnionType)
    return {member.name for member in kind.types}


def _field(mutation: str) -> GraphQLField:
    assert SCHEMA.mutation_type is not None
    return SCHEMA.mutation_type.fields[mutation]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_takes_one_input_and_gives_a_thing_or_its_problems(mutation: str) -> None:
    kind = f"{mutation[0].upper()}{mutation[1:]}"
    assert {name: str(each.type) for name, each in _field(mutation).args.items()} == {
        "input": f"{kind}Input!"
    }
    assert str(_field(mutation).type) == f"{kind}Result!"
    members = _members(mutation)
    assert "InvalidProblem" in members
    assert len([name for name in members if not name.endswith("Problem")]) == 1


@pytest.mark.parametrize("mutation", sorted({slot.field for slot in slots()} & set(MUTATIONS)))
def test_a_mutation_that_is_given_an_id_can_say_that_there_is_none(mutation: str) -> None:
    assert "NotFoundProblem" in _members(mutation)


def test_every_node_can_be_found_by_its_id() -> None:
    node = SCHEMA.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    nodes = {kind.name for kind in SCHEMA.get_possible_types(node)}
    assert nodes == {kind.__name__ for kind in relay.node_types()}


def test_nodes_come_in_pages_with_a_size_that_is_stated() -> None:
    node = SCHEMA.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    nodes = {"Node", *(kind.name for kind in SCHEMA.get_possible_types(node))}
    pages = 0
    for kind in TYPES.values():
        if not isinstance(kind, GraphQLObjectType):
            continue
        for name, field in kind.fields.items():
            if get_named_type(field.type).name.endswith("Connection"):
                assert {"first", "after"} <= field.args.keys(), f"{kind.name}.{name}"
                pages += 1
            elif kind is SCHEMA.query_type and str(field.type).startswith("["):
                assert name == "nodes" or get_named_type(field.type).name not in nodes, name
    assert schema_text().count(f"first: Int = {PAGE_DEFAULT}") == pages
