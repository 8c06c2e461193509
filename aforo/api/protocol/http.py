"""GraphQL over HTTP: one answer as JSON, or a stream of them as server-sent events."""

import dataclasses
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from graphql import OperationType
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aforo.api.auth.callers import caller_of
from aforo.api.auth.requests import (
    Credential,
    Refused,
    demand_json,
    read_body,
)
from aforo.api.parts.answers import Unreadable, decode_json, json_response
from aforo.api.protocol.documents import DocumentRefused, Operation, Request
from aforo.api.protocol.errors import format_aforo_error, masked
from aforo.api.protocol.idempotency import REPLAYED_HEADER, key_of
from aforo.api.protocol.limits import BODY_BYTES_MAX
from aforo.api.protocol.operations import (
    Answer,
    GraphQLService,
    document_answer,
    marked,
    read_request,
    refusal_errors,
)
from aforo.api.protocol.sse import EventStream, SingleEvent
from aforo.sdk.errors import Unavailable

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"
_SPOKEN = (GRAPHQL_JSON, JSON, EVENT_STREAM)

_GET_PARAMETERS = ("query", "operationName", "documentId")
_GET_JSON_PARAMETERS = ("variables", "extensions")

log = structlog.get_logger()

Page = Callable[[HttpRequest], Awaitable[Response] | None]


class GraphQLHttp:
    """The ASGI application at `/graphql`, for requests that are no WebSocket.

    `page` may answer a GET in another way: it returns None where it does not.
    """

    def __init__(self, service: GraphQLService, *, page: Page) -> None:
        self._service = service
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HttpRequest(scope, receive)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: HttpRequest) -> Response | EventStream | SingleEvent:
        media_type = JSON
        try:
            _demand_method(request)
            if request.method == "GET" and (shown := self._page(request)) is not None:
                return await shown
            media_type = preferred_type(request.headers.get("accept", ""))
            credential = await caller_of(self._service.runtime, request)
            return await self._answer(request, credential, media_type)
        except Refused as refused:
            errors = {"errors": refusal_errors(refused)}
            return json_response(
                errors, refused.status, media_type=_as_json(media_type), headers=refused.headers
            )
        except Unavailable as error:
            return json_response(
                {"errors": [format_aforo_error(error)]},
                HTTPStatus.SERVICE_UNAVAILABLE,
                media_type=_as_json(media_type),
                headers={"Retry-After": str(error.retry_after_seconds)},
            )
        except Exception:
            request_id = request.state.request_id
            log.exception("a GraphQL request failed", request_id=request_id)
            errors = {"errors": [masked(request_id)]}
            return json_response(
                errors, HTTPStatus.INTERNAL_SERVER_ERROR, media_type=_as_json(media_type)
            )

    async def _answer(
        self, request: HttpRequest, credential: Credential, media_type: str
    ) -> Response | EventStream | SingleEvent:
        request_id: str = request.state.request_id
        headers: dict[str, str] = {}
        try:
            asked, operation = await self._service.admission.admit(
                await _asked(request), credential.caller, headers
            )
        except DocumentRefused as refused:
            answer = document_answer(refused, request_id)
            return self._one(answer, media_type, headers)
        _demand_fit(request, operation, media_type)
        if operation.kind is OperationType.SUBSCRIPTION:
            started = self._service.subscribe(
                operation, credential, request_id, resume_after=request.headers.get("last-event-id")
            )
            return EventStream(started, self._service.streams.watch(credential))
        answer = await self._service.execute(asked, operation, credential, request_id)
        return self._one(answer, media_type, headers)

    def _one(
        self, answer: Answer, media_type: str, headers: dict[str, str]
    ) -> Response | SingleEvent:
        if media_type == EVENT_STREAM:
            return SingleEvent(marked(answer))
        if answer.is_replayed:
            headers[REPLAYED_HEADER] = "true"
        status = HTTPStatus.OK
        if answer.retry_after_seconds is not None:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            headers["Retry-After"] = str(answer.retry_after_seconds)
        elif answer.is_request_error and media_type == GRAPHQL_JSON:
            # With application/json the status says nothing about GraphQL: proxies answer in it too.
            status = HTTPStatus.BAD_REQUEST
        return json_response(answer.body, status, media_type=media_type, headers=headers)


def preferred_type(accept: str) -> str:
    """The media type to answer in: the client's first preference among those spoken here.

    Of types liked equally the one named first counts, so that a client which merely can read
    event streams gets JSON. Raises `Refused` with 406.
    """
    if not accept.strip():
        return JSON
    best, best_quality = None, 0.0
    for part in accept.lower().split(","):
        name, _, parameters = part.partition(";")
        spoken = _spoken(name.strip())
        quality = _quality(parameters)
        if spoken is not None and quality > best_quality:
            best, best_quality = spoken, quality
    if best is None:
        raise Refused(406, "NOT_ACCEPTABLE", f"GraphQL is answered in {', '.join(_SPOKEN)}")
    return best


async def _asked(request: HttpRequest) -> Request:
    if request.method == "GET":
        return _from_query_string(request)
    demand_json(request)
    body = await read_body(request, bytes_max=BODY_BYTES_MAX)
    try:
        asked = read_request(decode_json(body))
    except Unreadable as error:
        raise Refused(400, "BAD_REQUEST", f"the body cannot be read as JSON: {error}") from error
    if (key := key_of(request)) is None:
        return asked
    if asked.idempotency_key not in {None, key}:
        message = "the header Idempotency-Key and extensions.idempotencyKey differ: send one"
        raise Refused(400, "BAD_IDEMPOTENCY_KEY", message)
    return dataclasses.replace(asked, idempotency_key=key)


def _from_query_string(request: HttpRequest) -> Request:
    parameters = request.query_params
    asked: dict[str, object] = {
        name: parameters[name] for name in _GET_PARAMETERS if name in parameters
    }
    for name in _GET_JSON_PARAMETERS:
        if parameters.get(name):
            try:
                asked[name] = decode_json(parameters[name])
            except Unreadable as error:
                raise Refused(400, "BAD_REQUEST", f"`{name}` is no JSON: {error}") from error
    return read_request(asked)


def _demand_method(request: HttpRequest) -> None:
    if request.method not in {"GET", "POST"}:
        raise _wrong_method("GET, POST", "GraphQL is asked by POST or GET")


def _demand_fit(request: HttpRequest, operation: Operation, media_type: str) -> None:
    """Raise `Refused` if this operation cannot be asked for in this way."""
    if request.method == "GET" and operation.kind is OperationType.MUTATION:
        raise _wrong_method("POST", "mutations are sent by POST: a GET changes nothing")
    if operation.kind is OperationType.SUBSCRIPTION and media_type != EVENT_STREAM:
        accepted = request.headers.get("accept", "").lower()
        if EVENT_STREAM not in accepted:
            raise Refused(
                406,
                "NOT_ACCEPTABLE",
                "a subscription needs `Accept: text/event-stream`, or a WebSocket with the "
                "protocol graphql-transport-ws",
            )


def _wrong_method(allowed: str, message: str) -> Refused:
    return Refused(405, "METHOD_NOT_ALLOWED", message, {"Allow": allowed})


def _as_json(media_type: str) -> str:
    return JSON if media_type == EVENT_STREAM else media_type


def _spoken(name: str) -> str | None:
    if name in _SPOKEN:
        return name
    return JSON if name in {"*/*", "application/*"} else None


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
