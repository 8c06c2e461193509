"""Whether this process can do its work, for those who start and watch it."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from aforo.api.parts.answers import json_response
from aforo.storage import postgres
from aforo.storage.scope import Runtime

PING_TIMEOUT_SECONDS = 3
ANSWER_AGE_MAX_SECONDS = 1


class Health:
    """The two routes. Anybody may ask, so an engine is asked once a second however many do."""

    def __init__(self, runtime: Runtime) -> None:
        self._pings: dict[str, Callable[[], Awaitable[None]]] = {
            "postgresql": lambda: postgres.ping(runtime.cross_tenant),
            "redis": runtime.live.ping,
            "clickhouse": runtime.events.ping,
        }
        self._asked: dict[str, tuple[float, asyncio.Task[bool]]] = {}

    async def healthz(self, _request: Request) -> Response:
        """200 if the process lives and every engine answers; 503 and which one does not."""
        return await self._report(*self._pings)

    async def readyz(self, _request: Request) -> Response:
        """200 if events can be taken, which needs PostgreSQL alone."""
        return await self._report("postgresql")

    async def _report(self, *names: str) -> Response:
        answers = await asyncio.gather(*(self._is_up(name) for name in names))
        engines = dict(zip(names, answers, strict=True))
        healthy = all(engines.values())
        body = {
            "status": "ok" if healthy else "unavailable",
            "engines": {name: "ok" if up else "unreachable" for name, up in engines.items()},
        }
        return json_response(body, HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _is_up(self, name: str) -> bool:
        now = asyncio.get_running_loop().time()
        if name in self._asked:
            asked_at, answer = self._asked[name]
            if not answer.done() or now - asked_at < ANSWER_AGE_MAX_SECONDS:
                return await asyncio.shield(answer)
        answer = asyncio.create_task(_answers(self._pings[name]))
        self._asked[name] = (now, answer)
        # A caller that leaves must not take the answer away from the others.
        return await asyncio.shield(answer)


async def _answers(ping: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            await ping()
    except Exception:  # noqa: BLE001 — whatever a driver raises, the engine did not answer.
        return False
    return True
