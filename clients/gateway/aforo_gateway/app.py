"""The service: `/check` and what stands behind it is a request that Envoy asks about."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aforo_client import Client, ClientError
from aforo_gateway.asking import Asking
from aforo_gateway.changes import follow
from aforo_gateway.decisions import Decision, Decisions, Question
from aforo_gateway.rules import Fallback, Rule, Rules

logger = logging.getLogger("aforo_gateway")

PREFIX = "/check"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"]
BODY_BYTES_MAX = 1024 * 1024
KEY_LENGTH_MAX = 255
CANCEL_AGAIN_SECONDS = 0.2

STATUSES = {
    "UNKNOWN_CUSTOMER": 401,
    "NO_BALANCE": 402,
    "BLOCKED": 403,
    "NOT_ENTITLED": 403,
    "LIMIT_REACHED": 429,
    "THROTTLED": 429,
}
"""Of a denial; 403 for every other reason. Never 5xx: Envoy takes that for a failure of the
service, and lets the request through where `failure_mode_allow` is set."""


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Setup:
    """Where Aforo is, and how much a gateway may keep."""

    url: str
    key: str
    spool: Path
    timeout_seconds: float = 0.15
    """Less than what Envoy waits for us, which is 0.2 unless it is told otherwise."""
    decisions_max: int = 100_000
    exit_seconds: float = 5.0
    """How long the end waits for what is to be sent; the rest stays in the spool for the next."""
    now: Callable[[], datetime] = utc_now


class Gate:
    """Everything that a request needs."""

    def __init__(
        self,
        rules: Rules,
        asking: Asking,
        decisions: Decisions,
        meter: Client,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._now = now
        self._rules = rules
        self._asking = asking
        self._decisions = decisions
        self._meter = meter

    async def check(self, request: Request) -> Response:
        """Let a request through, or deny it with a reason."""
        await _discard_body(request)
        path = request.scope["path"].removeprefix(PREFIX) or "/"
        rule = self._rules.rule(request.method, path)
        if rule is None:
            return _denied(403, "NO_RULE", "no rule is for this method and path")
        who = self._who(request)
        if who is None:
            return _denied(401, "UNKNOWN_CUSTOMER", "the request does not say whose it is")
        (about, code), *_ = rule.about.items()
        question: Question = (*who, about, code, rule.quantity)
        key = str(uuid4())
        if rule.take is None:
            decision = await self._asking.decide(question)
        else:
            decision = await self._asking.take(question, rule.take, key=key, seconds=rule.seconds)
        if not decision.allowed:
            return _refusal(decision, self._now())
        headers = _told(decision)
        if rule.event is not None:
            return self._metered(rule, who, key, headers)
        if decision.hold is not None:
            headers |= {"x-aforo-event": key}  # Of the event that the service behind sends.
        return Response(status_code=200, headers=headers)

    async def health(self, _request: Request) -> Response:
        """What is going on, for a person or a monitor; always 200 while the process answers."""
        sent = self._meter.stats()
        return JSONResponse(
            {
                "decisions": len(self._decisions),
                "followed": self._decisions.is_followed,
                "answers": asdict(self._asking.figures),
                "events": {"tracked": sent.tracked, "waiting": sent.waiting},
                "lastError": sent.last_error,
            }
        )

    def _who(self, request: Request) -> tuple[str, str] | None:
        if self._rules.customer_header is not None:
            named = request.headers.get(self._rules.customer_header, "")
            return ("customer", named) if 0 < len(named) <= KEY_LENGTH_MAX else None
        given = request.headers.get(self._rules.key_header or "", "")
        key = given[7:] if given[:7].lower() == "bearer " else given
        key = key.strip()
        return ("apiKey", key) if 0 < len(key) <= KEY_LENGTH_MAX else None

    def _metered(
        self, rule: Rule, who: tuple[str, str], key: str, headers: dict[str, str]
    ) -> Response:
        """Spool the event of a request that is let through: one line on the disk, no call."""
        assert rule.event is not None
        kind, named = who
        try:
            self._meter.track(
                rule.event.type,
                customer=named if kind == "customer" else None,
                api_key=named if kind == "apiKey" else None,
                properties=rule.event.properties,
                occurred_at=self._now(),
                idempotency_key=key,
            )
        except ClientError as error:
            logger.warning("a request is not metered: %s", error)
            if self._rules.when_unreachable is Fallback.CLOSED:
                return _denied(403, "NOT_METERED", "what cannot be metered is not served")
            return Response(status_code=200, headers=headers)
        return Response(status_code=200, headers={**headers, "x-aforo-event": key})


def create_app(setup: Setup, rules: Rules) -> Starlette:
    """The service, which opens its connections when it starts."""
    decisions = Decisions(entries_max=setup.decisions_max)

    @asynccontextmanager
    async def opened(app: Starlette) -> AsyncIterator[None]:
        client = httpx2.AsyncClient(
            base_url=setup.url, headers={"Authorization": f"Bearer {setup.key}"}
        )
        meter = await asyncio.to_thread(Client, setup.url, setup.key, setup.spool)
        asking = Asking(
            client,
            decisions,
            when_unreachable=rules.when_unreachable,
            timeout_seconds=setup.timeout_seconds,
        )
        app.state.gate = Gate(rules, asking, decisions, meter, now=setup.now)
        following = asyncio.create_task(follow(client, decisions))
        try:
            yield
        finally:
            # More than once where needed: `wait_for` of Python 3.11 can swallow a cancellation.
            while not following.done():
                following.cancel()
                await asyncio.wait([following], timeout=CANCEL_AGAIN_SECONDS)
            await client.aclose()
            await asyncio.to_thread(meter.close, setup.exit_seconds)

    async def check(request: Request) -> Response:
        gate: Gate = request.app.state.gate
        return await gate.check(request)

    async def health(request: Request) -> Response:
        gate: Gate = request.app.state.gate
        return await gate.health(request)

    routes = [
        Route("/health", health),
        Route(PREFIX, check, methods=METHODS),
        Route(f"{PREFIX}/{{path:path}}", check, methods=METHODS),
    ]
    return Starlette(routes=routes, lifespan=opened)


async def _discard_body(request: Request) -> None:
    """Envoy may send the body along; nothing here hangs on it."""
    read = 0
    async for piece in request.stream():
        read += len(piece)
        if read > BODY_BYTES_MAX:
            return


def _told(decision: Decision) -> dict[str, str]:
    """Headers for the service behind, which Envoy passes on as it is configured."""
    headers = {"x-aforo-reason": decision.reason}
    if decision.remaining is not None:
        headers["x-aforo-remaining"] = format(decision.remaining, "f")
    if decision.rate_per_second is not None:
        headers["x-aforo-rate-per-second"] = decision.rate_per_second
    if decision.degraded:
        headers["x-aforo-degraded"] = "true"
    if decision.hold is not None:
        headers["x-aforo-hold"] = decision.hold
    return headers


def _refusal(decision: Decision, now: datetime) -> Response:
    headers = _told(decision)
    if decision.reason == "THROTTLED" or decision.degraded:
        headers["retry-after"] = "1"
    elif decision.reason == "LIMIT_REACHED" and decision.reset_at is not None:
        with contextlib.suppress(ValueError):
            rest = datetime.fromisoformat(decision.reset_at) - now
            headers["retry-after"] = str(max(math.ceil(rest.total_seconds()), 1))
    status = STATUSES.get(decision.reason, 403)
    return _denied(status, decision.reason, "this customer may not use this now", headers)


def _denied(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    body = json.dumps({"error": {"code": code, "message": message}})
    return Response(body, status, headers, media_type="application/json")
