"""What is told of every request: a metric, a span, and a log entry where it failed or was slow."""

from time import perf_counter

import structlog
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aforo.api.protocol.http import EVENT_STREAM
from aforo.telemetry.metrics import HTTP_REQUESTS
from aforo.telemetry.tracing import span

SLOW_SECONDS = 1.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
"""For what clients make up: a label of its own for each would fill the memory."""

log = structlog.get_logger()


class Observed:
    """The outermost application: inside of it log entries carry the request's ids."""

    def __init__(self, app: ASGIApp, *, logs_all: bool) -> None:
        self._app = app
        self._logs_all = logs_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        request = _Request(scope)
        begun = perf_counter()
        parent = _header(scope, b"traceparent")
        try:
            with span(request.method, parent=parent, is_request=True, url_path=scope["path"]):
                await self._app(scope, receive, request.watching(send))
        finally:
            self._tell(request, perf_counter() - begun)

    def _tell(self, request: "_Request", seconds: float) -> None:
        route = request.route
        if not request.is_stream:
            HTTP_REQUESTS.labels(route, request.method, request.status).observe(seconds)
        is_slow = seconds >= SLOW_SECONDS and not request.is_stream
        if self._logs_all or request.status >= 500 or is_slow:
            log.info(
                "request",
                method=request.method,
                route=route,
                status=request.status,
                milliseconds=round(seconds * 1_000, 1),
            )


class _Request:
    """What becomes of one request."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.method: str = scope["method"] if scope["method"] in _METHODS else _OTHER
        self.status = 0
        """0 where the client went before there was an answer."""
        self.is_stream = False

    @property
    def route(self) -> str:
        """The path as the application declares it."""
        endpoint, app = self._scope.get("endpoint"), self._scope.get("app")
        for route in app.routes if app and endpoint else ():
            if isinstance(route, Route | WebSocketRoute) and route.endpoint is endpoint:
                return route.path
        return _OTHER

    def watching(self, send: Send) -> Send:
        """Pass an answer on, and remember its status."""

        async def send_watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"")
                self.is_stream = kind.startswith(EVENT_STREAM.encode())
            await send(message)

        return send_watched


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
