"""Documents made up from a schema and a seed: aliases, fragments, directives, variables."""

from collections.abc import Callable
from random import Random
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)

Argument = Callable[[Random, GraphQLField, str], str | None]
"""What to write for an argument; None to leave it out."""

SWITCHES = ("$on", "$off", "true", "false")


class Writer:
    """Writes one document; not every one is valid, because equal names may clash."""

    def __init__(self, schema: GraphQLSchema, random: Random, argument: Argument) -> None:
        self._schema = schema
        self._random = random
        self._argument = argument
        self._fragments: list[tuple[str, str, str]] = []
        self._aliases = 0
        self.switches: set[str] = set()

    def operation(self, operation: str, root: GraphQLObjectType, depth: int) -> str:
        """The text of a document with one operation."""
        body = self._selection(root, depth, fields=1 if operation == "subscription" else 3)
        fragments = " ".join(
            f"fragment {name} on {kind} {selection}" for name, kind, selection in self._fragments
        )
        declared = ", ".join(f"{switch}: Boolean!" for switch in sorted(self.switches))
        head = f"({declared})" if declared else ""
        return f"{operation} Made{head} {body} {fragments}"

    def _selection(self, kind: GraphQLNamedType, depth: int, fields: int = 4) -> str:
        parts = [self._part(kind, depth) for _ in range(self._random.randint(1, fields))]
        return f"{{ {' '.join(part for part in parts if part) or '__typename'} }}"

    def _part(self, kind: GraphQLNamedType, depth: int) -> str:
        chance = self._random.random()
        if chance < 0.08 or (isinstance(kind, GraphQLUnionType) and chance < 0.2):
            return self._aliased("__typename")
        if isinstance(kind, GraphQLUnionType) or (chance < 0.3 and depth > 0):
            return self._fragment(kind, depth)
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        return self._field(kind, depth)

    def _fragment(self, kind: GraphQLNamedType, depth: int) -> str:
        on = self._random.choice(self._types_within(kind))
        if self._random.random() < 0.6:
            condition = f"on {on.name}" if on is not kind or self._random.random() < 0.5 else ""
            return f"... {condition} {self._directive()} {self._selection(on, depth - 1)}"
        same = [name for name, of, _ in self._fragments if of == on.name]
        if same and self._random.random() < 0.3:
            return f"...{self._random.choice(same)} {self._directive()}"
        selection = self._selection(on, depth - 1)
        name = f"F{len(self._fragments)}"
        self._fragments.append((name, on.name, selection))
        return f"...{name} {self._directive()}"

    def _types_within(self, kind: GraphQLNamedType) -> list[GraphQLNamedType]:
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            possible: list[GraphQLNamedType] = list(self._schema.get_possible_types(kind))
            return [*possible, kind]
        assert isinstance(kind, GraphQLObjectType)
        return [kind, *kind.interfaces]

    def _field(self, kind: GraphQLObjectType | GraphQLInterfaceType, depth: int) -> str:
        usable = {
            name: field
            for name, field in kind.fields.items()
            if depth > 0 or is_leaf_type(get_named_type(field.type))
        }
        if not usable:
            return ""
        name = self._random.choice(list(usable))
        field = usable[name]
        given = []
        for argument, definition in field.args.items():
            text = self._argument(self._random, field, argument)
            if text is None and is_required_argument(definition):
                return ""
            if text is not None:
                given.append(f"{argument}: {text}")
        call = f"({', '.join(given)})" if given else ""
        inner = get_named_type(field.type)
        below = "" if is_leaf_type(inner) else self._selection(inner, depth - 1)
        # Without an alias fields of one name are merged: arguments must be the same then.
        text = f"{name}{call}"
        return f"{self._aliased(text, always=bool(call))} {self._directive()} {below}"

    def _aliased(self, text: str, *, always: bool = False) -> str:
        if not always and self._random.random() < 0.7:
            return text
        self._aliases += 1
        return f"a{self._aliases}: {text}"

    def _directive(self) -> str:
        if self._random.random() < 0.85:
            return ""
        name = self._random.choice(("skip", "include"))
        switch = self._random.choice(SWITCHES)
        if switch.startswith("$"):
            self.switches.add(switch)
        return f"@{name}(if: {switch})"


def variables(writer: Writer) -> dict[str, Any]:
    """The values of the variables that a document declares."""
    return {switch.lstrip("$"): switch == "$on" for switch in writer.switches}
