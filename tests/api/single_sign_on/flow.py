"""The steps of a sign-in at a provider, for tests."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from tests.api.people import ORIGIN, Browser
from tests.api.single_sign_on.provider import CLIENT_ID, CLIENT_SECRET, Provider

SET = """
mutation($input: SetIdentityProviderInput!) {
  setIdentityProvider(input: $input) {
    __typename
    ... on IdentityProvider { issuer clientId domains defaultRole startPath callbackPath }
    ... on Problem { code message field }
  }
}
"""


async def trust(owner: Browser, provider: Provider, mark: str, **more: Any) -> dict[str, Any]:
    given = {
        "issuer": provider.issuer,
        "clientId": CLIENT_ID,
        "clientSecret": CLIENT_SECRET,
        "domains": [f"{mark}.example"],
        **more,
    }
    answer = await owner.graphql(SET, input=given)
    assert "errors" not in answer, answer
    result: dict[str, Any] = answer["data"]["setIdentityProvider"]
    return result


def start_path(tenant_id: TenantId) -> str:
    return f"/auth/oidc/{global_id('Tenant', tenant_id)}/start"


async def start(bea: Browser, tenant_id: TenantId, **query: str) -> httpx2.Response:
    """Begin, as somebody who agreed on the page that asks."""
    agreed = {"Sec-Fetch-Site": "same-origin"}
    return await bea.client.post(start_path(tenant_id), params=query, headers=agreed)


async def at_provider(response: httpx2.Response) -> str:
    """Go where a browser is sent, and say where the provider sends it back to."""
    async with httpx2.AsyncClient() as client:
        back = await client.get(response.headers["location"])
    assert back.status_code == 303, back.text
    location: str = back.headers["location"]
    path = urlsplit(location).path
    assert location.startswith(f"{ORIGIN}/auth/oidc/")
    assert path.endswith("/callback")
    return location


async def sign_in(bea: Browser, tenant_id: TenantId, **query: str) -> httpx2.Response:
    """All the way; the answer to the browser that comes back."""
    return await bea.get(await at_provider(await start(bea, tenant_id, **query)))


def changed(url: str, **query: str) -> str:
    """A URL with other values in its query."""
    parts = urlsplit(url)
    values = {**dict(parse_qsl(parts.query)), **query}
    return urlunsplit(parts._replace(query=urlencode(values)))


async def role_of(bea: Browser) -> str:
    role: str = (await bea.get("/auth/session")).json()["member"]["role"]
    return role
