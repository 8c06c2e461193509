"""What a document may ask for, judged before it is validated: one pass, each fragment once.

The framework's limiters expand a fragment at every spread, so that 900 characters of nested
fragments keep them busy for half a minute, and they never look at cost.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    NameNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
)

from aforo.api.protocol.errors import LimitExceeded
from aforo.sdk.errors import Invalid

BODY_BYTES_MAX = 1024 * 1024
CHARACTERS_MAX = 100_000
"""Of a document: in a token there may be any number of them, and the lexer takes its time."""
TOKENS_MAX = 4_000
DEPTH_MAX = 10
INTROSPECTION_DEPTH_MAX = 16
ALIASES_MAX = 30
DIRECTIVES_MAX = 30
DIRECTIVES_OF_ONE_MAX = 5
"""On one field or fragment: each that is unknown would come back as an error of its own."""
FIELDS_MAX = 500
DEFINITIONS_MAX = 50
SPREADS_MAX = 200
"""Of fragments, as written: validation compares what each brings with what the others do."""
NAME_CHARACTERS_MAX = 128
"""Aliases come back with every object, a thousand times in one answer."""
REPEATS_MAX = 10_000
"""Pairs of fields of one name, written anywhere: validation may have to compare each."""
NESTING_MAX = 4 * (INTROSPECTION_DEPTH_MAX + 20)
"""Of the document's syntax; values may stand 20 deep in a field."""

_INTROSPECTION = frozenset({"__schema", "__type"})
_ENOUGH = 1_000_000  # Sums stop here: nested fragments would make them astronomical.


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
    fragments = fragments_of(document)
    sizes: dict[str, _Size] = {}
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            size = _size(definition.selection_set, fragments, sizes)
            _check_size(size, introspection=introspection)


def _check_written(document: DocumentNode) -> None:
    """The document as written. These bounds keep validation, which compares fields pairwise, and
    every pass after this one short."""
    _limit("definitions", len(document.definitions), DEFINITIONS_MAX)
    directives = spreads = 0
    names: Counter[str] = Counter()
    stack: list[tuple[Node, int]] = [(document, 0)]
    while stack:
        node, nesting = stack.pop()
        if isinstance(node, FieldNode):
            names[(node.alias or node.name).value] += 1
        directives += _checked_directives(node)
        spreads += isinstance(node, FragmentSpreadNode)
        _limit("levels of nesting", nesting, NESTING_MAX)
        stack.extend((child, nesting + 1) for child in _children(node))
    _limit("fields", names.total(), FIELDS_MAX)
    _limit("directives", directives, DIRECTIVES_MAX)
    _limit("spreads of fragments", spreads, SPREADS_MAX)
    pairs = sum(times * (times - 1) // 2 for times in names.values())
    _limit("pairs of fields of one name", pairs, REPEATS_MAX)


def _checked_directives(node: Node) -> int:
    """How many directives a node has, once it is known that it is no monster in itself."""
    if isinstance(node, NameNode):
        _limit("characters in a name", len(node.value), NAME_CHARACTERS_MAX)
    if isinstance(node, StringValueNode) and "\0" in node.value:
        raise Invalid("text cannot contain the character U+0000", code="BAD_TEXT")
    directives = len(getattr(node, "directives", None) or ())
    _limit("directives on one field", directives, DIRECTIVES_OF_ONE_MAX)
    return directives


def _limit(name: str, asked: int, maximum: int) -> None:
    if asked > maximum:
        raise LimitExceeded(name, asked=asked, maximum=maximum)


def _children(node: Node) -> Iterator[Node]:
    for key in node.keys:
        child = getattr(node, key, None)
        if isinstance(child, Node):
            yield child
        elif isinstance(child, tuple | list):
            yield from child


def _check_size(size: _Size, *, introspection: bool) -> None:
    if size.introspects and not introspection:
        raise Invalid("introspection is switched off here", code="INTROSPECTION_OFF")
    _limit("levels of fields", size.depth, DEPTH_MAX)
    _limit("levels of introspection", size.introspection_depth, INTROSPECTION_DEPTH_MAX)
    _limit("aliases", size.aliases, ALIASES_MAX)


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
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
