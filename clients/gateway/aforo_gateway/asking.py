"""Asks Aforo, once for all who wait for the same; without it, goes by what was known last."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx2

from aforo_gateway.decisions import Decision, Decisions, Question
from aforo_gateway.rules import Fallback, Take

logger = logging.getLogger("aforo_gateway")

FAILURES_MAX = 3
PAUSE_SECONDS = 1.0
"""After so many failures in a row nobody waits for Aforo for so long."""


@dataclass(slots=True)
class Figures:
    """What was answered how, since the start."""

    remembered: int = 0
    asked: int = 0
    degraded: int = 0
    failures: int = 0


class Asking:
    """Answers questions; lives in one event loop."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        decisions: Decisions,
        *,
        when_unreachable: Fallback,
        timeout_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.figures = Figures()
        self._client = client
        self._decisions = decisions
        self._when_unreachable = when_unreachable
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._under_way: dict[Question, asyncio.Task[Decision | None]] = {}
        self._asked_again_at = float("-inf")
        self._failures_in_a_row = 0

    async def decide(self, question: Question) -> Decision:
        """What holds for a question. Never raises for what Aforo or the network does."""
        found = self._decisions.find(question, self._now())
        if found is not None:
            self.figures.remembered += 1
            return found
        answer = await self._ask(question) if self._now() >= self._asked_again_at else None
        if answer is not None:
            return answer
        self.figures.degraded += 1
        known = self._decisions.last_known(question)
        if known is not None:
            return replace(known, degraded=True)
        return self._unreachable()

    async def take(self, question: Question, taking: Take, *, key: str, seconds: int) -> Decision:
        """Hold the units of one request, under the key of its event. Nothing is remembered, and
        without Aforo no earlier decision counts: nobody knows whether the units are there."""
        answer = None
        if self._now() >= self._asked_again_at:
            more: dict[str, object] = {"idempotencyKey": key}
            if taking is Take.RESERVE:
                more["expiresInSeconds"] = seconds
            answer = await self._post(taking.lower(), question, more)
        if answer is not None:
            return answer
        self.figures.degraded += 1
        return self._unreachable()

    def _unreachable(self) -> Decision:
        is_open = self._when_unreachable is Fallback.OPEN
        return Decision(allowed=is_open, reason="UNREACHABLE", degraded=True)

    async def _ask(self, question: Question) -> Decision | None:
        """Aforo's answer, shared by those who ask the same meanwhile; None where there is none."""
        task = self._under_way.get(question)
        if task is None:
            task = asyncio.create_task(self._fetch(question))
            self._under_way[question] = task
            task.add_done_callback(lambda _: self._under_way.pop(question, None))
            return await asyncio.shield(task)  # Who hangs up takes the answer from nobody else.
        answer = await asyncio.shield(task)
        if answer is None or not answer.allowed or answer.remaining is None:
            return answer
        # What is left counts down, and may not be enough for everybody.
        return self._decisions.find(question, self._now()) or await self._fetch(question)

    async def _fetch(self, question: Question) -> Decision | None:
        asked_at, changes = self._now(), self._decisions.changes
        decision = await self._post("check", question, {})
        if decision is not None:
            self._decisions.keep(question, decision, asked_at=asked_at, changes=changes)
        return decision

    async def _post(
        self, name: str, question: Question, more: Mapping[str, object]
    ) -> Decision | None:
        who, which, about, code, quantity = question
        self.figures.asked += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.post(
                    f"/v1/entitlements/{name}",
                    json={who: which, about: code, "quantity": quantity, **more},
                )
            decision = _read(response)
        except (httpx2.HTTPError, TimeoutError, _NoDecision) as error:
            self._failed(f"{type(error).__name__}: {error}")
            return None
        self._failures_in_a_row = 0
        return decision

    def _failed(self, reason: str) -> None:
        self.figures.failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= FAILURES_MAX:
            self._asked_again_at = self._now() + PAUSE_SECONDS
        logger.warning("Aforo gave no decision: %s", reason)


class _NoDecision(Exception):
    """An answer that decides nothing."""


def _is_about_customer(response: httpx2.Response) -> bool:
    """Whether it is the customer's name that cannot be: else a rule is wrong, such as one that
    takes units which cannot be taken one after the other."""
    try:
        return response.json()["error"]["field"] in {"customer", "apiKey"}
    except (ValueError, TypeError, KeyError):
        return False


def _read(response: httpx2.Response) -> Decision:
    """The decision in an answer. Raises `_NoDecision`."""
    if response.status_code == httpx2.codes.BAD_REQUEST and _is_about_customer(response):
        return Decision(allowed=False, reason="UNKNOWN_CUSTOMER")
    if response.status_code != httpx2.codes.OK:
        raise _NoDecision(f"status {response.status_code}")
    try:
        return Decision.read(response.json())
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise _NoDecision(f"an answer that is none: {error}") from error
