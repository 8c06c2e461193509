"""Whether this process can do its work, for those who start and watch it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.answers import json_response
from aforo.storage import postgres
from aforo.storage.scope import Runtime

PING_TIMEOUT_SECONDS = 3


async def healthz(request: Request) -> Response:
    """200 if the process lives and every engine answers; 503 and which one does not."""
    runtime: Runtime = request.app.state.runtime
    engines = {
        "postgresql": lambda: postgres.ping(runtime.cross_tenant),
        "redis": runtime.live.ping,
        "clickhouse": runtime.events.ping,
    }
    return await _report(engines)


async def readyz(request: Request) -> Response:
    """200 if events can be taken, which needs PostgreSQL alone."""
    runtime: Runtime = request.app.state.runtime
    return await _report({"postgresql": lambda: postgres.ping(runtime.cross_tenant)})


async def _report(pings: Mapping[str, Callable[[], Awaitable[None]]]) -> Response:
    answers = await asyncio.gather(*(_answers(ping) for ping in pings.values()))
    engines = dict(zip(pings, answers, strict=True))
    healthy = all(engines.values())
    body = {
        "status": "ok" if healthy else "unavailable",
        "engines": {name: "ok" if up else "unreachable" for name, up in engines.items()},
    }
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response(body, status)


async def _answers(ping: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            await ping()
    except Exception:  # noqa: BLE001 — whatever a driver raises, the engine did not answer.
        return False
    return True
