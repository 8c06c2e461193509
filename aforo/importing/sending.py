"""Batches over HTTP: packed, with the same keys until there is an answer."""

import asyncio
import gzip
import random
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import httpx2
import msgspec

from aforo.importing.shapes import COUNTS, Batch, NotTaken, Taken
from aforo.sdk.errors import AforoError, Unavailable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TIMEOUT_SECONDS = 60.0
WAIT_SECONDS_MAX = 60.0
"""Whatever an answer says of waiting longer."""
BACKOFF_SECONDS_MAX = 30.0
_BACKOFF_SECONDS = 0.1
_TOO_SOON = {408, 425, 429}


class Packing(StrEnum):
    """How bodies are packed."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


_PACK: dict[Packing, Callable[[bytes], bytes]] = {
    Packing.ZSTD: zstd.compress,
    Packing.GZIP: gzip.compress,
}


class Refused(AforoError):
    """The API does not take what is sent, and never will as it is."""

    code = "REFUSED"


class Sender:
    """Sends batches to one API until each has an answer."""

    def __init__(
        self, client: httpx2.AsyncClient, *, packing: Packing, give_up_seconds: float
    ) -> None:
        """`give_up_seconds` is how long no batch at all may have had an answer."""
        self._client = client
        self._packing = packing
        self._patience = give_up_seconds
        self._last_answer = time.monotonic()

    async def send(self, batch: Batch) -> Taken:
        """What became of a batch. Raises `Refused`, `Unavailable`."""
        if not batch.rows:
            return _taken(batch, dict.fromkeys(COUNTS, 0) | {"verdicts": []})
        headers = {"Content-Type": "application/x-ndjson"}
        body = batch.body
        if pack := _PACK.get(self._packing):
            headers["Content-Encoding"] = self._packing
            body = pack(body)
        attempt = 0
        while True:
            attempt += 1
            wait, reason = 0.0, ""
            try:
                response = await self._client.post("/v1/events", content=body, headers=headers)
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == 202:
                    self._last_answer = time.monotonic()
                    return _taken(batch, _answer(response, len(batch.rows)))
                reason = _said(response)
                if response.status_code < 500 and response.status_code not in _TOO_SOON:
                    raise Refused(f"the API refuses batch {batch.number}: {reason}")
                wait = _retry_after(response)
            if time.monotonic() - self._last_answer + wait > self._patience:
                raise Unavailable(
                    f"the API gave no answer for {self._patience:g} s: {reason}; run the same "
                    "command again to go on from here"
                )
            backoff = min(BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2 ** min(attempt, 10))
            await asyncio.sleep(wait + backoff * random.random())  # noqa: S311 — no secret.


def _answer(response: httpx2.Response, rows: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = response.json()
        counted = sum(answer[name] for name in COUNTS)
        listed = len(answer["verdicts"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the answer is none of Aforo's: {response.text[:200]}") from error
    if (counted, listed) != (rows, rows - answer["accepted"]):
        raise Refused(f"{rows} events were sent, and the answer speaks of {counted}")
    return answer


def _taken(batch: Batch, answer: dict[str, Any]) -> Taken:
    not_taken = [
        NotTaken(
            line=batch.rows[verdict["index"]].line,
            idempotency_key=verdict["idempotencyKey"],
            verdict=verdict["verdict"],
            code=verdict["code"],
            message=verdict["message"],
            event_id=verdict["eventId"],
        )
        for verdict in answer["verdicts"]
        if verdict["verdict"] != "DUPLICATE"
    ]
    counts = {name: answer[name] for name in COUNTS}
    counts["rejected"] += len(batch.refused)
    listed = sorted([*not_taken, *batch.refused], key=lambda each: each.line)
    return Taken(batch=batch.number, not_taken=listed, **counts)


def _retry_after(response: httpx2.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(float(given), WAIT_SECONDS_MAX) if given.isascii() and given.isdecimal() else 0.0


def _said(response: httpx2.Response) -> str:
    try:
        message = msgspec.json.decode(response.content)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeError):
        return f"status {response.status_code}"
    return f"status {response.status_code}, {message}"
