"""Results that are the same for many readers of a live message: worked out for the first of them.

A thousand dashboards of one tenant ask the same of every message. What they get depends on the
document, its variables and what the caller may see, and on nothing else of who asks.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    ExecutionResult,
    FieldNode,
    Node,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution import execute_subscription_event

from aforo.api.parts.answers import already_json, encode_json
from aforo.api.parts.context import Context
from aforo.api.parts.live import shared

RESUMING = "after"
"""The argument of every subscription that decides which messages there are, and not what is said
of them."""


class SharedResults:
    """Executes a subscription for one message after the other, or takes what another reader got."""

    def __init__(
        self,
        document: DocumentNode,
        definition: OperationDefinitionNode,
        variables: Mapping[str, Any],
        context: Context,
    ) -> None:
        self._context = context
        # The document is held with each result, so that its identity stays its own.
        self._document = document
        resuming = _resuming_variables(document, definition)
        said = {name: value for name, value in sorted(variables.items()) if name not in resuming}
        caller = context.caller
        self._key: Hashable = (
            id(document),
            id(definition),
            encode_json(said),
            caller.kind,
            caller.permissions,
            caller.customer_id,
        )

    async def __call__(self, executor: Any) -> ExecutionResult:
        followed = self._context.followed
        memo = followed.memo if followed else None
        if memo is None:
            return await _execute(executor)
        found: tuple[object, ExecutionResult] | None = memo.get(self._key)
        if found is None:

            async def make() -> tuple[object, ExecutionResult]:
                return self._document, _encoded(await _execute(executor))

            found = await shared(memo, self._key, make, keeps=_has_no_errors)
        return found[1]


def _encoded(result: ExecutionResult) -> ExecutionResult:
    """The result with its data as JSON already, which is the same for everybody too."""
    if not result.errors:
        result.data = already_json(encode_json(result.data))  # type: ignore[assignment]
    return result


def _has_no_errors(made: tuple[object, ExecutionResult]) -> bool:
    return not made[1].errors


async def _execute(executor: Any) -> ExecutionResult:
    result = execute_subscription_event(executor)
    return result if isinstance(result, ExecutionResult) else await result


def _resuming_variables(document: DocumentNode, definition: OperationDefinitionNode) -> set[str]:
    """Variables that are given to `after` of the subscription itself, and to nothing else."""
    given = {
        argument.value.name.value
        for field in definition.selection_set.selections
        if isinstance(field, FieldNode)
        for argument in field.arguments or ()
        if _resumes(argument) and isinstance(argument.value, VariableNode)
    }
    counter = _VariableCounter()
    visit(document, counter)
    # Once where it is declared, and once where it is given.
    return {name for name in given if counter.counts[name] == 2}


def _resumes(argument: ArgumentNode) -> bool:
    return argument.name.value == RESUMING


class _VariableCounter(Visitor):
    """Counts where variables are written."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def enter_variable(self, node: VariableNode, *_: Any) -> Node | None:
        self.counts[node.name.value] += 1
        return None
