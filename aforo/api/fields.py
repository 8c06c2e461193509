"""Fields, mutations, subscriptions and enums, typed, and none without a description."""

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, cast

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.types.enum import has_enum_definition
from strawberry.types.field import StrawberryField

from aforo.api.problems import ProblemsAsData

F = TypeVar("F", bound=Callable[..., Any])
E = TypeVar("E", bound=Enum)


def field(description: str) -> Callable[[F], F]:
    """A field with a resolver. (A plain attribute is `strawberry.field(description=…)`.)"""
    return cast("Callable[[F], F]", strawberry.field(description=description))


def mutation(description: str) -> Callable[[F], F]:
    """A mutation with one argument `input`, whose `AforoError`s become members of its union."""
    extensions = [ProblemsAsData(), _DescribedInput()]
    decorate = strawberry.mutation(description=description, extensions=extensions)
    return cast("Callable[[F], F]", decorate)


def subscription(description: str) -> Callable[[F], F]:
    """A subscription: an async generator."""
    return cast("Callable[[F], F]", strawberry.subscription(description=description))


def publish_enum(kind: type[E], description: str, **values: str) -> None:
    """Make an enum of the core part of the schema; `values` describes each of its values."""
    strawberry.enum(kind, description=description)
    assert has_enum_definition(kind)
    for value in kind.__strawberry_definition__.values:
        value.description = values.pop(value.name)
    assert not values, f"{kind.__name__} has no {', '.join(values)}"


class _DescribedInput(FieldExtension):
    """The argument `input` needs no words of its own: its type has them."""

    def apply(self, field: StrawberryField) -> None:
        for argument in field.arguments:
            if argument.python_name == "input":
                argument.description = "What is asked for."
