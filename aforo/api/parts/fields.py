"""Fields, mutations, subscriptions and enums, typed, and none without a description."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, cast

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types.enum import has_enum_definition
from strawberry.types.field import StrawberryField

from aforo.api.parts.permissions import NEEDS, Open
from aforo.api.parts.problems import ProblemsAsData
from aforo.tenants.permissions import Permission

COST = "cost"
"""Where the metadata of a field holds what it costs beside its objects."""
COUNTED = "counted"
"""Where that of a mutation names the list of its input whose items cost a point each."""

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=Enum)


def field(
    description: str, *, needs: Permission | Open | None = None, cost: int = 0
) -> Callable[[F], F]:
    """A field with a resolver. (A plain attribute is `strawberry.field(description=…)`.)

    A field of a root says what it `needs`; below, the type that it returns decides, and a field
    says so only where it needs more. `cost` is in points, beside one for each object that the field
    may return: what a look at many events takes, compared with that of reading a row.
    """
    metadata: dict[str, object] = {NEEDS: needs} if needs else {}
    if cost:
        description = f"{description} Costs {cost}."
        metadata[COST] = cost
    decorate = strawberry.field(description=_described(description, needs), metadata=metadata)
    return cast("Callable[[F], F]", decorate)


def mutation(
    description: str, *, needs: Permission | Open, counted: str | None = None
) -> Callable[[F], F]:
    """A mutation with one argument `input`, whose `AforoError`s become members of its union.

    `counted` names a list of the input, each item of which takes work: it costs a point.
    """
    metadata: dict[str, object] = {NEEDS: needs}
    if counted:
        description = f"{description} Costs 1 for each of `{counted}`."
        metadata[COUNTED] = counted
    decorate = strawberry.mutation(
        description=_described(description, needs),
        metadata=metadata,
        extensions=[ProblemsAsData(), _Recorded(), _DescribedInput()],
    )
    return cast("Callable[[F], F]", decorate)


def subscription(description: str, *, needs: Permission | Open) -> Callable[[F], F]:
    """A subscription: an async generator."""
    decorate = strawberry.subscription(
        description=_described(description, needs), metadata={NEEDS: needs}
    )
    return cast("Callable[[F], F]", decorate)


def publish_enum(
    kind: type[E], description: str, *, called: str | None = None, **values: str
) -> None:
    """Make an enum of the core part of the schema; `values` describes each of its values.

    `called` is its name there, where its own says too little among all the others.
    """
    strawberry.enum(kind, name=called, description=description)
    assert has_enum_definition(kind)
    for value in kind.__strawberry_definition__.values:
        value.description = values.pop(value.name)
    assert not values, f"{kind.__name__} has no {', '.join(values)}"


def _described(description: str, needs: Permission | Open | None) -> str:
    return f"{description} Needs `{needs.name}`." if isinstance(needs, Permission) else description


class _Recorded(FieldExtension):
    """What the mutation writes is recorded in the audit log under its name."""

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: Any, **arguments: Any
    ) -> Any:
        info.context.mutation = info.field_name
        try:
            return await next_(source, info, **arguments)
        finally:
            info.context.mutation = None


class _DescribedInput(FieldExtension):
    """The argument `input` needs no words of its own: its type has them."""

    def apply(self, field: StrawberryField) -> None:
        for argument in field.arguments:
            if argument.python_name == "input":
                argument.description = "What is asked for."
