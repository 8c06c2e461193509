"""What the routes under `/auth` share: JSON in, JSON and cookies out, errors in words."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.auth.callers import client_of
from aforo.api.auth.cookies import SESSION, cookie, demand_csrf, demand_same_origin, set_session
from aforo.api.auth.requests import Refused, demand_json, read_body
from aforo.api.parts import relay
from aforo.api.parts.answers import Unreadable, decode_json, error_response, json_response
from aforo.sdk.errors import AforoError, Conflict, Forbidden, Invalid, NotFound
from aforo.storage.scope import Runtime
from aforo.tenants.accounts import Membership, WrongCredentials
from aforo.tenants.oidc import NotSignedIn
from aforo.tenants.sessions import Client, SignedIn, signed_in
from aforo.tenants.throttle import TooManyTries

BODY_BYTES_MAX = 16 * 1024

Route = Callable[[Request], Awaitable[Response]]

_STATUSES: dict[type[AforoError], int] = {
    WrongCredentials: HTTPStatus.UNAUTHORIZED,
    NotSignedIn: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
}


def in_words(route: Route) -> Route:
    """Answer for the errors that a route raises and a caller can act on."""

    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except TooManyTries as error:
            headers = {"Retry-After": str(error.retry_after_seconds)}
            return error_response(HTTPStatus.TOO_MANY_REQUESTS, error.code, error.message, headers)
        except tuple(_STATUSES) as error:
            status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
            return error_response(status, error.code, error.message, field=error.field)

    return answered


def runtime_of(request: Request) -> Runtime:
    """The process's runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def client(request: Request) -> Client:
    """From where the request comes."""
    return client_of(request, runtime_of(request).settings)


async def body_of(request: Request, *needed: str, optional: tuple[str, ...] = ()) -> dict[str, str]:
    """The texts of a JSON body of a page of ours; those that are `optional` may be left out.

    Raises: `Refused`.
    """
    demand_same_origin(request, runtime_of(request).settings)
    demand_json(request)
    try:
        body = decode_json(await read_body(request, bytes_max=BODY_BYTES_MAX))
    except Unreadable as error:
        raise Refused(400, "BAD_REQUEST", f"the body cannot be read as JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "BAD_REQUEST", "the body is a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name not in (*needed, *optional):
            known = ", ".join((*needed, *optional)) or "nothing"
            raise Refused(400, "BAD_REQUEST", f"the body takes {known}", field=name[:64])
    for name in needed:
        if name not in given:
            raise Refused(400, "BAD_REQUEST", f"`{name}` is missing", field=name)
    for name, value in given.items():
        if not isinstance(value, str) or "\0" in value:
            raise Refused(400, "BAD_REQUEST", f"`{name}` is a text", field=name)
    return given


async def me(request: Request) -> SignedIn:
    """Who is signed in, with the proof that a page of ours asks, where it is no GET.

    Raises: `Refused` with 401 or 403.
    """
    found = await whoever_is_here(request)
    if found is None:
        raise Refused(401, "SESSION_OVER", "nobody is signed in: sign in with POST /auth/sign-in")
    demand_csrf(request, runtime_of(request).settings, str(found.token), request.method)
    return found


async def whoever_is_here(request: Request) -> SignedIn | None:
    """Who is signed in in this browser, which proves nothing of the page that asks."""
    runtime = runtime_of(request)
    token = cookie(request, runtime.settings, SESSION)
    return await signed_in(runtime, token) if token else None


def tenant_id_of(text: str | None, *, field: str = "tenant") -> UUID | None:
    """The tenant of a global id. Raises `NotFound`."""
    return relay.local_id("Tenant", text, field=field) if text is not None else None  # type: ignore[arg-type]


def entered(request: Request, signed: SignedIn, extra: Mapping[str, Any] | None = None) -> Response:
    """The answer to whoever was let in, with the cookies of the new session."""
    settings = runtime_of(request).settings
    csrf = signed.token.csrf(settings.key_pepper)
    response = json_response({**described(signed), "csrfToken": csrf, **(extra or {})})
    set_session(response, request, settings, signed.token)
    return response


def described(signed: SignedIn) -> dict[str, Any]:
    """A session as its own member sees it."""
    return {
        "member": {
            "id": relay.global_id("Member", signed.member.id),
            "email": signed.member.email,
            "name": signed.member.name,
            "role": signed.member.role.name,
        },
        "tenant": _tenant(Membership(signed.tenant, signed.member)),
        "method": signed.session.method.name,
        "expiresAt": moment(signed.session.expires_at),
    }


def tenants(memberships: list[Membership]) -> list[dict[str, str]]:
    """The tenants that a person may enter."""
    return [{**_tenant(each), "role": each.member.role.name} for each in memberships]


def moment(value: datetime) -> str:
    """A moment in UTC, as GraphQL writes it."""
    return value.isoformat().replace("+00:00", "Z")


def _tenant(membership: Membership) -> dict[str, str]:
    row = membership.tenant
    return {
        "id": relay.global_id("Tenant", row.tenant_id),
        "name": row.name,
        "environment": row.environment.name,
    }
