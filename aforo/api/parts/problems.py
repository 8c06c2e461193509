"""Problems a caller can act on, as members of a mutation's result."""

from typing import Any

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver

from aforo.sdk.errors import AforoError, Conflict, Invalid, NotFound


@strawberry.interface(description="Why a mutation changed nothing.")
class Problem:
    code: str = strawberry.field(
        description="A stable name of what is wrong, such as `OVERLAPPING_TIERS`."
    )
    message: str = strawberry.field(description="What is wrong and what to do, for a person.")
    field: str | None = strawberry.field(
        description="Path of the input that is wrong, such as `lines.0.settings.tiers.1.upTo`."
    )


@strawberry.type(description="The input breaks a rule; the same input will never be accepted.")
class InvalidProblem(Problem):
    pass


@strawberry.type(description="What the input names does not exist.")
class NotFoundProblem(Problem):
    pass


@strawberry.type(description="The input is well-formed but clashes with what is already there.")
class ConflictProblem(Problem):
    pass


class ProblemsAsData(FieldExtension):
    """Return an `Invalid`, `NotFound` or `Conflict` as the matching member of the field's union.

    The exception leaves the resolver's scope first, so nothing is written. Whatever else is
    raised stays an error of the operation: forbidden, unavailable, or a bug.
    """

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: Any, **arguments: Any
    ) -> Any:
        try:
            return await next_(source, info, **arguments)
        except (Invalid, NotFound, Conflict) as error:
            return problem_of(error)


def problem_of(error: Invalid | NotFound | Conflict) -> Problem:
    """The problem that tells of an error."""
    kind = next(_PROBLEMS[base] for base in type(error).__mro__ if base in _PROBLEMS)
    return kind(code=error.code, message=error.message, field=error.field)


_PROBLEMS: dict[type, type[Problem]] = {
    Invalid: InvalidProblem,
    NotFound: NotFoundProblem,
    Conflict: ConflictProblem,
}

assert all(issubclass(kind, AforoError) for kind in _PROBLEMS)
