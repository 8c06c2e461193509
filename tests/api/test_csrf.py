"""Requests with a session's cookie: those that a page of another site makes change nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.api.auth.cookies import CSRF_HEADER
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.people import PASSWORD, Browser, browser, error_of, member
from tests.api.server import serving, socket_to

pytestmark = pytest.mark.anyio

CHANGE = (
    'mutation { createProduct(input: {code: "x", name: "X"}) '
    "{ __typename ... on Problem { code } } }"
)
COUNT = "{ products { edges { cursor } } }"
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def email() -> str:
    return f"ann.{uuid4().hex[:12]}@example.com"


@pytest.fixture
async def ann(runtime: Runtime, tenant_id: TenantId, email: str) -> AsyncIterator[Browser]:
    async with await member(runtime, tenant_id, email) as opened:
        del opened.client.headers["Sec-Fetch-Site"]
        yield opened


async def changed(ann: Browser) -> bool:
    """Whether the mutation was carried out."""
    assert ann.csrf
    ann.client.headers |= SAME
    answer = await ann.graphql(COUNT)
    return bool(answer["data"]["products"]["edges"])


def code(response: httpx2.Response) -> tuple[int, str]:
    [error] = response.json()["errors"]
    return response.status_code, error["extensions"]["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        SAME,
        {CSRF_HEADER: ""},
        {CSRF_HEADER: "0" * 64, **SAME},
        {CSRF_HEADER: "é", **SAME},
    ],
)
async def test_a_mutation_without_the_sessions_token_is_refused(
    ann: Browser, headers: dict[str, str]
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    refused = await ann.client.post("/graphql", json={"query": CHANGE}, headers=encoded)
    assert code(refused) == (403, "CSRF_TOKEN_NEEDED")
    assert not await changed(ann)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://aforo.test"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "https://aforo.test.evil.test"},
        {"Origin": "https://aforo.test:8443"},
    ],
)
async def test_another_site_is_refused_even_with_the_token(
    ann: Browser, headers: dict[str, str]
) -> None:
    assert ann.csrf
    refused = await ann.client.post(
        "/graphql", json={"query": CHANGE}, headers={CSRF_HEADER: ann.csrf, **headers}
    )
    assert code(refused) == (403, "CROSS_SITE")
    assert not await changed(ann)


@pytest.mark.parametrize("headers", [{}, SAME, {"Origin": "https://aforo.test"}])
async def test_a_page_of_ours_is_let_in(ann: Browser, headers: dict[str, str]) -> None:
    assert ann.csrf
    answer = await ann.client.post(
        "/graphql", json={"query": CHANGE}, headers={CSRF_HEADER: ann.csrf, **headers}
    )
    assert answer.json()["data"]["createProduct"] == {"__typename": "Product"}
    assert await changed(ann)


async def test_the_token_of_another_session_is_none(
    ann: Browser, runtime: Runtime, email: str
) -> None:
    async with browser(runtime) as other:
        await other.sign_in(email)
        assert other.csrf
        refused = await ann.client.post(
            "/graphql", json={"query": CHANGE}, headers={CSRF_HEADER: other.csrf, **SAME}
        )
    assert code(refused) == (403, "CSRF_TOKEN_NEEDED")


async def test_the_token_can_be_asked_for_by_a_page_that_forgot_it(ann: Browser) -> None:
    answer = await ann.get("/auth/csrf")
    assert answer.json() == {"csrfToken": ann.csrf}
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_form_of_any_page_is_refused_for_its_type(ann: Browser, type_: str) -> None:
    assert ann.csrf
    body = json.dumps({"query": CHANGE})
    headers = {CSRF_HEADER: ann.csrf, "Content-Type": type_, **SAME}
    refused = await ann.client.post("/graphql", content=body, headers=headers)
    assert refused.status_code == 415
    signing_in = await ann.client.post("/auth/sign-in", content="{}", headers=headers)
    assert signing_in.status_code == 415
    assert not await changed(ann)


async def test_a_query_by_get_needs_no_token_and_a_mutation_by_get_is_none(ann: Browser) -> None:
    answer = await ann.get("/graphql", query=COUNT)
    assert answer.json()["data"] == {"products": {"edges": []}}
    refused = await ann.get("/graphql", query=CHANGE)
    assert refused.status_code == 405
    assert not await changed(ann)


async def test_a_key_needs_no_token_and_comes_before_the_cookie(
    ann: Browser, tenant: NewTenant
) -> None:
    key = {"Authorization": f"Bearer {tenant.key.token}", "Sec-Fetch-Site": "cross-site"}
    answer = await ann.client.post("/graphql", json={"query": "{ viewer { kind } }"}, headers=key)
    assert answer.json()["data"] == {"viewer": {"kind": "API_KEY"}}
    wrong = {"Authorization": "Bearer afo_live_wrong"}
    refused = await ann.client.post("/graphql", json={"query": COUNT}, headers=wrong)
    assert code(refused) == (401, "UNAUTHENTICATED")


async def test_a_session_is_no_key(ann: Browser) -> None:
    token = ann.client.cookies["__Host-aforo_session"]
    ann.client.cookies.clear()
    shown = {"Authorization": f"Bearer {token}"}
    refused = await ann.client.post("/graphql", json={"query": COUNT}, headers=shown)
    assert code(refused) == (401, "UNAUTHENTICATED")


async def test_events_are_sent_by_keys_alone(ann: Browser) -> None:
    assert ann.csrf
    headers = {CSRF_HEADER: ann.csrf, **SAME}
    refused = await ann.client.post("/v1/events", json=[], headers=headers)
    assert error_of(refused) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "path",
    [
        "/auth/sign-out",
        "/auth/sign-out-everywhere",
        "/auth/password",
        "/auth/tenant",
        "/auth/sessions/end",
        "/auth/totp/enrol",
        "/auth/totp/confirm",
        "/auth/totp/remove",
    ],
)
async def test_whatever_changes_a_session_asks_for_its_token(ann: Browser, path: str) -> None:
    refused = await ann.client.post(path, json={}, headers=SAME)
    assert error_of(refused) == (403, "CSRF_TOKEN_NEEDED")
    elsewhere = {CSRF_HEADER: ann.csrf or "", "Sec-Fetch-Site": "cross-site"}
    refused = await ann.client.post(path, json={}, headers=elsewhere)
    assert error_of(refused) == (403, "CROSS_SITE")
    assert await ann.is_signed_in()
    ann.client.cookies.clear()
    assert error_of(await ann.post(path)) == (401, "SESSION_OVER")


@pytest.mark.parametrize(
    "path", ["/auth/sign-in", "/auth/totp", "/auth/invitation", "/auth/password/reset"]
)
async def test_no_other_site_signs_anybody_in(ann: Browser, path: str) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    refused = await ann.client.post(path, json={}, headers=elsewhere)
    assert error_of(refused) == (403, "CROSS_SITE")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "a@b.example"}, "password"),
        ({"email": 1, "password": "x"}, "email"),
        ({"email": "a@b.example", "password": PASSWORD, "admin": "1"}, "admin"),
        ({"email": "a@b.example", "password": "x\0"}, "password"),
    ],
)
async def test_a_body_of_another_shape_is_refused_in_words(
    ann: Browser, body: dict[str, Any], field: str
) -> None:
    refused = await ann.client.post("/auth/sign-in", json=body)
    assert error_of(refused) == (400, "BAD_REQUEST")
    assert refused.json()["error"]["field"] == field
    for text in (b"", b"[]", b"{", b"\xff", b"[" * 10_000):
        headers = {"Content-Type": "application/json"}
        refused = await ann.client.post("/auth/sign-in", content=text, headers=headers)
        assert error_of(refused) == (400, "BAD_REQUEST")
    large = await ann.client.post("/auth/sign-in", json={"email": "x" * 20_000})
    assert error_of(large) == (413, "TOO_LARGE")


# WebSockets, which every page of every site may open with our cookies.


async def test_a_socket_with_a_cookie_says_a_page_of_ours(
    runtime: Runtime, tenant_id: TenantId, email: str
) -> None:
    async with await member(runtime, tenant_id, email), serving(create_app(runtime)) as port:
        here = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=here) as client:
            answer = await client.post("/auth/sign-in", json={"email": email, "password": PASSWORD})
            cookie = f"aforo_session={answer.cookies['aforo_session']}"
        async with socket_to(port, headers={"Cookie": cookie, "Origin": here}) as socket:
            await socket.initialise()
            await socket.subscribe("{ viewer { email } }")
            assert (await socket.receive())["payload"]["data"] == {"viewer": {"email": email}}
        for origin in (None, "https://evil.test", f"http://127.0.0.1:{port + 1}", "null"):
            headers = {"Cookie": cookie, **({"Origin": origin} if origin else {})}
            async with socket_to(port, headers=headers) as socket:
                await socket.send({"type": "connection_init"})
                assert (await socket.closed())[0] == 4401
