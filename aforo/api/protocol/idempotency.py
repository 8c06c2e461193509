"""`Idempotency-Key`: a request that is sent again changes nothing more, and is answered alike."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from weakref import WeakValueDictionary

from starlette.requests import HTTPConnection

from aforo.api.auth.requests import Refused
from aforo.metering.canonical import canonical
from aforo.storage.failpoints import reached
from aforo.storage.idempotency import ANSWER_BYTES_MAX, Claim, Kept, KeyReused, claim, keep
from aforo.storage.savepoints import Savepoints, one_transaction
from aforo.storage.scope import Runtime
from aforo.tenants.queries import Caller

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
KEY_CHARACTERS_MAX = 255
WAIT_SECONDS = 10.0
"""For another request with the same key that is still being answered."""

_KEY = re.compile(rf"[\x20-\x7e]{{1,{KEY_CHARACTERS_MAX}}}")

Work = Callable[[Savepoints], Awaitable[Kept]]


class Undone(Exception):
    """Raised by the work: what it changed is undone, and its key may be used again."""


@dataclass(frozen=True, slots=True)
class Once:
    """The answer, and whether it was given before."""

    answer: Kept
    replayed: bool


def key_of(connection: HTTPConnection) -> str | None:
    """The key in the headers, if there is one. Raises `Refused` with 400."""
    given = connection.headers.getlist(HEADER)
    if len(given) > 1:
        raise _bad_key("send one Idempotency-Key, not several")
    return checked_key(given[0]) if given else None


def checked_key(key: object) -> str:
    """The key, if it is one. Raises `Refused` with 400."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise _bad_key(
            f"an Idempotency-Key has 1 to {KEY_CHARACTERS_MAX} printable ASCII characters, "
            "such as a UUID"
        )
    return key


def claim_of(caller: Caller, key: str, request: Mapping[str, Any]) -> Claim:
    """What a caller claims by a key for a request; equal requests differ in no value."""
    return Claim(
        tenant_id=caller.tenant_id,
        caller_id=caller.id,
        key_hash=sha256(key.encode()).digest(),
        request_hash=sha256(canonical(dict(request)).encode()).digest(),
    )


class Idempotency:
    """Does work once per key: the change and the kept answer are one transaction."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Of one key's senders in this process one waits in PostgreSQL, the others here, where it
        # takes no connection.
        self._turns: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()

    async def once(self, wanted: Claim, work: Work) -> Once:
        """Do the work, or find its answer where it was done within the last 24 hours.

        Raises: `Refused` with 409 for a key of another request, or one whose request is still
        being answered; `Unavailable`; and what the work raises, which then has changed nothing.
        """
        async with self._turn(wanted), one_transaction(self._runtime, wanted.tenant_id) as parts:
            kept = await self._claimed(wanted, parts)
            if kept is not None:
                return Once(kept, replayed=True)
            reached("idempotency.claimed")
            answer = await work(parts)
            await keep(parts.whole, wanted, answer)
            reached("idempotency.kept")
            done = Once(answer, replayed=False)
        reached("idempotency.committed")
        return done

    async def _claimed(self, wanted: Claim, parts: Savepoints) -> Kept | None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await claim(parts.whole, wanted)
        except TimeoutError as error:
            raise _in_progress() from error
        except KeyReused as error:
            raise Refused(
                409,
                "IDEMPOTENCY_CONFLICT",
                "this Idempotency-Key was sent with another request within 24 hours: "
                "a new request needs a new key",
            ) from error

    @asynccontextmanager
    async def _turn(self, wanted: Claim) -> AsyncIterator[None]:
        turn = self._turns.setdefault(wanted.place, asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn.acquire()
        except TimeoutError as error:
            raise _in_progress() from error
        try:
            yield
        finally:
            turn.release()


def is_too_large(body: bytes) -> bool:
    """Whether an answer cannot be kept."""
    return len(body) > ANSWER_BYTES_MAX


def _in_progress() -> Refused:
    return Refused(
        409,
        "IDEMPOTENCY_IN_PROGRESS",
        "a request with this Idempotency-Key is still being answered; send it again in a moment",
        {"Retry-After": "1"},
    )


def _bad_key(message: str) -> Refused:
    return Refused(400, "BAD_IDEMPOTENCY_KEY", message)
