"""The GraphQL page for browsers: GraphiQL from files of this package, with a few ready queries."""

import json
import secrets
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

ASSETS = Path(__file__).parent / "graphiql"
"""The built files: one script, one style sheet, the licences. Their source: `console/graphiql`."""

QUERIES = Path(__file__).parent / "graphiql_queries"
"""The ready queries, one `.graphql` file each."""

TABS = ("first-look", "invoices", "usage", "live-signals", "create-meter")
"""Names of the ready queries, in the order of the page's tabs."""


def page(*, endpoint: str = "/graphql", nonce: str) -> str:
    """The HTML of the page; `endpoint` is the path of both the page and the API.

    The policy that goes with it admits only what carries `nonce`.
    """
    assets = PurePosixPath(endpoint).with_name(ASSETS.name)
    return _PAGE.format(
        script=escape(str(assets / _built(".js").name)),
        style=escape(str(assets / _built(".css").name)),
        nonce=escape(nonce),
        # Inside a script element only `<` could end the data early.
        config=json.dumps({"endpoint": endpoint, "queries": ready_queries()}).replace(
            "<", "\\u003c"
        ),
    )


@cache
def ready_queries() -> tuple[str, ...]:
    """The documents of the ready queries, in the order of the tabs."""
    return tuple((QUERIES / f"{name}.graphql").read_text(encoding="utf-8") for name in TABS)


def routes() -> list[BaseRoute]:
    """Where the page's own files are: `/graphiql/<name>`, beside `/graphql`."""
    return [Route(f"/{ASSETS.name}/{{name}}", _asset, methods=["GET"])]


def prefers_page(request: Request) -> bool:
    """Whether a GET comes from a browser's address bar rather than from a GraphQL client.

    True if `text/html` is named in Accept and nothing else is named that this endpoint speaks and
    that the client likes better; at equal liking the one named first counts.
    """
    liking: dict[str, float] = {}
    for part in request.headers.get("accept", "").lower().split(","):
        media_type, _, parameters = part.partition(";")
        if media_type.strip() in _SPOKEN:
            liking.setdefault(media_type.strip(), _quality(parameters))
    # `max` keeps the first of equals.
    best = max(liking, key=lambda media_type: liking[media_type], default="")
    return best == "text/html" and liking[best] > 0


async def ide_response(request: Request) -> Response:
    """Answer a browser's GET with the page, under a policy that lets nothing leave the origin."""
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(
        page(endpoint=request.url.path, nonce=nonce),
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY.format(nonce=nonce),
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept",
            "X-Content-Type-Options": "nosniff",
        },
    )


_SPOKEN = frozenset(
    {
        "text/html",
        "application/json",
        "application/graphql-response+json",
        "text/event-stream",
        "multipart/mixed",
    }
)

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'nonce-{nonce}'",
        "style-src 'nonce-{nonce}'",
        "img-src data:",  # Marks that the style sheet embeds.
        "connect-src 'self'",  # Also the WebSocket of this origin.
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Aforo GraphQL</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{style}" nonce="{nonce}">
<script type="application/json" id="config">{config}</script>
<script type="module" src="{script}" nonce="{nonce}"></script>
</head>
<body>
<div id="graphiql"><noscript>This page needs JavaScript.</noscript></div>
</body>
</html>
"""

_LICENCES = "THIRD-PARTY-LICENSES"

_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", "": "text/plain"}


async def _asset(request: Request) -> Response:
    # Only names that were listed at the start are served: no path is ever built from a request.
    path = _assets().get(request.path_params["name"])
    if path is None:
        raise HTTPException(404)
    # A hashed name changes with its content; the licences keep theirs.
    caching = "no-cache" if path.name == _LICENCES else "public, max-age=31536000, immutable"
    return FileResponse(
        path,
        media_type=_MEDIA_TYPES[path.suffix],
        headers={"Cache-Control": caching, "X-Content-Type-Options": "nosniff"},
    )


@cache
def _assets() -> Mapping[str, Path]:
    return MappingProxyType({path.name: path for path in sorted(ASSETS.iterdir())})


def _built(suffix: str) -> Path:
    [path] = [path for path in _assets().values() if path.suffix == suffix]
    return path


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
