"""The gateway before a real Aforo, asked as Envoy documents that it asks an HTTP service."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from aforo_gateway.app import PREFIX, Setup, create_app
from aforo_gateway.rules import Fallback, Metered, Rule, Rules, Take
from tests.api.forms import GraphQL, change, made, new_key
from tests.api.gate import Sold, sell
from tests.clients.conftest import Address, served
from tests.clients.python.between import Answer, Between, standing_between
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

KEY = "sk_live_0123456789abcdef"
CHAT = Rule(
    "/v1/chat",
    {"feature": "tokens"},
    methods=frozenset({"POST"}),
    event=Metered("llm.request", {"tokens": 1}),
)
REPORTS = Rule("/v1/reports", {"feature": "sso"})
RULES = Rules((CHAT, REPORTS, Rule("/v1/other", {"feature": "unknown"})))


class Envoy:
    """Asks as ext_authz does: the client's method, its path behind `path_prefix`, its host and
    authorization, a content length of 0; with `with_request_body` the body and how much it is.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def asks(
        self,
        method: str,
        path: str,
        *,
        key: str | None = KEY,
        body: bytes = b"",
        is_partial: bool | None = None,
        **headers: str,
    ) -> httpx2.Response:
        sent = {"host": "api.example.test", "content-length": str(len(body)), **headers}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        if is_partial is not None:
            sent["x-envoy-auth-partial-body"] = str(is_partial).lower()
        return await self._client.request(method, f"{PREFIX}{path}", headers=sent, content=body)

    async def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._client.get("/health")).json()
        return answer


@asynccontextmanager
async def standing(url: str, key: str, spool: Path, rules: Rules = RULES) -> AsyncIterator[Envoy]:
    """The gateway on a port of its own, and Envoy before it."""
    setup = Setup(
        url=url, key=key, spool=spool, timeout_seconds=5, exit_seconds=0.5, now=lambda: NOW
    )
    server = uvicorn.Server(uvicorn.Config(create_app(setup, rules), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with contextlib.ExitStack() as stack:
            # pytest's own handlers stay: this server is not the process.
            server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            stack.callback(setattr, server, "should_exit", True)
            async with asyncio.timeout(60):
                while not server.started:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.005)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                yield Envoy(client)
        await serving


@pytest.fixture
async def sold(graphql: GraphQL) -> Sold:
    """Acme has 100 tokens and SSO, and a key."""
    made_ = await sell(graphql)
    given = {"customerId": made_.customer_id, "name": "k", "key": KEY}
    await made(graphql, "registerCustomerKey", **given)
    return made_


@pytest.fixture
async def between(address: Address) -> AsyncIterator[Between]:
    """What stands between the gateway and Aforo."""
    async with standing_between(address.url) as opened:
        yield opened


@pytest.fixture
async def envoy(sold: Sold, address: Address, tmp_path: Path) -> AsyncIterator[Envoy]:
    """Envoy before a gateway that follows Aforo's changes."""
    async with standing(address.url, address.key, tmp_path / "spool") as opened:
        await until(lambda: followed(opened))
        yield opened


async def followed(envoy: Envoy) -> bool:
    return bool((await envoy.health())["followed"])


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so."""
    async with asyncio.timeout(60):
        while not await is_so():  # noqa: ASYNC110 (nobody tells a client)
            await asyncio.sleep(0.01)


async def test_a_request_that_is_allowed_is_let_through_with_headers(envoy: Envoy) -> None:
    answer = await envoy.asks("POST", "/v1/chat/completions?stream=true")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-aforo-reason"] == "OK"
    assert answer.headers["x-aforo-remaining"] == "100"
    assert answer.headers["x-aforo-event"]
    assert "x-aforo-degraded" not in answer.headers
    report = await envoy.asks("GET", "/v1/reports")
    assert report.status_code == 200
    assert "x-aforo-event" not in report.headers


@pytest.mark.parametrize("is_partial", [True, False])
async def test_a_body_that_is_sent_along_changes_nothing(envoy: Envoy, is_partial: bool) -> None:
    for _ in range(2):  # The connection is good for another request.
        answer = await envoy.asks("POST", "/v1/chat", body=b"x" * 50_000, is_partial=is_partial)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "key", "status", "code"),
    [
        ("GET", "/v1/chat", KEY, 403, "NO_RULE"),
        ("POST", "/elsewhere", KEY, 403, "NO_RULE"),
        ("POST", "/v1/chat", None, 401, "UNKNOWN_CUSTOMER"),
        ("POST", "/v1/chat", "sk_live_nobodys", 401, "UNKNOWN_CUSTOMER"),
        ("POST", "/v1/chat", "x" * 300, 401, "UNKNOWN_CUSTOMER"),
        ("GET", "/v1/other", KEY, 403, "NOT_ENTITLED"),
    ],
)
async def test_a_denial_has_a_status_and_a_body_for_the_client(
    envoy: Envoy, method: str, path: str, key: str | None, status: int, code: str
) -> None:
    answer = await envoy.asks(method, path, key=key)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert (await envoy.health())["events"]["tracked"] == 0


async def test_what_is_let_through_is_counted_once_each(
    envoy: Envoy, graphql: GraphQL, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    keys = [(await envoy.asks("POST", "/v1/chat")).headers["x-aforo-event"] for _ in range(3)]

    async def is_sent() -> bool:
        return (await envoy.health())["events"] == {"tracked": 3, "waiting": 0}

    await until(is_sent)
    await run_jobs()
    found = await graphql("{ events(first: 9) { edges { node { idempotencyKey } } } }")
    counted = [each["node"]["idempotencyKey"] for each in found["events"]["edges"]]
    assert sorted(counted) == sorted(keys)


async def test_a_decision_is_remembered_until_somebody_changes_it(
    envoy: Envoy, sold: Sold, graphql: GraphQL
) -> None:
    for _ in range(5):
        assert (await envoy.asks("GET", "/v1/reports")).status_code == 200
    answers = (await envoy.health())["answers"]
    assert (answers["asked"], answers["remembered"]) == (1, 4)

    await change(graphql, "setBlock", customerId=sold.customer_id, reason="a test")

    async def is_blocked() -> bool:
        answer = await envoy.asks("GET", "/v1/reports")
        return answer.status_code == 403 and answer.json()["error"]["code"] == "BLOCKED"

    await until(is_blocked)


async def test_many_who_ask_the_same_at_once_are_answered_by_one_question(envoy: Envoy) -> None:
    answers = await asyncio.gather(*(envoy.asks("GET", "/v1/reports") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await envoy.health())["answers"]["asked"] == 1


async def test_a_limit_that_is_reached_is_denied_with_a_time_to_come_again(
    envoy: Envoy, client: httpx2.AsyncClient
) -> None:
    asked = {"customer": "acme", "feature": "tokens", "quantity": "100", "idempotencyKey": "k"}
    assert (await client.post("/v1/entitlements/consume", json=asked)).json()["allowed"]
    answer = await envoy.asks("POST", "/v1/chat")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "LIMIT_REACHED")
    ends = datetime(2026, 12, 1, tzinfo=UTC)
    assert int(answer.headers["retry-after"]) == (ends - NOW).total_seconds()


CONSUMING = Rules((replace(CHAT, take=Take.CONSUME, quantity="30"),))
RESERVING = Rules(
    (Rule("/v1/chat", {"feature": "tokens"}, quantity="60", take=Take.RESERVE, seconds=60),)
)


async def test_of_many_at_once_through_two_gateways_none_takes_what_is_not_there(
    sold: Sold,
    address: Address,
    tmp_path: Path,
    graphql: GraphQL,
    run_jobs: Callable[[], Awaitable[None]],
) -> None:
    """100 tokens, 30 for each request: three are let through, and their events settle the holds."""
    rules = Rules((replace(CONSUMING.rules[0], event=Metered("llm.request", {"tokens": 30})),))
    async with (
        standing(address.url, address.key, tmp_path / "a", rules) as one,
        standing(address.url, address.key, tmp_path / "b", rules) as other,
    ):
        answers = await asyncio.gather(
            *(envoy.asks("POST", "/v1/chat") for envoy in (one, other) for _ in range(10))
        )
        through = [each for each in answers if each.status_code == 200]
        assert len(through) == 3
        assert {each.status_code for each in answers} == {200, 429}
        assert len({each.headers["x-aforo-hold"] for each in through}) == 3

        async def is_sent() -> bool:
            events = [(await envoy.health())["events"] for envoy in (one, other)]
            tracked, waiting = (
                sum(each[name] for each in events) for name in ("tracked", "waiting")
            )
            return (tracked, waiting) == (3, 0)

        await until(is_sent)
    await run_jobs()
    found = await graphql("{ events(first: 9) { edges { node { idempotencyKey state } } } }")
    counted = {
        edge["node"]["idempotencyKey"]: edge["node"]["state"] for edge in found["events"]["edges"]
    }
    assert counted == {each.headers["x-aforo-event"]: "COUNTED" for each in through}
    quotas = '{ customer(externalId: "acme") { quotas { used remaining } } }'
    assert (await graphql(quotas))["customer"]["quotas"] == [{"used": "90", "remaining": "10"}]


async def test_the_service_behind_finalises_what_was_reserved(
    sold: Sold, address: Address, tmp_path: Path, client: httpx2.AsyncClient
) -> None:
    async with standing(address.url, address.key, tmp_path, RESERVING) as envoy:
        first = await envoy.asks("POST", "/v1/chat")
        assert first.headers["x-aforo-event"]
        assert (await envoy.asks("POST", "/v1/chat")).status_code == 429
        used = {"hold": first.headers["x-aforo-hold"], "quantity": "20"}
        assert (await client.post("/v1/entitlements/finalise", json=used)).status_code == 200
        assert (await envoy.asks("POST", "/v1/chat")).status_code == 200
        assert (await envoy.health())["events"]["tracked"] == 0


@pytest.mark.parametrize("fallback", list(Fallback))
async def test_without_aforo_no_earlier_answer_says_that_units_are_there(
    sold: Sold, between: Between, address: Address, tmp_path: Path, fallback: Fallback
) -> None:
    rules = replace(CONSUMING, when_unreachable=fallback)
    async with standing(between.url, address.key, tmp_path, rules) as envoy:
        assert (await envoy.asks("POST", "/v1/chat")).headers["x-aforo-reason"] == "OK"
        await between.down()
        answer = await envoy.asks("POST", "/v1/chat")
        assert answer.status_code == (200 if fallback is Fallback.OPEN else 403)
        assert answer.headers["x-aforo-reason"] == "UNREACHABLE"
        assert "x-aforo-hold" not in answer.headers


@pytest.mark.parametrize("fallback", list(Fallback))
async def test_without_aforo_the_last_decision_counts_and_else_the_setting(
    sold: Sold, between: Between, address: Address, tmp_path: Path, fallback: Fallback
) -> None:
    rules = replace(RULES, when_unreachable=fallback)
    async with standing(between.url, address.key, tmp_path, rules) as envoy:
        assert (await envoy.asks("GET", "/v1/reports")).status_code == 200
        await between.down()

        async def is_degraded() -> bool:
            answer = await envoy.asks("GET", "/v1/reports")
            assert answer.status_code == 200
            return answer.headers.get("x-aforo-degraded") == "true"

        await until(is_degraded)
        never_asked = await envoy.asks("POST", "/v1/chat")
        # Not 5xx, which Envoy would take for a failure of the gateway.
        assert never_asked.status_code == (200 if fallback is Fallback.OPEN else 403)
        assert never_asked.headers["x-aforo-degraded"] == "true"
        assert never_asked.headers["x-aforo-reason"] == "UNREACHABLE"
        await between.up()

        async def is_well() -> bool:
            answer = await envoy.asks("POST", "/v1/chat")
            return "x-aforo-degraded" not in answer.headers and answer.status_code == 200

        await until(is_well)


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(403), Answer(200, body=b"<html>"), Answer(200, body=b"{}")]
)
async def test_an_answer_that_decides_nothing_is_none(
    sold: Sold, between: Between, address: Address, tmp_path: Path, answer: Answer
) -> None:
    between.always = answer
    async with standing(between.url, address.key, tmp_path) as envoy:
        assert (await envoy.asks("GET", "/v1/reports")).status_code == 403
        assert (await envoy.health())["answers"]["failures"] == 1
        between.always = None
        assert (await envoy.asks("GET", "/v1/reports")).status_code == 200


async def test_the_customer_may_be_named_by_a_filter_before(
    sold: Sold, address: Address, tmp_path: Path
) -> None:
    rules = replace(RULES, key_header=None, customer_header="x-customer")
    async with standing(address.url, address.key, tmp_path, rules) as envoy:
        assert (await envoy.asks("GET", "/v1/reports", **{"x-customer": "acme"})).status_code == 200
        assert (await envoy.asks("GET", "/v1/reports")).status_code == 401


async def test_a_gateway_needs_no_more_than_to_check_and_to_send(
    sold: Sold, runtime: Runtime, tenant: NewTenant, graphql: GraphQL, tmp_path: Path
) -> None:
    _, token = await new_key(graphql, "CHECK", "INGEST")
    async with served(runtime) as url, standing(url, token, tmp_path) as envoy:
        await until(lambda: followed(envoy))
        assert (await envoy.asks("POST", "/v1/chat")).status_code == 200
