"""What an operation costs before it runs: how many objects it may return, and how dear they are."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

from aforo.api.parts.fields import COST, COUNTED
from aforo.api.protocol.errors import LimitExceeded
from aforo.api.protocol.limits import fragments_of
from aforo.storage.listing import PAGE_DEFAULT, PAGE_MAX

COST_MAX = 1_000
REMEMBERED_MAX = 16
"""Of one operation: the costs for so many sizes of pages."""

_SIZES = frozenset({"first", "ids"})
_INPUT = "input"
_ENOUGH = 1_000_000  # Sums stop here: nested fragments would make them astronomical.


class OperationCost:
    """The cost of one operation of a valid document.

    An object costs 1, a scalar nothing, a connection its page size times one item, and some fields
    what they declare. All but the sizes of pages and lists is the same for every request.
    """

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
    ) -> None:
        root = schema.get_root_type(operation.operation)
        assert root is not None, "a validated operation has a root type"
        self._schema = schema
        self._root = root
        self._operation = operation
        self._fragments = fragments_of(document)
        self._defaults = _defaults(operation)
        self._sizes = _size_variables(schema, document)
        self._known: dict[Hashable, int] = {}

    def of(self, variables: Mapping[str, Any]) -> int:
        """The points that the operation costs. Raises `LimitExceeded` for more than 1,000."""
        given = {**self._defaults, **variables} if self._sizes else {}
        key = tuple(_size_of(given.get(name), within) for name, within in self._sizes)
        cost = self._known.get(key)
        if cost is None:
            walk = _Walk(self._schema, self._fragments, given)
            cost = walk.of(self._operation.selection_set, self._root)
            if len(self._known) < REMEMBERED_MAX:
                self._known[key] = cost
        if cost > COST_MAX:
            raise LimitExceeded(
                "points of cost", asked=cost, maximum=COST_MAX, advice="ask for smaller pages"
            )
        return max(cost, 1)


def declared_cost(field: GraphQLField) -> int:
    """What a field costs beside its objects: see `cost=` in `aforo.api.parts.fields`."""
    declared = _metadata(field).get(COST, 0)
    assert isinstance(declared, int)
    return declared


def counted_list(field: GraphQLField | None) -> str | None:
    """The list of a mutation's input whose items cost a point each: see `counted=` there."""
    declared = _metadata(field).get(COUNTED) if field else None
    assert declared is None or isinstance(declared, str)
    return declared


class _Walk:
    """Adds up; remembers each fragment's sum, so that a spread costs nothing to judge."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        variables: Mapping[str, Any],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self._sums: dict[str, int] = {}

    def of(self, selections: SelectionSetNode | None, parent: GraphQLNamedType) -> int:
        total = 0
        for node in selections.selections if selections else ():
            match node:
                case FieldNode():
                    total += self._field(node, parent)
                case InlineFragmentNode(type_condition=None):
                    total += self.of(node.selection_set, parent)
                case InlineFragmentNode(type_condition=condition) if condition is not None:
                    kind = self._schema.get_type(condition.name.value)
                    total += self.of(node.selection_set, kind or parent)
                case FragmentSpreadNode():
                    total += self._fragment(node.name.value)
        return min(total, _ENOUGH)

    def _field(self, node: FieldNode, parent: GraphQLNamedType) -> int:
        field = _definition(parent, node.name.value)
        if field is None:  # `__typename` and the schema's own fields.
            return 0
        own = declared_cost(field) + self._counted(node, field)
        kind = get_named_type(field.type)
        if not is_composite_type(kind):
            return own
        below = self.of(node.selection_set, kind)
        if kind.name.endswith("Connection"):
            return own + 1 + below * self._page_size(node)
        if kind.name.endswith("Edge") or kind.name == "PageInfo":
            return own + below  # Wrappers: the item inside is the object.
        return own + (1 + below) * self._ids(node)

    def _fragment(self, name: str) -> int:
        if name not in self._sums:
            definition = self._fragments[name]
            kind = self._schema.get_type(definition.type_condition.name.value)
            assert kind is not None, "a validated fragment is on a type"
            self._sums[name] = self.of(definition.selection_set, kind)
        return self._sums[name]

    def _page_size(self, node: FieldNode) -> int:
        size = self._argument(node, "first")
        if not isinstance(size, int):
            return PAGE_DEFAULT
        return min(max(size, 1), PAGE_MAX)  # Others are refused by the field itself.

    def _ids(self, node: FieldNode) -> int:
        ids = self._argument(node, "ids")
        return max(len(ids), 1) if isinstance(ids, list) else 1

    def _counted(self, node: FieldNode, field: GraphQLField) -> int:
        name = counted_list(field)
        if name is None:
            return 0
        given = self._argument(node, _INPUT)
        items = given.get(name) if isinstance(given, Mapping) else None
        if isinstance(items, VariableNode):
            items = self._variables.get(items.name.value)
        return len(items) if isinstance(items, list) else 1  # One item may stand for a list.

    def _argument(self, node: FieldNode, name: str) -> object:
        for argument in node.arguments or ():
            if argument.name.value == name:
                if isinstance(argument.value, VariableNode):
                    return self._variables.get(argument.value.name.value)
                return _written(argument.value)
        return None


def _size_variables(
    schema: GraphQLSchema, document: DocumentNode
) -> tuple[tuple[str, str | None], ...]:
    """The variables that say how large a page is, or hold ids, or a list that is counted: that
    list itself, or by its name within the variable."""
    mutations = schema.mutation_type.fields if schema.mutation_type else {}
    found: dict[tuple[str, str | None], None] = {}
    stack: list[Any] = [
        definition.selection_set
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode)
    ]
    while stack:
        for node in stack.pop().selections:
            for argument in getattr(node, "arguments", None) or ():
                name, value = argument.name.value, argument.value
                if name in _SIZES and isinstance(value, VariableNode):
                    found[value.name.value, None] = None
                elif name == _INPUT and (within := counted_list(mutations.get(node.name.value))):
                    found |= dict.fromkeys(_list_variables(value, within))
            if getattr(node, "selection_set", None):
                stack.append(node.selection_set)
    return tuple(found)


def _list_variables(value: Node, within: str) -> Iterator[tuple[str, str | None]]:
    match value:
        case VariableNode(name=name):
            yield name.value, within
        case ObjectValueNode(fields=fields):
            for each in fields:
                if each.name.value == within and isinstance(each.value, VariableNode):
                    yield each.value.name.value, None


def _size_of(value: object, within: str | None) -> Hashable:
    """All of a value that the cost depends on."""
    if within is not None:
        value = value.get(within) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        return ("items", len(value))
    return value if isinstance(value, int) else None


def _defaults(operation: OperationDefinitionNode) -> dict[str, object]:
    return {
        definition.variable.name.value: _written(definition.default_value)
        for definition in operation.variable_definitions or ()
        if definition.default_value is not None
    }


def _written(value: Node) -> object:
    match value:
        case IntValueNode(value=digits):
            return int(digits) if len(digits) < 10 else PAGE_MAX
        case ListValueNode(values=values):
            return list(values)
        case ObjectValueNode(fields=fields):
            return {each.name.value: _written(each.value) for each in fields}
        case VariableNode():
            return value  # Within an object: for whoever knows the variables.
    return None


def _metadata(field: GraphQLField) -> Mapping[Any, Any]:
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return definition.metadata if isinstance(definition, StrawberryField) else {}


def _definition(parent: GraphQLNamedType, name: str) -> GraphQLField | None:
    if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
        fields: dict[str, GraphQLField] = parent.fields
        return fields.get(name)
    return None
