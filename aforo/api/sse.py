"""Server-sent events: the answers of one operation as a stream that its end does not surprise."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send

from aforo.api.answers import encode_json
from aforo.api.ending import end_all
from aforo.api.protocol import Answer, Subscription, ended
from aforo.api.streams import Watch

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

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._watch:
            await _until_gone(self._pump(send), receive)

    async def _pump(self, send: Send) -> None:
        await _begin(send)
        chunks = self._chunks()
        try:
            async for chunk in chunks:
                await _send(send, _body(chunk, more=True))
        finally:
            await chunks.aclose()
        await _send(send, _body(_COMPLETE, more=False))

    async def _chunks(self) -> AsyncGenerator[bytes]:
        answers, over = self._subscription.answers, self._watch.over
        following: asyncio.Task[Answer | None] | None = None
        pause = OPENING_SECONDS
        try:
            while True:
                following = following or asyncio.create_task(_following(answers))
                waited: set[asyncio.Future[Any]] = {following, over}
                await asyncio.wait(waited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                pause = min(2 * pause, HEARTBEAT_SECONDS)
                if over.done():
                    yield _next(ended(over.result(), self._subscription.cursor))
                    return
                if not following.done():
                    yield _sign_of_life(self._subscription.cursor)
                    continue
                answer, following = following.result(), None
                if answer is None:
                    return
                yield _next(answer)
        finally:
            if following is not None:
                await end_all([following])
            await answers.aclose()


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


async def _following(answers: AsyncGenerator[Answer]) -> Answer | None:
    return await anext(answers, None)


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
