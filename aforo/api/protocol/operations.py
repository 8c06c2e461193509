"""What every transport of GraphQL does: read a request, run the operation, word the answer."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncGenerator, Hashable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from time import perf_counter
from typing import Any

import structlog
from graphql import ExecutionResult, GraphQLError, OperationType

from aforo.api.auth.requests import Credential, Refused
from aforo.api.parts.answers import decode_json, encode_json
from aforo.api.parts.context import Context
from aforo.api.protocol.admission import Admission, document_id_of
from aforo.api.protocol.cost import COST_MAX
from aforo.api.protocol.documents import DocumentRefused, Documents, Operation, Request
from aforo.api.protocol.errors import (
    FormattedError,
    cause_of,
    format_errors,
    is_our_fault,
    request_error,
    retry_after_seconds,
)
from aforo.api.protocol.idempotency import Idempotency, Undone, checked_key, claim_of, is_too_large
from aforo.api.protocol.streams import End, Streams
from aforo.sdk.errors import Unavailable
from aforo.storage.idempotency import Kept
from aforo.storage.live_topic import FellBehind
from aforo.storage.savepoints import Savepoints
from aforo.storage.scope import Runtime
from aforo.telemetry.metrics import GRAPHQL_OPERATIONS, STREAMS
from aforo.telemetry.tracing import span
from aforo.tenants.queries import Caller

OPERATION_TIMEOUT_SECONDS = 30
STREAMS_MAX = 2_000
"""Subscriptions of one process, over every transport,"""
STREAMS_OF_TENANT_MAX = 1_500
"""of one tenant, so that there is room for others,"""
STREAMS_OF_CUSTOMER_MAX = 100
"""and of the portals of one customer, whose users are strangers to the tenant."""

NESTING_MAX = 100
"""Of variables."""

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
    is_replayed: bool = False
    """It was given before, to the first request with this Idempotency-Key."""
    cursor: str | None = None
    """Where the stream stands that this is an answer of."""

    @property
    def outcome(self) -> str:
        """How it went, in one word."""
        if self.retry_after_seconds is not None:
            return "unavailable"
        if self.is_request_error:
            return "refused"
        return "error" if "errors" in self.body else "ok"


class StreamLimitReached(Unavailable):
    """This process has as many subscriptions as it takes, of all or of one."""

    code = "TOO_MANY_SUBSCRIPTIONS"


class GraphQLService:
    """Runs operations for callers, whatever brought them here."""

    def __init__(self, runtime: Runtime, documents: Documents) -> None:
        self.runtime = runtime
        self.streams = Streams(runtime)
        self._documents = documents
        self.admission = Admission(runtime, documents)
        self._idempotency = Idempotency(runtime)
        self._streams: Counter[Hashable] = Counter()
        """Open subscriptions, by whose they are."""

    async def execute(
        self, asked: Request, operation: Operation, credential: Credential, request_id: str
    ) -> Answer:
        """Run a query or mutation to its end, or for 30 s.

        A mutation with an Idempotency-Key is one transaction, with its answer in it. Raises
        `Refused` with 409 where the key stands for another request, or for one that still runs.
        """
        begun = perf_counter()
        if operation.constant is not None and asked.idempotency_key is None:
            answer = Answer({"data": dict(operation.constant)})  # There is nothing to carry out.
        else:
            with span(f"graphql {operation.kind.value}"):
                context = Context(self.runtime, credential.caller, request_id)
                answer = await self._executed(asked, operation, context)
        cost = {"requested": operation.cost, "maximum": COST_MAX}
        answer.body["extensions"] = {**answer.body.get("extensions", {}), "cost": cost}
        seconds = perf_counter() - begun
        GRAPHQL_OPERATIONS.labels(operation.kind.value, answer.outcome).observe(seconds)
        return answer

    async def _executed(self, asked: Request, operation: Operation, context: Context) -> Answer:
        is_keyed = asked.idempotency_key and operation.kind is OperationType.MUTATION
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_SECONDS):
                if is_keyed:
                    return await self._execute_once(asked, operation, context)
                result = await self._documents.execute(operation, context)
                return _answer(result, context.request_id)
        except TimeoutError:
            failure = Unavailable(
                f"the operation took more than {OPERATION_TIMEOUT_SECONDS} s; ask for less",
                code="TIMEOUT",
            )
        except Unavailable as error:  # Of the transaction as a whole: of no field.
            failure = error
        return answer_to(GraphQLError(failure.message, original_error=failure), context.request_id)

    async def _execute_once(self, asked: Request, operation: Operation, context: Context) -> Answer:
        assert asked.idempotency_key is not None, "the caller looked"
        if context.caller.customer_id is not None:
            # The one transaction would be of the whole tenant, without the customer's wall.
            raise Refused(400, "BAD_IDEMPOTENCY_KEY", "a portal token sends no Idempotency-Key")
        given: Answer | None = None

        async def work(savepoints: Savepoints) -> Kept:
            nonlocal given
            context.savepoints = savepoints
            result = await self._documents.execute(operation, context)
            given = _answer(result, context.request_id)
            if any(is_our_fault(error) for error in result.errors or ()):
                # What the other fields of the operation changed is undone with it.
                given = dataclasses.replace(given, body={**given.body, "data": None})
                raise Undone
            if given.is_request_error:
                raise Undone
            body = encode_json(given.body)
            if is_too_large(body):
                given = _too_large_to_keep()
                raise Undone
            return Kept(HTTPStatus.OK, body)

        wanted = claim_of(context.caller, asked.idempotency_key, _identity_of(asked))
        try:
            once = await self._idempotency.once(wanted, work)
        except Undone:
            assert given is not None, "the work gives an answer before it is undone"
            return given
        if once.replayed:
            return Answer(decode_json(once.answer.body), is_replayed=True)
        assert given is not None, "what was not replayed was made here"
        return given

    def subscribe(
        self,
        operation: Operation,
        credential: Credential,
        request_id: str,
        *,
        resume_after: str | None = None,
    ) -> "Subscription":
        """Begin a subscription. `resume_after` is what the transport says of the last cursor."""
        # Rows must not be remembered from one event to the next.
        context = Context(
            self.runtime,
            credential.caller,
            request_id,
            remembers=False,
            resume_after=resume_after,
        )
        return self.follow(context, self._results(operation, context))

    def follow(self, context: Context, answers: AsyncGenerator[Answer]) -> "Subscription":
        """Begin a stream of answers of any kind, among all that are open here."""
        return Subscription(context, self._counted(context, answers))

    async def _results(self, operation: Operation, context: Context) -> AsyncGenerator[Answer]:
        started = await self._documents.subscribe(operation, context)
        if isinstance(started, ExecutionResult):
            yield _answer(started, context.request_id)
            return
        try:
            async for result in started:
                yield _told(_answer(result, context.request_id), context)
        finally:
            await started.aclose()  # type: ignore[attr-defined]

    async def _counted(
        self, context: Context, answers: AsyncGenerator[Answer]
    ) -> AsyncGenerator[Answer]:
        places = rooms(context.caller)
        if any(self._streams[whose] >= most for whose, most in places.items()):
            full = StreamLimitReached("this server has no room for another subscription; try later")
            yield answer_to(GraphQLError(full.message, original_error=full), context.request_id)
            return
        self._streams.update(places.keys())
        STREAMS.inc()
        try:
            async for answer in answers:
                yield answer
        except FellBehind as error:
            assert context.followed is not None, "only who follows a stream can be behind"
            told = context.followed.farewell(error)
            yield Answer({"errors": [request_error(error.code, error.message, **told)]})
        except Exception as error:  # noqa: BLE001 — the source of events may raise anything.
            wrapped = GraphQLError(str(error), original_error=error)
            yield answer_to(wrapped, context.request_id)
        finally:
            await answers.aclose()
            self._streams.subtract(places.keys())
            for whose in places:
                if not self._streams[whose]:
                    del self._streams[whose]
            STREAMS.dec()


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that runs: its answers, and where the stream behind it stands."""

    _context: Context
    answers: AsyncGenerator[Answer]
    """Close it to end the subscription."""

    @property
    def resting_place(self) -> str | None:
        """Cursor up to which nothing is missing, whether or not anything was for this reader; None
        while an answer is on its way, and as long as the stream is not open."""
        followed = self._context.followed
        return followed.cursor if followed and followed.follower.is_waiting else None


def read_request(value: object) -> Request:
    """A GraphQL request from decoded JSON. Raises `Refused` with 400."""
    if not isinstance(value, dict):
        raise _bad_request("a GraphQL request is one JSON object with the field `query`")
    name = value.get("operationName")
    if not isinstance(name, str | None):
        raise _bad_request("`operationName` is text")
    variables, extensions = value.get("variables"), value.get("extensions")
    if not isinstance(variables, dict | None):
        raise _bad_request("`variables` is a JSON object")
    if not isinstance(extensions, dict | None):
        raise _bad_request("`extensions` is a JSON object")
    _check_values(variables)
    extensions = extensions or {}
    query, document_id, is_apollo = _document_of(value, extensions.get("persistedQuery"))
    key = extensions.get("idempotencyKey")
    return Request(
        query,
        variables or {},
        name or None,
        idempotency_key=None if key is None else checked_key(key),
        document_id=document_id,
        is_apollo=is_apollo,
    )


def _document_of(value: dict[str, Any], apollo: object) -> tuple[str, str | None, bool]:
    """The text of the document or its id, or in Apollo's form both; and whether it is that form."""
    query, document_id = value.get("query"), value.get("documentId")
    has_query = isinstance(query, str) and query.strip() != ""
    if document_id is not None:
        if query is not None or apollo is not None:
            raise _bad_request("send `documentId` or `query`, not both")
        return "", document_id_of(document_id), False
    if apollo is not None and (has_query or query is None):
        sha256_hash = apollo.get("sha256Hash") if isinstance(apollo, dict) else None
        if not isinstance(sha256_hash, str):
            raise _bad_request("`persistedQuery` is an object with `version` 1 and `sha256Hash`")
        if query and sha256(query.encode()).hexdigest() != sha256_hash:
            raise _bad_request("`sha256Hash` is not the SHA-256 of `query`")
        return query or "", document_id_of(f"sha256:{sha256_hash}"), True
    if not isinstance(query, str) or not has_query:
        raise _bad_request("`query` is needed, and is the text of a GraphQL document")
    return query, None, False


def refusal_errors(refused: Refused) -> list[FormattedError]:
    """A refusal in the form of GraphQL's errors."""
    extensions: dict[str, object] = {"code": refused.code}
    if (wait := refused.headers.get("Retry-After")) is not None:
        extensions["retryAfter"] = int(wait)  # In seconds; a WebSocket has no headers.
    return [{"message": refused.message, "extensions": extensions}]


def document_answer(refused: DocumentRefused, request_id: str) -> Answer:
    """The answer to a document that cannot be executed."""
    errors = format_errors(refused.errors, request_id=request_id, code=refused.code)
    return Answer({"errors": errors}, is_request_error=True)


def marked(answer: Answer) -> Answer:
    """The answer for a transport without headers: there `extensions` say that it is replayed."""
    if not answer.is_replayed:
        return answer
    extensions = {**answer.body.get("extensions", {}), "idempotentReplayed": True}
    return dataclasses.replace(answer, body={**answer.body, "extensions": extensions})


def answer_to(error: GraphQLError, request_id: str) -> Answer:
    """The answer where an operation failed as a whole."""
    return _answer(ExecutionResult(None, [error]), request_id)


def ended(end: End, cursor: str | None) -> Answer:
    """The last answer of a stream that has to end."""
    told = {"cursor": cursor} if cursor else {}
    return Answer({"errors": [request_error(end.name, end.value, **told)]})


def _told(answer: Answer, context: Context) -> Answer:
    """The answer with where its stream stands, and what was missed before it."""
    followed = context.followed
    if followed is None:
        return answer
    extensions = {**answer.body.get("extensions", {}), **followed.extensions}
    return dataclasses.replace(
        answer, body={**answer.body, "extensions": extensions}, cursor=extensions["cursor"]
    )


def rooms(caller: Caller) -> Mapping[Hashable, int]:
    """How many subscriptions there may be beside this caller's, by whose they are."""
    found: dict[Hashable, int] = {
        "everybody": STREAMS_MAX,
        caller.tenant_id: STREAMS_OF_TENANT_MAX,
    }
    if caller.customer_id is not None:
        found[caller.tenant_id, caller.customer_id] = STREAMS_OF_CUSTOMER_MAX
    return found


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


def _identity_of(asked: Request) -> dict[str, Any]:
    return {
        "query": asked.query,
        "operationName": asked.operation_name,
        "variables": dict(asked.variables),
    }


def _too_large_to_keep() -> Answer:
    message = (
        "the answer is too large to be kept under an Idempotency-Key, and nothing was changed: "
        "select less in the mutation, and read the rest by a query"
    )
    return Answer({"errors": [request_error("ANSWER_TOO_LARGE", message)], "data": None})


def _bad_request(message: str) -> Refused:
    return Refused(400, "BAD_REQUEST", message)


def _check_values(variables: object) -> None:
    """Raise `Refused` with 400 for text that nothing can hold, and for nesting that no type has:
    what goes down level by level would run out of stack."""
    stack = [(variables, 0)]
    while stack:
        value, nesting = stack.pop()
        if nesting > NESTING_MAX:
            message = f"`variables` are nested deeper than {NESTING_MAX} levels"
            raise Refused(400, "LIMIT_EXCEEDED", message)
        match value:
            case str() as text if "\0" in text:
                raise Refused(400, "BAD_TEXT", "text cannot contain the character U+0000")
            case dict() as entries:
                stack += [(each, nesting + 1) for each in (*entries.keys(), *entries.values())]
            case list() as items:
                stack += [(each, nesting + 1) for each in items]
