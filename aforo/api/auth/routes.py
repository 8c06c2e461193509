"""Signing in and out by password and code, under `/auth`."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aforo.api.auth.cookies import delete_session
from aforo.api.auth.forms import (
    body_of,
    client,
    described,
    entered,
    in_words,
    me,
    moment,
    runtime_of,
    tenant_id_of,
    tenants,
)
from aforo.api.parts.answers import json_response
from aforo.api.parts.relay import global_id, local_id
from aforo.tenants import accounts, resets, second_factor, sessions
from aforo.tenants.accounts import Challenge
from aforo.tenants.invitations import Acceptance, accept_invitation


def routes() -> list[Route]:
    """All of them."""
    post = {
        "/auth/sign-in": sign_in,
        "/auth/totp": totp,
        "/auth/invitation": invitation,
        "/auth/sign-out": sign_out,
        "/auth/sign-out-everywhere": sign_out_everywhere,
        "/auth/tenant": tenant,
        "/auth/password": password,
        "/auth/password/reset": reset,
        "/auth/sessions/end": end_session,
        "/auth/totp/enrol": enrol,
        "/auth/totp/confirm": confirm,
        "/auth/totp/remove": remove,
    }
    get = {"/auth/session": session, "/auth/csrf": csrf, "/auth/sessions": own_sessions}
    return [
        *(Route(path, in_words(route), methods=["POST"]) for path, route in post.items()),
        *(Route(path, in_words(route), methods=["GET"]) for path, route in get.items()),
    ]


async def sign_in(request: Request) -> Response:
    """`{email, password, tenant?}`: let in, or asked for a code."""
    body = await body_of(request, "email", "password", optional=("tenant",))
    found = await accounts.sign_in(
        runtime_of(request),
        email=body["email"],
        password=body["password"],
        tenant_id=tenant_id_of(body.get("tenant")),
        client=client(request),
    )
    if isinstance(found, Challenge):
        return json_response({"challenge": found.token, "expiresInSeconds": found.seconds})
    return entered(request, found)


async def totp(request: Request) -> Response:
    """`{challenge, code}`: the second step of a sign-in."""
    body = await body_of(request, "challenge", "code")
    found = await accounts.answer_challenge(
        runtime_of(request),
        challenge=body["challenge"],
        code=body["code"],
        client=client(request),
    )
    return entered(request, found)


async def invitation(request: Request) -> Response:
    """`{token, name, password, code?}`: become a member."""
    body = await body_of(request, "token", "name", "password", optional=("code",))
    found = await accept_invitation(runtime_of(request), Acceptance(**body), client=client(request))
    return entered(request, found)


async def session(request: Request) -> Response:
    """Who is signed in, and what other tenants there are to switch to."""
    found = await me(request)
    memberships = await accounts.memberships_of(runtime_of(request), found)
    return json_response({**described(found), "tenants": tenants(memberships)})


async def csrf(request: Request) -> Response:
    """What a page shows in `X-CSRF-Token` to act in its session."""
    found = await me(request)
    pepper = runtime_of(request).settings.key_pepper
    return json_response({"csrfToken": found.token.csrf(pepper)})


async def sign_out(request: Request) -> Response:
    """End this session."""
    found = await me(request)
    await sessions.end_session(runtime_of(request), found)
    return _out(request)


async def sign_out_everywhere(request: Request) -> Response:
    """End every session of the person."""
    found = await me(request)
    await sessions.end_every_session(runtime_of(request), found)
    return _out(request)


async def tenant(request: Request) -> Response:
    """`{tenant}`: go on in another tenant."""
    found = await me(request)
    body = await body_of(request, "tenant")
    tenant_id = tenant_id_of(body["tenant"])
    assert tenant_id is not None, "the body has one"
    there = await accounts.switch_tenant(runtime_of(request), found, tenant_id, client(request))
    return entered(request, there)


async def password(request: Request) -> Response:
    """`{password, newPassword}`: take another password; all other sessions end."""
    found = await me(request)
    body = await body_of(request, "password", "newPassword")
    again = await accounts.change_password(
        runtime_of(request),
        found,
        current=body["password"],
        new=body["newPassword"],
        client=client(request),
    )
    return entered(request, again)


async def reset(request: Request) -> Response:
    """`{token, password}`: take another password without the old one."""
    body = await body_of(request, "token", "password")
    await resets.redeem(
        runtime_of(request), token=body["token"], password=body["password"], client=client(request)
    )
    return _nothing()


async def own_sessions(request: Request) -> Response:
    """Where else the person is signed in."""
    found = await me(request)
    rows = await sessions.own_sessions(runtime_of(request), found)
    shown = [
        {
            "id": global_id("Session", row.id),
            "tenant": global_id("Tenant", row.tenant_id),
            "method": row.method.name,
            "address": row.address,
            "userAgent": row.user_agent,
            "createdAt": moment(row.created_at),
            "lastSeenAt": moment(row.last_seen_at),
            "isCurrent": row.id == found.session.id,
        }
        for row in rows
    ]
    return json_response({"sessions": shown})


async def end_session(request: Request) -> Response:
    """`{id}`: end one of one's own sessions."""
    found = await me(request)
    body = await body_of(request, "id")
    session_id = local_id("Session", body["id"], field="id")  # type: ignore[arg-type]
    await sessions.end_own_session(runtime_of(request), found, session_id)
    return _out(request) if session_id == found.session.id else _nothing()


async def enrol(request: Request) -> Response:
    """`{password}`: a secret for a device that shows codes."""
    found = await me(request)
    body = await body_of(request, "password")
    enrolment = await second_factor.enrol(
        runtime_of(request), found, password=body["password"], client=client(request)
    )
    return json_response({"secret": enrolment.secret, "uri": enrolment.uri})


async def confirm(request: Request) -> Response:
    """`{code}`: the device's first code, from which on it is asked for."""
    found = await me(request)
    body = await body_of(request, "code")
    done = await second_factor.confirm(
        runtime_of(request), found, code=body["code"], client=client(request)
    )
    return entered(request, done.signed_in, {"recoveryCodes": done.recovery_codes})


async def remove(request: Request) -> Response:
    """`{password, code}`: do without codes again."""
    found = await me(request)
    body = await body_of(request, "password", "code")
    again = await second_factor.remove(
        runtime_of(request),
        found,
        password=body["password"],
        code=body["code"],
        client=client(request),
    )
    return entered(request, again)


def _out(request: Request) -> Response:
    response = _nothing()
    delete_session(response, request, runtime_of(request).settings)
    return response


def _nothing() -> Response:
    return Response(status_code=HTTPStatus.NO_CONTENT)
