"""Sessions in browsers: their cookies, and the walls against requests that other sites make."""

import hmac
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from aforo.api.auth.requests import Refused
from aforo.settings import Settings
from aforo.tenants.sessions import LIFE_MAX
from aforo.tenants.tokens import PersonalToken, Purpose

SESSION = "aforo_session"
CSRF = "aforo_csrf"
CSRF_HEADER = "X-CSRF-Token"
HOST_PREFIX = "__Host-"
"""A browser takes such a cookie over https alone, and from no other host than this one."""

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_SAME_ORIGIN = {"same-origin", "none"}


def origin_of(connection: HTTPConnection, settings: Settings) -> str:
    """The origin under which the browser sees us."""
    if settings.public_url:
        return settings.public_url
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return f"{scheme}://{connection.headers.get('host', '')}"


def cookie(connection: HTTPConnection, settings: Settings, name: str) -> str | None:
    """The value of one of our cookies."""
    return connection.cookies.get(_full_name(name, _is_secure(connection, settings)))


def set_cookie(
    response: Response,
    connection: HTTPConnection,
    settings: Settings,
    name: str,
    value: str,
    *,
    lives: timedelta,
    is_readable: bool = False,
) -> None:
    """Leave a cookie in the browser; no script sees it unless it `is_readable`."""
    is_secure = _is_secure(connection, settings)
    response.set_cookie(
        _full_name(name, is_secure),
        value,
        max_age=int(lives.total_seconds()),
        path="/",
        secure=is_secure,
        httponly=not is_readable,
        samesite="lax",
    )


def delete_cookie(
    response: Response, connection: HTTPConnection, settings: Settings, name: str
) -> None:
    """Take a cookie out of the browser."""
    is_secure = _is_secure(connection, settings)
    full_name = _full_name(name, is_secure)
    response.delete_cookie(full_name, path="/", secure=is_secure, httponly=True, samesite="lax")


def set_session(
    response: Response, connection: HTTPConnection, settings: Settings, token: PersonalToken
) -> str:
    """Leave a session in the browser; gives what its page shows to act in it."""
    csrf = token.csrf(settings.key_pepper)
    set_cookie(response, connection, settings, SESSION, str(token), lives=LIFE_MAX)
    set_cookie(response, connection, settings, CSRF, csrf, lives=LIFE_MAX, is_readable=True)
    return csrf


def delete_session(response: Response, connection: HTTPConnection, settings: Settings) -> None:
    """Take the session out of the browser."""
    for name in (SESSION, CSRF):
        delete_cookie(response, connection, settings, name)


def demand_same_origin(connection: HTTPConnection, settings: Settings) -> None:
    """Raise `Refused` with 403 where a browser says that a page of another origin asks.

    A client that is no browser says neither header; it has no cookie that others could misuse.
    """
    site = connection.headers.get("sec-fetch-site")
    if site in _SAME_ORIGIN:
        return
    origin = connection.headers.get("origin")
    if site is None and origin is None:
        return
    if site is not None or not _is_own(origin or "", connection, settings):
        raise Refused(
            403, "CROSS_SITE", "a session acts only for pages of this origin; use an API key else"
        )


def demand_csrf(connection: HTTPConnection, settings: Settings, session: str, method: str) -> None:
    """Raise `Refused` with 403 unless a page of ours sends this: every request that is no GET
    shows the session's own token in a header, which no form and no other site can."""
    if method in _SAFE_METHODS:
        return
    demand_same_origin(connection, settings)
    token = PersonalToken.read(Purpose.SESSION, session)
    shown = connection.headers.get(CSRF_HEADER, "")
    expected = token.csrf(settings.key_pepper) if token else ""
    if not token or not hmac.compare_digest(shown.encode(), expected.encode()):
        raise Refused(
            403,
            "CSRF_TOKEN_NEEDED",
            f"send the session's token as the header `{CSRF_HEADER}`; GET /auth/csrf tells it",
        )


def demand_own_origin(connection: HTTPConnection, settings: Settings) -> None:
    """Raise `Refused` with 403 unless `Origin` is ours: for WebSockets, which every page of every
    site may open with our cookies, and which every browser opens with that header."""
    if not _is_own(connection.headers.get("origin", ""), connection, settings):
        raise Refused(403, "CROSS_SITE", "a session acts only for pages of this origin")


def _is_own(origin: str, connection: HTTPConnection, settings: Settings) -> bool:
    if origin == origin_of(connection, settings):
        return True
    # Behind a proxy that ends TLS the scheme is another than the browser's; the host is not.
    host = connection.headers.get("host", "")
    return not settings.public_url and bool(host) and urlsplit(origin).netloc == host


def _full_name(name: str, is_secure: bool) -> str:  # noqa: FBT001
    return f"{HOST_PREFIX}{name}" if is_secure else name


def _is_secure(connection: HTTPConnection, settings: Settings) -> bool:
    """Always, save for plain http on loopback, where a browser would not keep such a cookie."""
    parts = urlsplit(origin_of(connection, settings))
    return parts.scheme == "https" or not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
