"""Browsers of other origins: which may call the API, with a token and never with a cookie."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from aforo.api.protocol.idempotency import HEADER as IDEMPOTENCY_HEADER
from aforo.api.protocol.idempotency import REPLAYED_HEADER
from aforo.api.sdl import VERSION_HEADER

MAX_AGE_SECONDS = 600
"""How long a browser remembers what it was told."""
SENT = (
    "Accept",
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    IDEMPOTENCY_HEADER,
    "traceparent",
    # Of Apollo's clients.
    "apollo-require-preflight",
    "x-apollo-operation-name",
    "apollographql-client-name",
    "apollographql-client-version",
)
SHOWN = (
    "ETag",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
    REPLAYED_HEADER,
    VERSION_HEADER,
)
_PATHS = ("/graphql", "/schema.graphql")
_FOLDER = "/v1/"


class Cors:
    """Answers preflights, and lets pages of some origins read answers, under the paths that take a
    token. What is under `/auth` lives by cookies, which stay with our own origin."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=SENT,
            allow_credentials=False,
            expose_headers=SHOWN,
            max_age=MAX_AGE_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_open = path in _PATHS or path.startswith(_FOLDER)
        await (self._open if is_open else self._app)(scope, receive, send)
