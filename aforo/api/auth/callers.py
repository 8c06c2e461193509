"""Who calls: by a key in the header Authorization, or by the session of a browser's cookie."""

from collections.abc import Iterable

import structlog
from starlette.requests import HTTPConnection, Request

from aforo.api.auth.cookies import SESSION, cookie, demand_csrf, demand_own_origin
from aforo.api.auth.requests import Credential, Refused, bearer_token, identify
from aforo.settings import Settings
from aforo.storage.scope import Runtime
from aforo.tenants.queries import Caller, authenticate_all
from aforo.tenants.sessions import Client, callers_of_sessions, signed_in

ADDRESS_CHARACTERS_MAX = 64
_HEADER = "authorization"


async def caller_of(runtime: Runtime, request: Request) -> Credential:
    """Who sends a request. A key in the header comes before a cookie, and needs no CSRF token.

    Raises: `Refused` with 401 or 403, `Unavailable`.
    """
    if _HEADER in request.headers:
        return await identify(runtime, bearer_token(request))
    session = cookie(request, runtime.settings, SESSION)
    if session is None:
        return await identify(runtime, None)
    found = await _by_session(runtime, session)
    demand_csrf(request, runtime.settings, session, request.method)
    return found


async def caller_of_socket(
    runtime: Runtime, socket: HTTPConnection, token: str | None
) -> Credential:
    """Who opens a WebSocket: by the token of its first message, else by the handshake's header or
    cookie. Raises: `Refused` with 401 or 403, `Unavailable`."""
    token = token or bearer_token(socket)
    session = cookie(socket, runtime.settings, SESSION)
    if token is not None or session is None or _HEADER in socket.headers:
        return await identify(runtime, token)
    demand_own_origin(socket, runtime.settings)
    return await _by_session(runtime, session)


async def looked_at_again(runtime: Runtime, credential: Credential) -> Credential:
    """Who presented it, by what he may do now: a socket lives long, and each operation on it is a
    request. Raises: `Refused` with 401, `Unavailable`."""
    if credential.is_session:
        return await _by_session(runtime, credential.token)
    return await identify(runtime, credential.token)


async def recognised(runtime: Runtime, credentials: Iterable[Credential]) -> dict[str, Caller]:
    """Who presents these, looked at again, by token; nobody's are absent. To look is no use."""
    keys: set[str] = set()
    sessions: set[str] = set()
    for credential in credentials:
        (sessions if credential.is_session else keys).add(credential.token)
    callers = await authenticate_all(runtime, keys)
    return {**callers, **await callers_of_sessions(runtime, sessions)}


def client_of(connection: HTTPConnection, settings: Settings) -> Client:
    """From where a request comes: the address that the outermost of our own proxies saw. What
    stands further left in `X-Forwarded-For` is the client's own word."""
    address = connection.client.host if connection.client else ""
    if settings.proxies:
        told = [
            each.strip()
            for line in connection.headers.getlist("x-forwarded-for")
            for each in line.split(",")
        ]
        address = told[-settings.proxies] if len(told) >= settings.proxies else address
    agent = connection.headers.get("user-agent", "")
    if not agent.isprintable():
        agent = "".join(each for each in agent if each.isprintable())
    return Client(address[:ADDRESS_CHARACTERS_MAX], agent)


async def _by_session(runtime: Runtime, token: str) -> Credential:
    found = await signed_in(runtime, token)
    if found is None:
        raise Refused(
            401, "SESSION_OVER", "the session is over: sign in again with POST /auth/sign-in"
        )
    structlog.contextvars.bind_contextvars(tenant_id=str(found.tenant_id))
    return Credential(token, found.caller, is_session=True)
