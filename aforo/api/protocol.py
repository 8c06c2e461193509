"""What every transport of GraphQL does: read a request, run the operation, word the answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import structlog
from graphql import ExecutionResult, GraphQLError

from aforo.api.context import Context
from aforo.api.documents import DocumentRefused, Documents, Operation, Request
from aforo.api.errors import FormattedError, cause_of, format_errors, retry_after_seconds
from aforo.api.requests import Credential, Refused, demand
from aforo.sdk.errors import Unavailable
from aforo.storage.scope import Runtime
from aforo.telemetry.metrics import GRAPHQL_OPERATIONS, STREAMS
from aforo.telemetry.tracing import span
from aforo.tenants.queries import authenticate

OPERATION_TIMEOUT_SECONDS = 30
RECHECK_SECONDS = 4
"""A running subscription's key is looked up again this often; the promise is 5 s."""
STREAMS_MAX = 1_000
"""Subscriptions of one process, over every transport: each holds a connection to Redis."""

BAD_INPUT = "BAD_USER_INPUT"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """One result as the client gets it."""

    body: dict[str, Any]
    is_request_error: bool = False
    """Nothing was executed, because of the request: there is no `data` entry."""
    retry_after_seconds: int | None = None
    """An engine was down."""

    @property
    def outcome(self) -> str:
        """How it went, in one word."""
        if self.retry_after_seconds is not None:
            return "unavailable"
        if self.is_request_error:
            return "refused"
        return "error" if "errors" in self.body else "ok"


class StreamLimitReached(Unavailable):
    """This process has as many subscriptions as it takes."""

    code = "TOO_MANY_SUBSCRIPTIONS"


class GraphQLService:
    """Runs operations for callers, whatever brought them here."""

    def __init__(self, runtime: Runtime, documents: Documents) -> None:
        self.runtime = runtime
        self._documents = documents
        self._streams = 0

    def prepare(self, request: Request, credential: Credential) -> Operation:
        """The operation. Raises `DocumentRefused`; `Refused` with 403 without permission for it."""
        operation = self._documents.prepare(request)
        demand(credential.caller, operation.needs)
        return operation

    async def execute(
        self, operation: Operation, credential: Credential, request_id: str
    ) -> Answer:
        """Run a query or mutation to its end, or for 30 s."""
        context = Context(self.runtime, credential.caller, request_id)
        begun = perf_counter()
        try:
            with span(f"graphql {operation.kind.value}"):
                async with asyncio.timeout(OPERATION_TIMEOUT_SECONDS):
                    result = await self._documents.execute(operation, context)
        except TimeoutError:
            slow = Unavailable(
                f"the operation took more than {OPERATION_TIMEOUT_SECONDS} s; ask for less",
                code="TIMEOUT",
            )
            result = ExecutionResult(None, [GraphQLError(slow.message, original_error=slow)])
        answer = _answer(result, request_id)
        seconds = perf_counter() - begun
        GRAPHQL_OPERATIONS.labels(operation.kind.value, answer.outcome).observe(seconds)
        return answer

    async def subscribe(
        self, operation: Operation, credential: Credential, request_id: str
    ) -> AsyncIterator[Answer]:
        """Yield the answers of a subscription; close the iterator to end it."""
        if self._streams >= STREAMS_MAX:
            full = StreamLimitReached("this server has no room for another subscription; try later")
            yield answer_to(GraphQLError(full.message, original_error=full), request_id)
            return
        self._streams += 1
        STREAMS.inc()
        # Rows must not be remembered from one event to the next.
        context = Context(self.runtime, credential.caller, request_id, remembers=False)
        try:
            started = await self._documents.subscribe(operation, context)
            if isinstance(started, ExecutionResult):
                yield _answer(started, request_id)
                return
            try:
                async for result in started:
                    yield _answer(result, request_id)
            finally:
                await started.aclose()  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 — the source of events may raise anything.
            wrapped = GraphQLError(str(error), original_error=error)
            yield answer_to(wrapped, request_id)
        finally:
            self._streams -= 1
            STREAMS.dec()

    async def is_still_allowed(self, credential: Credential) -> bool:
        """Whether who opened a stream would be let in again, and may still do as much."""
        try:
            caller = await authenticate(self.runtime, credential.token)
        except Unavailable:
            return True  # While PostgreSQL is away no key can have been revoked there.
        return caller is not None and credential.caller.permissions <= caller.permissions


def read_request(value: object) -> Request:
    """A GraphQL request from decoded JSON. Raises `Refused` with 400."""
    if not isinstance(value, dict):
        raise _bad_request("a GraphQL request is one JSON object with the field `query`")
    query = value.get("query")
    if not isinstance(query, str) or not query.strip():
        raise _bad_request("`query` is needed, and is the text of a GraphQL document")
    name = value.get("operationName")
    if not isinstance(name, str | None):
        raise _bad_request("`operationName` is text")
    variables, extensions = value.get("variables"), value.get("extensions")
    if not isinstance(variables, dict | None):
        raise _bad_request("`variables` is a JSON object")
    if not isinstance(extensions, dict | None):
        raise _bad_request("`extensions` is a JSON object")
    if _has_nul(variables):
        raise Refused(400, "BAD_TEXT", "text cannot contain the character U+0000")
    return Request(query, variables or {}, name or None)


def refusal_errors(refused: Refused) -> list[FormattedError]:
    """A refusal in the form of GraphQL's errors."""
    return [{"message": refused.message, "extensions": {"code": refused.code}}]


def document_answer(refused: DocumentRefused, request_id: str) -> Answer:
    """The answer to a document that cannot be executed."""
    errors = format_errors(refused.errors, request_id=request_id, code=refused.code)
    return Answer({"errors": errors}, is_request_error=True)


def answer_to(error: GraphQLError, request_id: str) -> Answer:
    """The answer where an operation failed as a whole."""
    return _answer(ExecutionResult(None, [error]), request_id)


def _answer(result: ExecutionResult, request_id: str) -> Answer:
    if not result.errors:
        return Answer({"data": result.data})
    errors = format_errors(result.errors, request_id=request_id, code=BAD_INPUT)
    wait = retry_after_seconds(result.errors)
    started = result.data is not None or any(error.path for error in result.errors)
    if started:
        return Answer({"errors": errors, "data": result.data}, retry_after_seconds=wait)
    about_request = all(cause_of(error) is None for error in result.errors)
    return Answer({"errors": errors}, is_request_error=about_request, retry_after_seconds=wait)


def _bad_request(message: str) -> Refused:
    return Refused(400, "BAD_REQUEST", message)


def _has_nul(value: object) -> bool:
    stack = [value]
    while stack:
        match stack.pop():
            case str() as text if "\0" in text:
                return True
            case dict() as entries:
                stack += entries.keys()
                stack += entries.values()
            case list() as items:
                stack += items
    return False
