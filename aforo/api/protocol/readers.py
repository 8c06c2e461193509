"""Reads plain attributes of plain objects straight into an answer, where nothing odd can happen.

A reader gives what the executor would give, or raises: then the executor does that part itself,
and words the errors. Nothing that a reader does can be seen from outside, so it may be done twice.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLID,
    GraphQLInterfaceType,
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLString,
    GraphQLUnionType,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE
from strawberry.types.field import StrawberryField

Reader = Callable[[Any], Any]
"""What stands in the answer for a value. Raises where the executor has to look itself."""

# Exact types whose values are neither awaitable nor an exception, nor change when looked at.
_PLAIN = frozenset({str, int, float, bool, Decimal, datetime, date, UUID, dict, list, tuple})
_AS_THEY_ARE: dict[GraphQLLeafType, type] = {
    GraphQLString: str,
    GraphQLID: str,
    GraphQLBoolean: bool,
}


# By reader: the exact types whose values it gives back as they are.
_UNCHANGED: WeakKeyDictionary[Reader, frozenset[type]] = WeakKeyDictionary()
_NOTHING: frozenset[type] = frozenset()

ODD: Final = object()
"""Stands for what only the executor knows how to treat."""


class Odd(Exception):
    """A value that only the executor knows how to treat."""


def attempt(reader: Reader, value: Any, attribute: str | None = None) -> Any:
    """What is read of a value, or of its attribute; `ODD` if anything is unusual about it."""
    try:
        return reader(value if attribute is None else getattr(value, attribute))
    except Exception:  # noqa: BLE001 — whatever it is, the executor comes upon it again.
        return ODD


def attribute_of(field: GraphQLField) -> str | None:
    """The attribute that a field reads and does nothing else; None for every other field."""
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryField) or not definition.is_basic_field:
        return None
    # With exception handlers even a basic field has a resolver of another kind.
    is_basic = getattr(field.resolve, "__name__", "") == "_get_basic_result"
    reads = definition.default_resolver is getattr and not definition.is_subscription
    return definition.python_name if is_basic and reads and not field.args else None


def origin_of(kind: GraphQLObjectType) -> type | None:
    """The one class whose instances are sure to be of this type; None where that is not said."""
    definition = kind.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not isinstance(definition, StrawberryObjectDefinition) or definition.is_type_of:
        return None
    origin = (definition.concrete_of or definition).origin
    odd = issubclass(origin, BaseException) or hasattr(origin, "__await__")
    return None if odd else origin


def members_of(
    schema: GraphQLSchema, kind: GraphQLInterfaceType | GraphQLUnionType
) -> Mapping[type, GraphQLObjectType]:
    """The types that an abstract one can turn out to be, by the class that says so.

    Without the generic ones: of those an instance's values have to be looked at.
    """
    backref = kind.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if isinstance(backref, StrawberryObjectDefinition) and backref.resolve_type:
        return {}
    members = {}
    for member in schema.get_possible_types(kind):
        definition = member.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        origin = origin_of(member)
        if origin is None or definition is None or definition.concrete_of is not None:
            continue
        if definition.name == member.name:  # The executor goes by the former.
            members[origin] = member
    return members


def leaf_reader(kind: GraphQLLeafType) -> Reader:
    """A reader of a scalar or an enum."""
    if isinstance(kind, GraphQLEnumType):
        return _enum_reader(kind)
    unchanged, coerce = _AS_THEY_ARE.get(kind), kind.coerce_output_value

    def read(value: Any) -> Any:
        found = type(value)
        if found is unchanged:
            return value
        if found not in _PLAIN:
            raise Odd
        shown = coerce(value)
        if type(shown) not in _PLAIN:
            raise Odd
        return shown

    if unchanged is not None:
        _UNCHANGED[read] = frozenset({unchanged})
    return read


def _enum_reader(kind: GraphQLEnumType) -> Reader:
    wrapped = getattr(kind, "wrapped_cls", None)
    if not isinstance(wrapped, type) or not issubclass(wrapped, Enum):
        return _odd
    names = {
        member: name
        for name, each in kind.values.items()
        for member in wrapped
        if member.value == each.value
    }

    def read(value: Any) -> Any:
        if type(value) is not wrapped:
            raise Odd
        return names[value]

    return read


def object_reader(kind: GraphQLObjectType, fields: Sequence[tuple[str, str, Reader]]) -> Reader:
    """A reader of an object: of each field its name in the answer, its attribute, its reader."""
    origin = origin_of(kind)
    if origin is None:
        return _odd
    listed = [(*field, _UNCHANGED.get(field[2], _NOTHING)) for field in fields]
    # `strawberry.cast` says otherwise than the class; only types with interfaces heed it.
    heeds_casts = kind.is_type_of is not None

    def read(source: Any) -> Any:
        if type(source) is not origin or (heeds_casts and hasattr(source, TYPE_CAST_ATTRIBUTE)):
            raise Odd
        shown = {}
        for name, attribute, reader, unchanged in listed:
            value = getattr(source, attribute)
            # Most fields are text: for those a look at the type is all that there is to do.
            shown[name] = value if type(value) in unchanged else reader(value)
        return shown

    return read


def abstract_reader(readers: Mapping[type, Reader]) -> Reader:
    """A reader of an interface or a union, by the class of what is found."""

    def read(value: Any) -> Any:
        if hasattr(value, TYPE_CAST_ATTRIBUTE):
            raise Odd
        return readers[type(value)](value)

    return read


def list_reader(item: Reader) -> Reader:
    """A reader of a list; of lists and tuples alone, which can be gone through twice."""

    def read(value: Any) -> Any:
        if type(value) is not list and type(value) is not tuple:
            raise Odd
        return [item(each) for each in value]

    return read


def or_null(reader: Reader) -> Reader:
    """A reader that passes None on. (All others raise for it.)"""

    def read(value: Any) -> Any:
        return None if value is None else reader(value)

    if reader in _UNCHANGED:
        _UNCHANGED[read] = _UNCHANGED[reader] | {type(None)}
    return read


def constant(value: str) -> Reader:
    """A reader that gives the same whatever is read."""
    return lambda _value: value


def unwrapped(kind: GraphQLOutputType) -> tuple[GraphQLOutputType, bool]:
    """A type without its `!`, and whether null is allowed."""
    if isinstance(kind, GraphQLNonNull):
        return kind.of_type, False
    return kind, True


def _odd(_value: Any) -> Any:
    raise Odd
