"""What a document may ask for, judged before it is validated: one pass, each fragment once.

The framework's limiters expand a fragment at every spread, so that 900 characters of nested
fragments keep them busy for half a minute, and they never look at cost.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    NameNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    VariableNode,
    get_named_type,
    is_composite_type,
)

from aforo.api.relay import PAGE_DEFAULT, PAGE_MAX
from aforo.sdk.errors import Invalid

BODY_BYTES_MAX = 1024 * 1024
TOKENS_MAX = 4_000
DEPTH_MAX = 10
INTROSPECTION_DEPTH_MAX = 16
ALIASES_MAX = 30
DIRECTIVES_MAX = 30
DIRECTIVES_OF_ONE_MAX = 5
"""On one field or fragment: each that is unknown would come back as an error of its own."""
FIELDS_MAX = 500
DEFINITIONS_MAX = 50
NAME_CHARACTERS_MAX = 128
"""Aliases come back with every object, a thousand times in one answer."""
REPEATS_MAX = 10_000
"""Pairs of fields of one name, written anywhere: validation may have to compare each."""
VALUE_DEPTH_MAX = 20
COST_MAX = 1_000

_INTROSPECTION = frozenset({"__schema", "__type"})
_ENOUGH = 1_000_000  # Sums stop here: nested fragments would make them astronomical.


class LimitExceeded(Invalid):
    """The document asks for more than one operation may."""

    code = "LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class _Size:
    """What a selection comes to with its fragments spread."""

    depth: int = 0
    introspection_depth: int = 0
    aliases: int = 0
    introspects: bool = False

    def beside(self, other: "_Size") -> "_Size":
        return _Size(
            max(self.depth, other.depth),
            max(self.introspection_depth, other.introspection_depth),
            min(self.aliases + other.aliases, _ENOUGH),
            self.introspects or other.introspects,
        )


def check_document(document: DocumentNode, *, introspection: bool) -> None:
    """Raise `LimitExceeded` for a document that is too deep, too wide or too repetitive.

    Without `introspection`, fields that read the schema are refused too.
    """
    _check_written(document)
    fragments = _fragments(document)
    sizes: dict[str, _Size] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = _size(definition.selection_set, fragments, sizes)
            _check_size(size, introspection=introspection)


def _check_written(document: DocumentNode) -> None:
    """The document as written. These bounds keep validation, which compares fields pairwise, and
    every pass after this one short."""
    if len(document.definitions) > DEFINITIONS_MAX:
        raise LimitExceeded(f"a document has at most {DEFINITIONS_MAX} definitions")
    fields = directives = 0
    names: Counter[str] = Counter()
    stack: list[tuple[Node, int]] = [(document, 0)]
    while stack:
        node, nesting = stack.pop()
        if isinstance(node, FieldNode):
            fields += 1
            names[(node.alias or node.name).value] += 1
        directives += _checked_directives(node)
        if fields > FIELDS_MAX:
            raise LimitExceeded(f"a document has at most {FIELDS_MAX} fields; ask in parts")
        if directives > DIRECTIVES_MAX:
            raise LimitExceeded(f"a document has at most {DIRECTIVES_MAX} directives")
        if nesting > 4 * (INTROSPECTION_DEPTH_MAX + VALUE_DEPTH_MAX):
            raise LimitExceeded("the document is nested too deeply")
        stack.extend((child, nesting + 1) for child in _children(node))
    if sum(times * (times - 1) // 2 for times in names.values()) > REPEATS_MAX:
        raise LimitExceeded("the document asks for the same fields too often; ask in parts")


def _checked_directives(node: Node) -> int:
    """How many directives a node has, once it is known that it is no monster in itself."""
    if isinstance(node, NameNode) and len(node.value) > NAME_CHARACTERS_MAX:
        raise LimitExceeded(f"a name has at most {NAME_CHARACTERS_MAX} characters")
    if isinstance(node, StringValueNode) and "\0" in node.value:
        raise Invalid("text cannot contain the character U+0000", code="BAD_TEXT")
    directives = len(getattr(node, "directives", None) or ())
    if directives > DIRECTIVES_OF_ONE_MAX:
        raise LimitExceeded(f"one field has at most {DIRECTIVES_OF_ONE_MAX} directives")
    return directives


def _children(node: Node) -> Iterator[Node]:
    for key in node.keys:
        child = getattr(node, key, None)
        if isinstance(child, Node):
            yield child
        elif isinstance(child, tuple | list):
            yield from child


def _check_size(size: _Size, *, introspection: bool) -> None:
    if size.introspects and not introspection:
        raise LimitExceeded("introspection is switched off here", code="INTROSPECTION_OFF")
    if size.depth > DEPTH_MAX:
        raise LimitExceeded(f"fields are nested deeper than {DEPTH_MAX} levels")
    if size.introspection_depth > INTROSPECTION_DEPTH_MAX:
        raise LimitExceeded(f"introspection is at most {INTROSPECTION_DEPTH_MAX} levels deep")
    if size.aliases > ALIASES_MAX:
        raise LimitExceeded(f"an operation has at most {ALIASES_MAX} aliases")


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }


def _size(
    selections: SelectionSetNode | None,
    fragments: Mapping[str, FragmentDefinitionNode],
    sizes: dict[str, _Size],
) -> _Size:
    total = _Size()
    for node in selections.selections if selections else ():
        match node:
            case FieldNode():
                below = _size(node.selection_set, fragments, sizes)
                deep = 1 + max(below.depth, below.introspection_depth)
                reads_schema = node.name.value in _INTROSPECTION
                part = _Size(
                    depth=0 if reads_schema else deep,
                    introspection_depth=deep if reads_schema else 0,
                    aliases=below.aliases + (node.alias is not None),
                    introspects=reads_schema or below.introspects,
                )
            case InlineFragmentNode():
                part = _size(node.selection_set, fragments, sizes)
            case FragmentSpreadNode():
                part = _fragment_size(node.name.value, fragments, sizes)
            case _:
                continue
        total = total.beside(part)
    return total


def _fragment_size(
    name: str, fragments: Mapping[str, FragmentDefinitionNode], sizes: dict[str, _Size]
) -> _Size:
    if name not in sizes:
        sizes[name] = _Size()  # A fragment inside itself adds nothing; validation refuses it.
        if name in fragments:
            sizes[name] = _size(fragments[name].selection_set, fragments, sizes)
    return sizes[name]


def check_cost(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: Mapping[str, Any],
) -> None:
    """Raise `LimitExceeded` where a valid operation may return more than 1,000 objects.

    An object costs 1, a scalar nothing, a connection its page size times one item.
    """
    root = schema.get_root_type(operation.operation)
    assert root is not None, "a validated operation has a root type"
    given = {**_defaults(operation), **variables}
    cost = _Cost(schema, _fragments(document), given).of(operation.selection_set, root)
    if cost > COST_MAX:
        raise LimitExceeded(
            f"the operation may return {cost} objects, more than {COST_MAX}: ask for smaller pages"
        )


class _Cost:
    """Adds up objects; remembers each fragment's sum, so that a spread costs nothing to judge."""

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
        kind = get_named_type(field.type)
        if not is_composite_type(kind):
            return 0
        below = self.of(node.selection_set, kind)
        if kind.name.endswith("Connection"):
            return 1 + below * self._page_size(node)
        if kind.name.endswith("Edge") or kind.name == "PageInfo":
            return below  # Wrappers: the item inside is the object.
        return (1 + below) * self._ids(node)

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

    def _argument(self, node: FieldNode, name: str) -> object:
        for argument in node.arguments or ():
            if argument.name.value == name:
                if isinstance(argument.value, VariableNode):
                    return self._variables.get(argument.value.name.value)
                return _written(argument.value)
        return None


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
    return None


def _definition(parent: GraphQLNamedType, name: str) -> GraphQLField | None:
    if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType):
        fields: dict[str, GraphQLField] = parent.fields
        return fields.get(name)
    return None
