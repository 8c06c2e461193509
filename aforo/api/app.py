"""The ASGI application: the routes, and what every answer has in common."""

from collections.abc import Awaitable

import strawberry
import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aforo.api import entitlements, ide
from aforo.api.auth import routes as auth
from aforo.api.auth.oidc import SignOn
from aforo.api.auth.origin import origin_of
from aforo.api.auth.requests import Refused
from aforo.api.cors import Cors
from aforo.api.gate_changes import changes
from aforo.api.health import Health
from aforo.api.ingest.route import events
from aforo.api.live_events import LiveEvents
from aforo.api.observe import Observed
from aforo.api.parts.answers import error_response
from aforo.api.persisted_upload import PersistedUpload
from aforo.api.protocol.documents import Documents
from aforo.api.protocol.http import GraphQLHttp
from aforo.api.protocol.operations import GraphQLService
from aforo.api.protocol.websocket import GraphQLWebSocket
from aforo.api.schema import schema as SCHEMA  # noqa: N812 — the constant of this name.
from aforo.api.sdl import SchemaFile
from aforo.sdk.errors import Unavailable
from aforo.storage.actors import ORIGIN
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

log = structlog.get_logger()


def create_app(runtime: Runtime, *, schema: strawberry.Schema = SCHEMA) -> Starlette:
    """The API over a runtime, which the caller opens and closes."""
    production, origins = runtime.settings.production, runtime.settings.cors_origins
    documents = Documents(schema, introspection=not production)
    service = GraphQLService(runtime, documents)
    health = Health(runtime)
    app = Starlette(
        routes=[
            Route("/graphql", GraphQLHttp(service, page=_no_page if production else _page)),
            WebSocketRoute("/graphql", GraphQLWebSocket(service)),
            Route("/v1/events", events, methods=["POST"]),
            *entitlements.routes(),
            Route("/v1/entitlements/changes", changes, methods=["GET"]),
            Route("/v1/live/events", LiveEvents(service, documents)),
            Route("/v1/persisted-documents", PersistedUpload(documents).post, methods=["POST"]),
            Route("/schema.graphql", SchemaFile(runtime).get, methods=["GET"]),
            *auth.routes(),
            *SignOn(runtime).routes(),
            Route("/healthz", health.healthz, methods=["GET"]),
            Route("/readyz", health.readyz, methods=["GET"]),
            *([] if production else ide.routes()),
        ],
        middleware=[
            Middleware(Observed, logs_all=runtime.settings.log_requests),
            # Outside of the envelope, so that a page can read also what that says of a bug.
            *([Middleware(Cors, origins=origins)] if origins else []),
            Middleware(Envelope),
        ],
        exception_handlers={
            HTTPException: _http_exception,
            Refused: _refused,
            Unavailable: _unavailable,
        },
    )
    app.router.redirect_slashes = False
    app.state.runtime = runtime
    app.state.graphql = service
    return app


class Envelope:
    """Gives every request an id and every answer its headers, and answers for bugs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        # Our own: a client's would end up in the log as it was sent.
        request_id = new_id().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        settings = scope["app"].state.runtime.settings
        ORIGIN.set(origin_of(HTTPConnection(scope), settings, request_id))
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_in_envelope(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message, request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_in_envelope)
        except Exception:
            log.exception("a request failed")
            if started:
                raise  # Half an answer is out: only a broken connection tells the client.
            message = f"Something failed on our side; it is logged as request {request_id}."
            await error_response(500, "INTERNAL", message)(scope, receive, send_in_envelope)


def _add_headers(message: Message, request_id: str) -> None:
    headers = message["headers"]
    names = {name for name, _ in headers}
    headers.append((b"x-request-id", request_id.encode()))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    if b"x-content-type-options" not in names:
        headers.append((b"x-content-type-options", b"nosniff"))
    MutableHeaders(scope=message).add_vary_header("Accept, Authorization, Cookie")


def _page(request: Request) -> Awaitable[Response] | None:
    return ide.ide_response(request) if ide.prefers_page(request) else None


def _no_page(_request: Request) -> None:
    return None


async def _http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
    code = codes.get(error.status_code, "BAD_REQUEST")
    return error_response(error.status_code, code, error.detail, error.headers)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error_response(error.status, error.code, error.message, error.headers, field=error.field)


async def _unavailable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    headers = {"Retry-After": str(error.retry_after_seconds)}
    return error_response(503, error.code, error.message, headers)
