"""What every route does with a request first: who is it, and how large is the body."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import structlog
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from aforo.api.parts.permissions import Needs
from aforo.storage.scope import Runtime
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import Caller, CallerKind, authenticate

BODY_TIMEOUT_SECONDS = 60.0
"""For all of a body: who sends a byte now and then would hold a connection for ever."""
CHALLENGE = 'Bearer realm="aforo"'
_TOKEN_CHARACTERS_MAX = 200


class Refused(Exception):
    """A request that is answered without being carried out; each route says so in its form."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.field = field


@dataclass(frozen=True, slots=True)
class Credential:
    """A key or session as it was presented, with whom it speaks for; long streams look again."""

    token: str = field(repr=False)
    caller: Caller
    is_session: bool = False
    """Whether it is a member's session, out of a cookie, and no key."""


def bearer_token(connection: HTTPConnection) -> str | None:
    """The token of the Authorization header, if there is one."""
    return token_of(connection.headers.get("authorization"))


def token_of(authorization: object) -> str | None:
    """The token in `Bearer <token>`; the word may be left out."""
    if not isinstance(authorization, str):
        return None
    scheme, _, token = authorization.strip().rpartition(" ")
    if scheme.lower() not in {"bearer", ""} or not 0 < len(token) <= _TOKEN_CHARACTERS_MAX:
        return None
    return token


async def identify(runtime: Runtime, token: str | None) -> Credential:
    """Who presents this token. Raises `Refused` with 401, or `Unavailable`."""
    caller = await _recognised(runtime, token) if token else None
    if token is None or caller is None:
        raise Refused(
            401,
            "UNAUTHENTICATED",
            "an API key is needed that is neither revoked nor expired: "
            "send it as the header `Authorization: Bearer afo_…`",
            {"WWW-Authenticate": CHALLENGE},
        )
    structlog.contextvars.bind_contextvars(tenant_id=str(caller.tenant_id))
    return Credential(token, caller)


async def _recognised(runtime: Runtime, token: str) -> Caller | None:
    """Who presents this token, as of half a second ago at most. The token itself is not kept."""
    key, now = ("caller", sha256(token.encode()).digest()), runtime.clock.now()
    known: Caller | None = runtime.lately.find(key, now)
    if known is not None:
        return known
    mark = runtime.lately.mark(now)
    caller = await authenticate(runtime, token)
    if caller is not None:
        runtime.lately.keep(key, caller, tenant_id=caller.tenant_id, mark=mark)
    return caller


def demand_all(caller: Caller, needs: Needs) -> None:
    """Raise `Refused` with 403 unless the caller may run the operation that needs this."""
    if caller.kind is CallerKind.PORTAL and needs.outside_portal is not None:
        raise Refused(
            403, "FORBIDDEN", f"`{needs.outside_portal}` is not to be had with a portal token"
        )
    demand(caller, needs.permissions)


def demand(caller: Caller, needs: Mapping[Permission, str]) -> None:
    """Raise `Refused` with 403 unless the caller has every permission, each needed somewhere."""
    if needs.keys() <= caller.permissions:
        return
    lacking = " and ".join(
        f"{permission.name} for `{needs[permission]}`"
        for permission in Permission
        if permission in needs and permission not in caller.permissions
    )
    raise Refused(403, "FORBIDDEN", f"{caller.named} lacks the permission {lacking}")


async def read_body(request: Request, *, bytes_max: int) -> bytes:
    """The body, read no further than the limit. Raises `Refused` with 413, 408 or 400."""
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdecimal() and len(stated) < 20 and int(stated) > bytes_max:
        raise _too_large(bytes_max, f"{int(stated):,} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > bytes_max:
                    raise _too_large(bytes_max, "more")
    except TimeoutError as error:
        message = f"the body took more than {BODY_TIMEOUT_SECONDS:g} s; send it again"
        raise Refused(408, "TIMEOUT", message, {"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise Refused(400, "BAD_REQUEST", "the body ended early") from error
    return bytes(body)


def media_type(request: Request) -> str:
    """The type of the body without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_utf8(request: Request) -> bool:
    """Whether the body's type does not say that it is in another character set than UTF-8."""
    _, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").lower().partition("charset=")[2].strip('"')
    return charset in {"", "utf-8", "utf8"}


def demand_json(request: Request) -> None:
    """Raise `Refused` with 415 unless the body is JSON in UTF-8, as it is."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", "the body is sent without a content encoding")
    if media_type(request) != "application/json" or not is_utf8(request):
        raise Refused(
            415, "UNSUPPORTED_MEDIA_TYPE", "the body is sent as application/json in UTF-8"
        )


def _too_large(bytes_max: int, asked: str) -> Refused:
    # The rest of the body is not worth reading, so the connection cannot go on.
    message = f"a body has at most {bytes_max:,} bytes, and this one has {asked}: send it in parts"
    return Refused(413, "TOO_LARGE", message, {"Connection": "close"})
