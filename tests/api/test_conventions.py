"""The convention of the schema's names: what a thing is called says what it is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_specified_scalar_type,
)

from tests.api.walk import SCHEMA

VERBS = {
    "amend": "another event in the place of one",
    "change": "another role for a member, or another password",
    "close": "a thing that is whole, and takes effect",
    "correct": "other values beside those that were sent, which stay",
    "create": "a new thing",
    "delete": "the end of a thing that leaves no trace",
    "disable": "a stop that can be taken back",
    "discard": "things that are never to count, which stay to be read",
    "enable": "work of a thing that had been stopped",
    "end": "the end of what has run",
    "grant": "value given",
    "ingest": "usage events, each of which is taken or not for itself",
    "invite": "a person who is not there yet",
    "register": "something that exists elsewhere",
    "release": "who, or what, was held back",
    "remove": "a person or a part of a thing",
    "replay": "many messages once more",
    "resend": "the same message once more",
    "revert": "what was done, so that it counts no more",
    "revoke": "an end at once",
    "rotate": "a new secret in place of an old one",
    "send": "a message to somebody outside",
    "set": "the one value of its kind, whether there was one or not",
    "start": "work that goes on after the answer",
    "upload": "many things that a program made, all of them or none",
    "update": "other values for a thing that stays the same",
    "void": "events that are to count no more",
}
"""What a mutation may begin with; a synonym of one of them may not."""

BOUND = re.compile(r"(^|[a-z])(since|From|To|until|Until|start|Start|end|End)$|^asOf$")
"""The names of moments that bound a period; all other moments are `…At`."""

NOT_GLOBAL = {
    "Customer.externalId": "the tenant's own id of it",
    "CreateCustomerInput.externalId": "the tenant's own id of it",
    "Query.customer(externalId:)": "the tenant's own id of it",
    "CustomerAlias.externalId": "another one of it",
    "RegisterCustomerAliasInput.externalId": "another one of it",
    "ApiKey.publicId": "a part of its token",
    "AuditEntry.requestId": "as the log and the header `X-Request-Id` have it",
    "IdentityProvider.clientId": "OpenID's own word",
    "SetIdentityProviderInput.clientId": "OpenID's own word",
    "WebhookDelivery.eventId": "what receivers know the event by",
}
"""Names that end in `Id` and are no global ids."""

A_HASH = re.compile(r"PersistedDocument\w*\.documentIds?$")
"""The id of a document is its hash, or a name of the client's."""

MAY_HAVE_GAPS = {
    "Invoice.paymentInstructions": "null as a whole where there is no way to pay",
    "UsagePropertyInput.values": "null stands for events without the property",
    "Query.nodes": "Relay's own: what is not there is null in its place",
}


@dataclass(frozen=True)
class Slot:
    """A field, an argument or a field of an input, with its type."""

    place: str
    name: str
    type: GraphQLOutputType | GraphQLInputType
    deprecation: str | None

    @property
    def kind(self) -> str:
        return get_named_type(self.type).name


def kinds(schema: GraphQLSchema) -> list[GraphQLNamedType]:
    """The types that are ours."""
    return [
        kind
        for name, kind in sorted(schema.type_map.items())
        if not name.startswith("__") and not is_specified_scalar_type(kind)
    ]


def slots(schema: GraphQLSchema) -> Iterator[Slot]:
    for kind in kinds(schema):
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in kind.fields.items():
                place = f"{kind.name}.{name}"
                yield Slot(place, name, field.type, field.deprecation_reason)
                for own, argument in field.args.items():
                    reason = argument.deprecation_reason
                    yield Slot(f"{place}({own}:)", own, argument.type, reason)
        elif isinstance(kind, GraphQLInputObjectType):
            for name, each in kind.fields.items():
                yield Slot(f"{kind.name}.{name}", name, each.type, each.deprecation_reason)


SLOTS = list(slots(SCHEMA))
OBJECTS = [kind for kind in kinds(SCHEMA) if isinstance(kind, GraphQLObjectType)]


def odd(names: Iterator[str], form: str) -> list[str]:
    return [name for name in names if not re.fullmatch(form, name)]


def test_there_is_a_schema_to_look_at() -> None:
    assert len(SLOTS) > 400
    assert {"Query.node(id:)", "CreateMeterInput.code", "Meter.code"} <= {
        slot.place for slot in SLOTS
    }


def test_names_are_written_as_everywhere_in_graphql() -> None:
    values = (
        value
        for kind in kinds(SCHEMA)
        if isinstance(kind, GraphQLEnumType)
        for value in kind.values
    )
    assert odd((kind.name for kind in kinds(SCHEMA)), r"([A-Z][a-z0-9]*)+|JSON") == []
    assert odd((slot.name for slot in SLOTS), r"[a-z][a-z0-9]*([A-Z][a-z0-9]*)*") == []
    assert odd(values, r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*") == []


def test_the_end_of_a_types_name_says_what_the_type_is() -> None:
    for kind in kinds(SCHEMA):
        name = kind.name
        fields = getattr(kind, "fields", {})
        assert name.endswith("Input") == isinstance(kind, GraphQLInputObjectType), name
        assert name.endswith("Result") == isinstance(kind, GraphQLUnionType), name
        assert name.endswith("Connection") == ({"edges", "pageInfo"} <= fields.keys()), name
        assert name.endswith("Edge") == ({"cursor", "node"} <= fields.keys()), name
        problem = {"code", "message", "field"} <= fields.keys()
        assert name.endswith("Problem") == problem, name


def test_a_connection_is_of_the_edges_of_the_type_that_it_is_named_for() -> None:
    for kind in OBJECTS:
        if kind.name.endswith("Connection"):
            item = kind.name.removesuffix("Connection")
            assert str(kind.fields["edges"].type) == f"[{item}Edge!]!"
            edge = SCHEMA.type_map[f"{item}Edge"]
            assert isinstance(edge, GraphQLObjectType)
            assert str(edge.fields["node"].type) == f"{item}!"
            assert str(edge.fields["cursor"].type) == "String!"


def test_a_mutation_begins_with_a_verb_of_the_list() -> None:
    assert SCHEMA.mutation_type is not None
    used = {re.split(r"(?=[A-Z])", name)[0] for name in SCHEMA.mutation_type.fields}
    assert used == VERBS.keys()


def test_moments_end_in_at_and_the_bounds_of_a_period_are_named_for_it() -> None:
    wrong = [
        slot.place
        for slot in SLOTS
        if (slot.kind == "DateTime") != bool(re.search(r"(^at|At)$", slot.name))
        and not (slot.kind == "DateTime" and BOUND.search(slot.name))
    ]
    assert wrong == []


def test_ids_end_in_id_and_what_ends_in_id_is_one() -> None:
    named = re.compile(r"^ids?$|Ids?$")
    wrong = {slot.place for slot in SLOTS if (slot.kind == "ID") != bool(named.search(slot.name))}
    assert wrong - {place for place in wrong if A_HASH.search(place)} == set(NOT_GLOBAL)


def test_no_amount_is_a_float_and_every_amount_is_exact() -> None:
    money = re.compile(r"(amount|price|cost|fee|total|balance|tax|revenue)$", re.IGNORECASE)
    assert "Float" not in {slot.kind for slot in SLOTS}
    amounts = [slot for slot in SLOTS if money.search(slot.name)]
    assert len(amounts) > 10
    assert [slot.place for slot in amounts if slot.kind in {"Int", "BigInt", "String"}] == []


def test_a_list_is_never_null_and_has_no_gaps() -> None:
    lists = {slot.place: str(slot.type) for slot in SLOTS if "[" in str(slot.type)}
    assert len(lists) > 20
    # An input that may be left out is null, or an empty list by default.
    gaps = {
        place: text
        for place, text in lists.items()
        if not re.fullmatch(r"\[\w+!\]!", text)
        and not ("Input." in place and re.fullmatch(r"\[\w+!\]", text))
    }
    assert gaps.keys() == MAY_HAVE_GAPS.keys()


# What is to go.

DEPRECATION = re.compile(r".+, since \d{4}-\d{2}-\d{2}, use (?P<use>\w+(\.\w+)?)")


def deprecation_faults(schema: GraphQLSchema) -> list[str]:
    """Deprecations that do not say why, since when, and what takes the place."""
    places = {slot.place for slot in slots(schema)} | schema.type_map.keys()
    faults = []
    told = [(slot.place, slot.deprecation) for slot in slots(schema)]
    for kind in kinds(schema):
        if isinstance(kind, GraphQLEnumType):
            values = {f"{kind.name}.{name}": value for name, value in kind.values.items()}
            places |= values.keys()
            told += [(place, value.deprecation_reason) for place, value in values.items()]
    for place, reason in told:
        if reason is not None:
            match = DEPRECATION.fullmatch(reason)
            owner = place.partition(".")[0]
            if match is None or not {match["use"], f"{owner}.{match['use']}"} & places:
                faults.append(place)
    return faults


def test_what_is_deprecated_says_why_since_when_and_what_to_use() -> None:
    assert deprecation_faults(SCHEMA) == []


@pytest.mark.parametrize(
    ("reason", "is_good"),
    [
        ("It was never exact, since 2026-11-25, use total", True),
        ("It was never exact, since 2026-11-25, use Other.amount", True),
        ("It was never exact, since 2026-11-25, use nothing", False),
        ("It was never exact, since 2026-11-25", False),
        ("It was never exact, use total", False),
        ("since 2026-11-25, use total", False),
        ("No longer supported", False),
    ],
)
def test_the_form_of_a_deprecation_is_looked_at(reason: str, *, is_good: bool) -> None:
    schema = build_schema(
        f"""
        type Query {{ sum: Int @deprecated(reason: "{reason}") total(a: Int): Int other: Other }}
        type Other {{ amount: Int }}
        """
    )
    assert deprecation_faults(schema) == ([] if is_good else ["Query.sum"])
    assert deprecation_faults(
        build_schema(
            "type Query { color: Color } enum Color { RED "
            f'BLUE @deprecated(reason: "{reason.replace("total", "RED")}") }} '
            "type Other { amount: Int }"
        )
    ) == ([] if is_good else ["Color.BLUE"])
