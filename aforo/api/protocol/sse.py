"""Server-sent events: the answers of one operation as a stream that its end does not surprise."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send

from aforo.api.parts.answers import encode_json
from aforo.api.protocol.operations import Answer, Subscription, ended
from aforo.api.protocol.streams import Watch
from aforo.storage.endings import end_all

HEARTBEAT_SECONDS = 10.0
"""A stream that is quiet shows this often that it lives."""
OPENING_SECONDS = 0.2
"""Until the first sign of life of a stream, which says where it begins."""
SEND_TIMEOUT_SECONDS = 30
"""A reader that takes nothing for so long is cut off."""

_COMPLETE = b"event: complete\ndata:\n\n"
_ALIVE = b":\n\n"

log = structlog.get_logger()


class EventStream:
    """A response in the form of graphql-sse: `next` per answer, then `complete`; LF line ends.

    Nothing is queued: the next answer is asked for when the last one was taken. Answers of a live
    stream carry their cursor as `id`, so that a browser that reconnects sends it on its own.
    """

    def __init__(self, subscription: Subscription, watch: Watch) -> None:
        self._subscription = subscription
        self._watch = watch
        self._sending = asyncio.Lock()
        self._is_quiet = True
        self._cursor: str | None = None
        """Up to there the reader has been told everything."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch:
            await _until_gone(self._pump(send), receive)

    async def _pump(self, send: Send) -> None:
        await _begin(send)
        reading = asyncio.create_task(self._read(send))
        beating = asyncio.create_task(self._beat(send))
        waited: set[asyncio.Future[Any]] = {reading, beating, self._watch.over}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_all([reading, beating])
            await self._subscription.answers.aclose()
        for task in (reading, beating):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if self._watch.over.done():
            last = ended(self._watch.over.result(), self._cursor)
            await _send(send, _body(_next(last), more=True))
        await _send(send, _body(_COMPLETE, more=False))

    async def _read(self, send: Send) -> None:
        async for answer in self._subscription.answers:
            self._is_quiet = False
            async with self._sending:
                await _send(send, _body(_next(answer), more=True))
            self._cursor = answer.cursor or self._cursor

    async def _beat(self, send: Send) -> None:
        pause = OPENING_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, HEARTBEAT_SECONDS)
            if self._is_quiet and not self._sending.locked():
                self._cursor = self._subscription.resting_place or self._cursor
                async with self._sending:
                    await _send(send, _body(_sign_of_life(self._cursor), more=True))
            self._is_quiet = True


class SingleEvent:
    """A response in the same form, with one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await _until_gone(self._pump(send), receive)

    async def _pump(self, send: Send) -> None:
        await _begin(send)
        await _send(send, _body(_next(self._answer) + _COMPLETE, more=False))


async def _until_gone(pump: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Send a response until it is through, or its reader has gone."""
    gone = asyncio.create_task(_disconnected(receive))
    pumping = asyncio.create_task(pump)
    try:
        await asyncio.wait({gone, pumping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_all([gone, pumping])
    if not pumping.cancelled() and (error := pumping.exception()) is not None:
        if not isinstance(error, TimeoutError | OSError):
            raise error
        log.info("an event stream's reader took nothing for too long")


async def _begin(send: Send) -> None:
    await _send(
        send,
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"x-accel-buffering", b"no"),
            ],
        },
    )


def _next(answer: Answer) -> bytes:
    id_ = f"id: {answer.cursor}\n".encode() if answer.cursor else b""
    return b"event: next\n" + id_ + b"data: " + encode_json(answer.body) + b"\n\n"


def _sign_of_life(cursor: str | None) -> bytes:
    # An id without data is no event; who reconnects goes on from there.
    return f"id: {cursor}\n:\n\n".encode() if cursor else _ALIVE


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _send(send: Send, message: Message) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
