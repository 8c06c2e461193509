"""The executor of operations: graphql-core's own, which reads plain attributes directly.

graphql-core spends about three microseconds on a field, whatever it is: a path, a resolver with
its info, a chain of calls to complete the value. Nine in ten fields are attributes of an object
that a resolver made. What they come to is worked out once per operation, as readers; whatever a
reader does not know goes the way of graphql-core, as does everything near it.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLUnionType,
    InlineFragmentNode,
    Node,
    VariableNode,
    Visitor,
    is_leaf_type,
    visit,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetails
from graphql.pyutils import AwaitableOrValue, Path, Undefined, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from aforo.api.protocol.readers import (
    ODD,
    Reader,
    abstract_reader,
    attempt,
    attribute_of,
    constant,
    leaf_reader,
    list_reader,
    members_of,
    object_reader,
    or_null,
    unwrapped,
)

VARIANTS_MAX = 8
"""Of one operation: as many values of the variables in its `@skip` and `@include` are kept."""
FIELDS_MAX = 2_000
"""Of one variant; what an abstract type can turn out to be counts each time."""

Details = list[FieldDetails]
Grouped = Mapping[str, Details]


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of an object, and how it is read; without an attribute, by the executor."""

    name: str
    details: Details
    attribute: str | None = None
    reader: Reader | None = None


@dataclass(slots=True)
class _Object:
    """What is read of an object of one type at one place of the operation."""

    fields: list[_Field]
    reader: Reader | None
    """Reads all of it, if every field can be read directly."""


@dataclass(slots=True)
class _Variant:
    """What was worked out for an operation with one set of directives in force."""

    root: Grouped | None = None
    sub_fields: dict[tuple[GraphQLObjectType, int], tuple[Details, CollectedFields]] = field(
        default_factory=dict
    )
    objects: dict[tuple[GraphQLObjectType, int], _Object] = field(default_factory=dict)
    items: dict[tuple[int, int], Reader | None] = field(default_factory=dict)
    room: int = FIELDS_MAX


class Plans:
    """What an operation's executions share. It holds nothing of any caller's."""

    def __init__(self, document: DocumentNode) -> None:
        self._switches = _variables_of_directives(document)
        self._variants: dict[Hashable, _Variant] = {}

    def variant(self, variables: Mapping[str, Any]) -> _Variant:
        """The variant for these values of the variables."""
        key = tuple(variables.get(name) for name in self._switches)
        try:
            known = self._variants.get(key)
        except TypeError:  # A directive of the schema's own may take what cannot be a key.
            return _Variant()
        if known is None:
            known = _Variant()
            if len(self._variants) < VARIANTS_MAX:
                self._variants[key] = known
        return known


class DirectExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes an operation; `plans` are those of its document and operation."""

    def __init__(self, *args: Any, plans: Plans, **options: Any) -> None:
        super().__init__(*args, **options)
        self._variant = plans.variant(self.variable_values.coerced)
        self._relevant_sub_fields = self._variant.sub_fields

    def execute_root_grouped_field_set(
        self, root_type: GraphQLObjectType, root_value: Any, grouped_field_set: Any, *rest: Any
    ) -> AwaitableOrValue[dict[str, Any]]:
        # Everything below is known by the identity of these lists, so they have to be the same.
        if self._variant.root is None:
            self._variant.root = grouped_field_set
        grouped: Any = self._variant.root
        return super().execute_root_grouped_field_set(root_type, root_value, grouped, *rest)

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: Any,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        planned = self._object(parent_type, grouped_field_set)
        if planned.reader is not None:
            read: dict[str, Any] | object = attempt(planned.reader, source_value)
            if read is not ODD:
                return cast("dict[str, Any]", read)
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for each in planned.fields:
                if each.reader is not None:
                    result = attempt(each.reader, source_value, each.attribute)
                    if result is not ODD:
                        results[each.name] = result
                        continue
                place = Path(path, each.name, parent_type.name)
                result = self.execute_field(
                    parent_type, source_value, each.details, place, position_context
                )
                if result is not Undefined:
                    results[each.name] = result
                    if self.is_awaitable(result):
                        waiting.append(each.name)
        except Exception:
            if waiting:
                self.settle_in_background([results[name] for name in waiting])
            raise
        return _awaited(results, waiting) if waiting else results

    def complete_list_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, *rest: Any
    ) -> AwaitableOrValue[list[Any]]:
        items = self._variant.items
        key = (id(return_type), id(field_details_list))
        if key not in items:
            items[key] = self._reader(return_type, field_details_list)
        reader = items[key]
        if reader is not None:
            read: list[Any] | object = attempt(reader, rest[0])
            if read is not ODD:
                return cast("list[Any]", read)
        return super().complete_list_value(return_type, field_details_list, info, path, *rest)

    # What is worked out once.

    def _object(self, kind: GraphQLObjectType, grouped: Grouped) -> _Object:
        key = (kind, id(grouped))
        known = self._variant.objects.get(key)
        if known is None:
            fields = [self._planned(kind, name, each) for name, each in grouped.items()]
            direct = [
                (each.name, each.attribute, each.reader)
                for each in fields
                if each.reader is not None and each.attribute is not None
            ]
            reader = object_reader(kind, direct) if len(direct) == len(fields) else None
            known = self._variant.objects[key] = _Object(fields, reader)
        return known

    def _planned(self, kind: GraphQLObjectType, name: str, details: Details) -> _Field:
        self._variant.room -= 1
        asked = details[0].node.name.value
        if asked == "__typename":
            return _Field(name, details, "__class__", constant(kind.name))
        definition = kind.fields.get(asked)
        attribute = attribute_of(definition) if definition else None
        if definition is None or attribute is None or details[0].node.arguments:
            return _Field(name, details)
        return _Field(name, details, attribute, self._reader(definition.type, details))

    def _reader(self, kind: GraphQLOutputType, details: Details) -> Reader | None:
        inner, nullable = unwrapped(kind)
        reader = self._reader_of(inner, details) if self._variant.room > 0 else None
        return or_null(reader) if reader and nullable else reader

    def _reader_of(self, kind: GraphQLOutputType, details: Details) -> Reader | None:
        if is_leaf_type(kind):
            return leaf_reader(kind)
        if isinstance(kind, GraphQLList):
            item = self._reader(kind.of_type, details)
            return list_reader(item) if item else None
        if isinstance(kind, GraphQLObjectType):
            return self._object_reader(kind, details)
        if isinstance(kind, GraphQLInterfaceType | GraphQLUnionType):
            members = members_of(self.schema, kind)
            readers = {
                origin: self._object_reader(member, details) for origin, member in members.items()
            }
            direct = {origin: reader for origin, reader in readers.items() if reader}
            return abstract_reader(direct) if direct else None
        return None

    def _object_reader(self, kind: GraphQLObjectType, details: Details) -> Reader | None:
        try:
            grouped = self.collect_subfields(kind, details).grouped_field_set
        except GraphQLError:  # A directive without its value: an error of the place itself.
            return None
        return self._object(kind, grouped).reader


async def _awaited(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        found = await gather_with_cancel(*(results[name] for name in waiting))
        results.update(zip(waiting, found, strict=True))
    return results


def _variables_of_directives(document: DocumentNode) -> tuple[str, ...]:
    """The variables that decide which fields are asked for."""
    found: dict[str, None] = {}

    class Variables(Visitor):
        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            found[node.name.value] = None

    class Directives(Visitor):
        def enter(self, node: Node, *_: Any) -> None:
            if isinstance(node, FieldNode | InlineFragmentNode | FragmentSpreadNode):
                for directive in node.directives or ():
                    visit(directive, Variables())

    visit(document, Directives())
    return tuple(found)
