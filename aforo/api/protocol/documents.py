"""From the text of a request to an operation that is known to be valid and within limits."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import strawberry
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    execute,
    parse,
    specified_rules,
    validate,
)
from graphql.execution import create_source_event_stream, map_source_to_response_event
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
from strawberry.utils.await_maybe import await_maybe

from aforo.api.parts.context import Context
from aforo.api.parts.permissions import Needs, Rules
from aforo.api.parts.sharing import SharedResults
from aforo.api.protocol.cost import OperationCost
from aforo.api.protocol.direct import DirectExecutor, Plans
from aforo.api.protocol.errors import LimitExceeded
from aforo.api.protocol.limits import CHARACTERS_MAX, TOKENS_MAX, check_document
from aforo.sdk.errors import Invalid

CACHED_CHARACTERS_MAX = 400_000
"""Of all remembered documents together; parsed, a character takes up to 1 KB."""
CACHED_DOCUMENT_CHARACTERS_MAX = 10_000
ERRORS_MAX = 20

# Built once: rules made per request would be new classes, and no cache could hold them.
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)

_PARSER_GAVE_UP = " tokens. Parsing aborted."

Result = ExecutionResult


class DocumentRefused(Exception):
    """The document cannot be executed: `errors` say why, `code` of which kind they are."""

    def __init__(self, code: str, errors: list[GraphQLError]) -> None:
        super().__init__(code)
        self.code = code
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, by whatever transport."""

    query: str
    """Empty where the document is named by its id."""
    variables: Mapping[str, Any]
    operation_name: str | None
    idempotency_key: str | None = None
    document_id: str | None = None
    """Of a persisted document, in the form in which it is stored."""
    is_apollo: bool = False
    """The id came in the form of Apollo's clients, who may send the document too."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a valid document, with its variables."""

    document: DocumentNode
    definition: OperationDefinitionNode
    variables: Mapping[str, Any]
    needs: Needs
    """What its caller must be permitted."""
    plans: Plans
    """What its executions share."""
    cost: int
    """In points, at least 1."""
    constant: Mapping[str, str] | None = None
    """The answer, where it is known beforehand."""

    @property
    def kind(self) -> OperationType:
        return self.definition.operation


@dataclass(frozen=True, slots=True)
class _Known:
    """What is worked out once for an operation."""

    needs: Needs
    plans: Plans
    cost: OperationCost
    constant: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class _Valid:
    """A document that was found valid, with what is known of its operations by identity."""

    document: DocumentNode
    operations: Mapping[int, _Known]


class Documents:
    """Prepares and runs operations of one schema; remembers documents that were valid."""

    def __init__(self, schema: strawberry.Schema, *, introspection: bool) -> None:
        # Strawberry has no public name for the schema that it builds, and its own execution
        # re-parses, re-validates, and runs the first of several unnamed operations.
        self._schema: GraphQLSchema = schema._schema  # noqa: SLF001
        self._introspection = introspection
        self._rules = Rules(self._schema)
        self._valid: OrderedDict[str, _Valid] = OrderedDict()
        self.remembered_characters = 0

    def prepare(self, request: Request) -> Operation:
        """The operation to run. Raises `DocumentRefused`."""
        with _refusing():
            valid = self._document(request.query)
            document = valid.document
            definition = _chosen(document, request.operation_name)
            known = valid.operations[id(definition)]  # Nodes compare by value, which takes long.
            cost = known.cost.of(request.variables)
        return Operation(
            document,
            definition,
            request.variables,
            known.needs,
            known.plans,
            cost,
            known.constant,
        )

    def check(self, query: str) -> None:
        """Whether a document could be run, whatever its variables. Raises `DocumentRefused`."""
        with _refusing():
            valid = self._document(query)
            for definition in valid.document.definitions:
                if isinstance(definition, OperationDefinitionNode):
                    valid.operations[id(definition)].cost.of({})

    async def execute(self, operation: Operation, context: Context) -> Result:
        """Run a query or a mutation."""
        if operation.constant is not None:
            return ExecutionResult(dict(operation.constant), None)
        name = operation.definition.name
        result = execute(
            self._schema,
            operation.document,
            context_value=context,
            variable_values=dict(operation.variables),
            operation_name=name.value if name else None,
            executor_class=DirectExecutor,
            hide_suggestions=True,
            max_coercion_errors=ERRORS_MAX,
            plans=operation.plans,
        )
        return cast("Result", await await_maybe(result))

    async def subscribe(
        self, operation: Operation, context: Context
    ) -> AsyncIterator[Result] | Result:
        """Start a subscription: its results, or the one result that says why not."""
        definition, variables = operation.definition, dict(operation.variables)
        executor = DirectExecutor.build(
            self._schema,
            operation.document,
            context_value=context,
            raw_variable_values=variables,
            operation_name=definition.name.value if definition.name else None,
            max_coercion_errors=ERRORS_MAX,
            hide_suggestions=True,
            plans=operation.plans,
        )
        if isinstance(executor, list):
            return ExecutionResult(None, executor)
        source = await await_maybe(create_source_event_stream(executor))
        if isinstance(source, ExecutionResult):
            return source
        shared = SharedResults(operation.document, definition, variables, context)
        return map_source_to_response_event(executor, cast("AsyncIterator[Any]", source), shared)

    def _document(self, query: str) -> _Valid:
        valid = self._valid.get(query)
        if valid is not None:
            self._valid.move_to_end(query)
            return valid
        document = _parsed(query)
        check_document(document, introspection=self._introspection)
        errors = validate(
            self._schema, document, _RULES, max_errors=ERRORS_MAX, hide_suggestions=True
        )
        if errors:
            raise DocumentRefused("GRAPHQL_VALIDATION_FAILED", errors)
        valid = _Valid(document, self._known(document))
        if len(query) <= CACHED_DOCUMENT_CHARACTERS_MAX:
            self._remember(query, valid)
        return valid

    def _known(self, document: DocumentNode) -> Mapping[int, _Known]:
        return {
            id(definition): _Known(
                self._rules.needs(document, definition),
                Plans(document),
                OperationCost(self._schema, document, definition),
                _constant(self._schema, definition),
            )
            for definition in document.definitions
            if isinstance(definition, OperationDefinitionNode)
        }

    def _remember(self, query: str, valid: _Valid) -> None:
        self._valid[query] = valid
        self.remembered_characters += len(query)
        while self.remembered_characters > CACHED_CHARACTERS_MAX:
            oldest, _ = self._valid.popitem(last=False)
            self.remembered_characters -= len(oldest)


def _constant(
    schema: GraphQLSchema, operation: OperationDefinitionNode
) -> Mapping[str, str] | None:
    """The answer to a query for `__typename` alone, by which clients see whether we are there."""
    root = schema.query_type
    if root is None or operation.operation is not OperationType.QUERY:
        return None
    if operation.variable_definitions or operation.directives:
        return None
    answer = {}
    for node in operation.selection_set.selections:
        if not isinstance(node, FieldNode) or node.name.value != "__typename" or node.directives:
            return None
        answer[(node.alias or node.name).value] = root.name
    return answer


def first_field(operation: OperationDefinitionNode) -> str | None:
    """The name of the first field that is written in an operation itself."""
    fields = (each for each in operation.selection_set.selections if isinstance(each, FieldNode))
    first = next(fields, None)
    return first.name.value if first else None


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Invalid as error:
        wrapped = GraphQLError(error.message, original_error=error)
        raise DocumentRefused(error.code, [wrapped]) from error
    except RecursionError as error:
        wrapped = GraphQLError("The document is nested too deeply.")
        raise DocumentRefused(LimitExceeded.code, [wrapped]) from error


def _parsed(query: str) -> DocumentNode:
    if len(query) > CHARACTERS_MAX:
        raise LimitExceeded("characters", asked=len(query), maximum=CHARACTERS_MAX)
    try:
        return parse(
            query,
            max_lexical_tokens=TOKENS_MAX,
            max_comments=TOKENS_MAX,
            allow_empty_selection_sets=False,
        )
    except GraphQLError as error:
        if error.message.endswith(_PARSER_GAVE_UP):  # At the first token that was too many.
            exceeded = LimitExceeded("tokens", asked=TOKENS_MAX + 1, maximum=TOKENS_MAX)
            wrapped = GraphQLError(exceeded.message, original_error=exceeded)
            raise DocumentRefused(exceeded.code, [wrapped]) from error
        raise DocumentRefused("GRAPHQL_PARSE_FAILED", [error]) from error


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [
        definition
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode)
    ]
    if name is None:
        if len(operations) == 1:
            return operations[0]
        raise Invalid(
            f"the document has {len(operations)} operations: say in operationName which to run",
            code="OPERATION_NAME_NEEDED",
            field="operationName",
        )
    for operation in operations:
        if operation.name and operation.name.value == name:
            return operation
    raise Invalid(
        "the document has no operation of this name",
        code="OPERATION_NOT_FOUND",
        field="operationName",
    )
