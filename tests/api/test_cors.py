"""Browsers of other origins: they get what a token opens, and nothing that a cookie does."""

import dataclasses
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from aforo.api.app import create_app
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api import small
from tests.api.people import member

pytestmark = pytest.mark.anyio

PORTAL, EVIL = "https://portal.acme.example", "https://evil.example"
OPEN = [
    "/graphql",
    "/v1/events",
    "/v1/persisted-documents",
    "/schema.graphql",
    *(f"/v1/entitlements/{name}" for name in ("check", "consume", "reserve", "finalise")),
    *("/v1/entitlements/release", "/v1/entitlements/changes", "/v1/live/events"),
]
SENT = (
    "authorization, content-type, accept, idempotency-key, last-event-id, traceparent, "
    "apollo-require-preflight, x-apollo-operation-name, apollographql-client-name, "
    "apollographql-client-version"
)
ALLOW = "access-control-allow-"


def app_for(runtime: Runtime, *origins: str) -> Starlette:
    settings = dataclasses.replace(runtime.settings, cors_origins=origins)
    return create_app(dataclasses.replace(runtime, settings=settings), schema=small.schema)


def browsing(app: Starlette) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://aforo.test")


@pytest.fixture
async def page(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    """A page of the portal's origin, which is allowed."""
    async with browsing(app_for(runtime, "http://localhost:5173", PORTAL)) as opened:
        opened.headers["origin"] = PORTAL
        yield opened


@pytest.fixture
def token(tenant: NewTenant) -> dict[str, str]:
    return {"Authorization": f"Bearer {tenant.key.token}"}


async def preflight(
    page: httpx2.AsyncClient, path: str, method: str = "POST", sent: str = SENT
) -> httpx2.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": sent}
    return await page.request("OPTIONS", path, headers=asked)


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_page_of_an_allowed_origin_may_send_what_clients_send(
    page: httpx2.AsyncClient, path: str, method: str
) -> None:
    answer = await preflight(page, path, method)
    assert answer.status_code == 200
    assert answer.headers[f"{ALLOW}origin"] == PORTAL
    assert answer.headers[f"{ALLOW}methods"] == "GET, POST"
    allowed = {each.strip().lower() for each in answer.headers[f"{ALLOW}headers"].split(",")}
    assert {each.strip() for each in SENT.split(",")} <= allowed
    assert "origin" in answer.headers["vary"].lower()
    assert f"{ALLOW}credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "sent", "origin"),
    [
        ("POST", SENT, EVIL),
        ("POST", SENT, "null"),
        ("POST", SENT, PORTAL.upper()),
        ("POST", SENT, f"{PORTAL}.evil.example"),
        ("DELETE", SENT, PORTAL),
        ("POST", "x-csrf-token", PORTAL),
        ("POST", "cookie", PORTAL),
    ],
)
async def test_what_is_not_allowed_is_refused(
    page: httpx2.AsyncClient, method: str, sent: str, origin: str
) -> None:
    page.headers["origin"] = origin
    answer = await preflight(page, "/graphql", method, sent)
    assert answer.status_code == 400
    if origin != PORTAL:
        assert f"{ALLOW}origin" not in answer.headers


async def test_every_answer_can_be_read_whatever_it_says(
    page: httpx2.AsyncClient, token: dict[str, str]
) -> None:
    stream = {"Accept": "text/event-stream", **token}
    answers = [
        await page.post("/graphql", json={"query": "{ hello }"}, headers=token),
        await page.post("/graphql", json={"query": "{ bug }"}, headers=token),
        await page.post("/graphql", json={"query": "{ hello }"}, headers=stream),
        await page.post("/graphql", json={"query": "{ hello }"}),
        await page.post("/v1/events", json=[], headers=token),
        await page.post("/v1/events", json=[]),
        await page.get("/schema.graphql"),
        await page.get("/v1/nothing"),
    ]
    assert [each.status_code for each in answers] == [200, 200, 200, 401, 202, 401, 200, 404]
    for answer in answers:
        assert answer.headers[f"{ALLOW}origin"] == PORTAL
        assert f"{ALLOW}credentials" not in answer.headers
        vary = {each.strip() for each in answer.headers["vary"].split(",")}
        assert {"Origin", "Authorization", "Cookie"} <= vary
        shown = {
            each.strip() for each in answer.headers["access-control-expose-headers"].split(",")
        }
        told = {each for each in shown if each in answer.headers}
        assert "X-Request-Id" in told
        assert {"Retry-After", "Idempotent-Replayed"} <= shown
    limits = {name for name in answers[0].headers if "ratelimit" in name}
    exposed = answers[0].headers["access-control-expose-headers"].lower()
    assert limits
    assert all(name in exposed for name in limits)


async def test_what_a_bug_leaves_behind_can_be_read_too(
    page: httpx2.AsyncClient, token: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("aforo.api.ingest.route.take_events", broken)
    answer = await page.post("/v1/events", json=[], headers=token)
    assert (answer.status_code, answer.headers[f"{ALLOW}origin"]) == (500, PORTAL)


async def test_a_page_of_another_origin_reads_nothing(
    page: httpx2.AsyncClient, token: dict[str, str]
) -> None:
    page.headers["origin"] = EVIL
    answer = await page.post("/graphql", json={"query": "{ hello }"}, headers=token)
    assert f"{ALLOW}origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


async def test_all_origins_may_be_allowed_and_still_no_cookie(
    runtime: Runtime, token: dict[str, str]
) -> None:
    async with browsing(app_for(runtime, "*")) as page:
        page.headers["origin"] = EVIL
        for answer in (
            await preflight(page, "/graphql"),
            await page.post("/graphql", json={"query": "{ hello }"}, headers=token),
            await page.get("/graphql?query={hello}", headers={"Cookie": "aforo_session=x"}),
        ):
            assert answer.headers[f"{ALLOW}origin"] == "*"  # Which no browser takes with cookies.
            assert f"{ALLOW}credentials" not in answer.headers


@pytest.mark.parametrize("origins", [(PORTAL,), ("*",)])
async def test_nothing_that_lives_by_cookies_is_open_to_other_origins(
    runtime: Runtime, origins: tuple[str, ...]
) -> None:
    app = app_for(runtime, *origins)
    closed = [each for each in app.routes if isinstance(each, Route) and each.path not in OPEN]
    assert sum(each.path.startswith("/auth/") for each in closed) > 10
    async with browsing(app) as page:
        page.headers["origin"] = PORTAL
        for route in closed:
            for method in sorted(route.methods or ()):
                path = route.path.replace("{tenant}", "x")
                answers = (await preflight(page, path, method), await page.request(method, path))
                for answer in answers:
                    assert not [name for name in answer.headers if "access-control" in name], path


async def test_a_session_changes_nothing_from_another_origin(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    settings = dataclasses.replace(runtime.settings, cors_origins=("*",))
    opened = dataclasses.replace(runtime, settings=settings)
    async with await member(opened, tenant_id, f"ann@{tenant_id.hex[-12:]}.example") as ann:
        for headers in ({"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
            ann.client.headers |= {"Origin": PORTAL, **headers}
            answer = await ann.graphql("{ tenant { name } }")
            assert answer["errors"][0]["extensions"]["code"] == "CROSS_SITE"


async def test_without_the_setting_no_other_origin_is_known(
    runtime: Runtime, token: dict[str, str]
) -> None:
    async with browsing(app_for(runtime)) as page:
        page.headers["origin"] = PORTAL
        refused = await preflight(page, "/graphql")
        assert refused.status_code == 405
        answer = await page.post("/graphql", json={"query": "{ hello }"}, headers=token)
        for each in (refused, answer):
            assert not [name for name in each.headers if "access-control" in name]
