"""Signing in at the tenant's identity provider, under `/auth/oidc`: there and back."""

from http import HTTPStatus
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from aforo.api.auth.asking import asking_page
from aforo.api.auth.cookies import (
    cookie,
    delete_cookie,
    demand_same_origin,
    is_loopback,
    origin_of,
    set_cookie,
    set_session,
)
from aforo.api.auth.forms import client, in_words, runtime_of, tenant_id_of, whoever_is_here
from aforo.api.auth.requests import Refused
from aforo.api.parts.relay import global_id
from aforo.storage.scope import Runtime
from aforo.tenants.oidc import FLOW_LIFE, Flow, NotSignedIn, is_return_path, refused_by_provider
from aforo.tenants.providers import Providers
from aforo.tenants.single_sign_on import arrive, depart, issuer_of

COOKIE = "aforo_oidc"
CALLBACK = "/auth/oidc/{tenant}/callback"
"""Of each tenant its own: at one for all, a tenant's provider could have the answer of another one
sent back as its own, and would be handed the code in it (RFC 9700, 4.4)."""
RETURN_TO = "/auth/session"
PARAMETER_CHARACTERS_MAX = 4_096


class SignOn:
    """The two routes; what providers say of themselves is kept between requests."""

    def __init__(self, runtime: Runtime) -> None:
        self._providers = Providers(runtime)

    def routes(self) -> list[Route]:
        """Both."""
        return [
            Route(CALLBACK, in_words(self.callback), methods=["GET"]),
            Route("/auth/oidc/{tenant}/start", in_words(self.start), methods=["GET", "POST"]),
        ]

    async def start(self, request: Request) -> Response:
        """Send the browser to the provider of a tenant; `returnTo` is a path for afterwards.

        At once where a page of ours does so and nobody is signed in, else when a person agreed:
        any site can send a browser here, and a tenant's provider signs in whom it likes.
        """
        return_to = request.query_params.get("returnTo", RETURN_TO)
        if not is_return_path(return_to):
            raise Refused(
                400, "BAD_REQUEST", "returnTo is a path here, such as /start", field="returnTo"
            )
        tenant_id = tenant_id_of(request.path_params["tenant"])
        assert tenant_id is not None, "the path has one"
        runtime, redirect_uri = runtime_of(request), _redirect_uri(request, tenant_id)
        here = await whoever_is_here(request)
        if request.method == "POST":
            demand_same_origin(request, runtime.settings)
        elif here is not None or request.headers.get("sec-fetch-site") != "same-origin":
            return asking_page(await issuer_of(runtime, tenant_id), here)
        departure = await depart(
            runtime,
            self._providers,
            tenant_id=tenant_id,
            return_to=return_to,
            redirect_uri=redirect_uri,
            here=here,
        )
        response = RedirectResponse(departure.url, HTTPStatus.SEE_OTHER)
        sealed = departure.flow.sealed(runtime.settings.key_pepper)
        set_cookie(response, request, runtime.settings, COOKIE, sealed, lives=FLOW_LIFE)
        return response

    async def callback(self, request: Request) -> Response:
        """Take the browser back from the provider, and let its person in."""
        runtime = runtime_of(request)
        flow = _flow(request)
        given = request.query_params
        if error := given.get("error"):
            raise refused_by_provider(error)
        code = given.get("code", "")
        if not 0 < len(code) <= PARAMETER_CHARACTERS_MAX:
            raise NotSignedIn("the identity provider sent no code")
        signed_in = await arrive(
            runtime,
            self._providers,
            flow,
            code=code,
            issuer=given.get("iss"),
            redirect_uri=_redirect_uri(request, flow.tenant_id),
            client=client(request),
            here=await whoever_is_here(request),
        )
        response = RedirectResponse(flow.return_to, HTTPStatus.SEE_OTHER)
        set_session(response, request, runtime.settings, signed_in.token)
        delete_cookie(response, request, runtime.settings, COOKIE)
        return response


def _flow(request: Request) -> Flow:
    """The sign-in that this browser began, to which the answer belongs. Raises `NotSignedIn`."""
    settings, now = runtime_of(request).settings, runtime_of(request).clock.now()
    kept = cookie(request, settings, COOKIE)
    flow = Flow.opened(kept, pepper=settings.key_pepper, now=now) if kept else None
    if flow is None:
        raise NotSignedIn("this browser began no sign-in in the last ten minutes: begin again")
    is_of_tenant = request.path_params["tenant"] == global_id("Tenant", flow.tenant_id)
    if not is_of_tenant or not flow.is_answered_by(request.query_params.get("state", "")):
        raise NotSignedIn("the answer belongs to another sign-in: begin again")
    return flow


def _redirect_uri(request: Request, tenant_id: UUID) -> str:
    settings = runtime_of(request).settings
    origin = origin_of(request, settings)
    if not settings.public_url and not is_loopback(request.url.hostname or ""):
        # The header `Host` is the client's own word: a code must not be sent where it says.
        raise Refused(
            503,
            "PUBLIC_URL_NEEDED",
            "set AFORO_PUBLIC_URL to the origin that browsers see: sign-in at an identity "
            "provider returns there",
        )
    return f"{origin}{CALLBACK.format(tenant=global_id('Tenant', tenant_id))}"
