"""People in browsers, for tests: who keeps cookies and shows the session's token."""

import base64
from random import randrange
from types import TracebackType
from typing import Any, Self

import httpx2
from starlette.applications import Starlette

from aforo.api.app import create_app
from aforo.api.auth.cookies import CSRF_HEADER
from aforo.sdk.ids import TenantId
from aforo.storage.clock import Clock
from aforo.storage.scope import Runtime
from aforo.tenants import totp
from aforo.tenants.members import OPERATOR, invite
from aforo.tenants.permissions import Role

PASSWORD = "correct horse battery"
ORIGIN = "https://aforo.test"


class Browser:
    """One browser; all that it sends is of a page of ours, unless a test says otherwise."""

    def __init__(self, app: Starlette, *, address: str | None = None) -> None:
        # One of its own, else the failures of all tests would be counted together.
        address = address or f"2001:db8:{randrange(2**16):x}:{randrange(2**16):x}::1"
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, client=(address, 50_000)),
            base_url=ORIGIN,
            headers={"Sec-Fetch-Site": "same-origin", "User-Agent": "Browser of a test"},
        )
        self.csrf: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        await self.client.aclose()

    async def post(self, path: str, **body: Any) -> httpx2.Response:
        """Post JSON, with the token of the session if there is one."""
        headers = {CSRF_HEADER: self.csrf} if self.csrf else {}
        response = await self.client.post(path, json=body, headers=headers)
        if response.status_code == 200 and "csrfToken" in response.json():
            self.csrf = response.json()["csrfToken"]
        return response

    async def get(self, path: str, **query: str) -> httpx2.Response:
        return await self.client.get(path, params=query or None)

    async def sign_in(self, email: str, password: str = PASSWORD, **more: str) -> httpx2.Response:
        return await self.post("/auth/sign-in", email=email, password=password, **more)

    async def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The whole answer to a document."""
        response = await self.post("/graphql", query=query, variables=variables)
        answer: dict[str, Any] = response.json()
        return answer

    async def is_signed_in(self) -> bool:
        return (await self.get("/auth/session")).status_code == 200


class Device:
    """Shows codes."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._secret = base64.b32decode(secret)
        self._clock = clock
        self.recovery_codes: list[str] = []

    def code(self) -> str:
        return totp.code_at(self._secret, totp.step_at(self._clock.now()))

    def wrong_code(self) -> str:
        return f"{(int(self.code()) + 1) % 1_000_000:06}"


def browser(runtime: Runtime, *, address: str | None = None) -> Browser:
    return Browser(create_app(runtime), address=address)


async def invitation(
    runtime: Runtime, tenant_id: TenantId, email: str, role: Role = Role.OWNER
) -> str:
    """The token of an invitation that the operator makes."""
    pepper = runtime.settings.key_pepper
    async with runtime.scope(tenant_id) as scope:
        issued = await invite(scope, granter=OPERATOR, email=email, role=role, pepper=pepper)
    return issued.token


async def member(
    runtime: Runtime, tenant_id: TenantId, email: str, role: Role = Role.OWNER
) -> Browser:
    """A new member, signed in."""
    opened = browser(runtime)
    token = await invitation(runtime, tenant_id, email, role)
    response = await opened.post(
        "/auth/invitation", token=token, name=email.partition("@")[0], password=PASSWORD
    )
    assert response.status_code == 200, response.text
    return opened


def error_of(response: httpx2.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]
