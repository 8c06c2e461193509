"""Server-sent events: the answers of one operation as a stream that checks its key."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from starlette.types import Message, Receive, Scope, Send

from aforo.api.answers import encode_json
from aforo.api.errors import request_error
from aforo.api.protocol import RECHECK_SECONDS, Answer

SEND_TIMEOUT_SECONDS = 30
"""A reader that takes nothing for so long is cut off."""
CANCEL_AGAIN_SECONDS = 0.5

_COMPLETE = b"event: complete\ndata:\n\n"
_ALIVE = b":\n\n"

log = structlog.get_logger()


class EventStream:
    """A response in the form of graphql-sse: `next` per answer, then `complete`; LF line ends.

    Nothing is queued: the next answer is asked for when the last one was taken. While it runs,
    `is_allowed` is asked every few seconds, and the stream ends where it says no.
    """

    def __init__(
        self, answers: AsyncIterator[Answer], is_allowed: Callable[[], Awaitable[bool]]
    ) -> None:
        self._answers = answers
        self._is_allowed = is_allowed

    @classmethod
    def of(cls, answer: Answer) -> "EventStream":
        """The stream of a single answer."""

        async def one() -> AsyncIterator[Answer]:
            yield answer

        async def yes() -> bool:
            return True

        return cls(one(), yes)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        pump = asyncio.create_task(self._pump(send))
        try:
            await asyncio.wait({gone, pump}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, pump):
                task.cancel()
            await asyncio.gather(gone, pump, return_exceptions=True)
        if not pump.cancelled() and (error := pump.exception()) is not None:
            if not isinstance(error, TimeoutError | OSError):
                raise error
            log.info("an event stream's reader took nothing for too long")

    async def _pump(self, send: Send) -> None:
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
        chunks = self._chunks()
        try:
            async for chunk in chunks:
                await _send(send, _body(chunk, more=True))
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
        await _send(send, _body(_COMPLETE, more=False))

    async def _chunks(self) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        checked = clock()
        following: asyncio.Task[Answer] | None = None
        try:
            while True:
                following = following or asyncio.create_task(anext(self._answers))  # type: ignore[arg-type]
                done, _ = await asyncio.wait({following}, timeout=RECHECK_SECONDS)
                if clock() - checked >= RECHECK_SECONDS:
                    if not await self._is_allowed():
                        yield _next({"errors": [_KEY_ENDED]})
                        return
                    checked = clock()
                if not done:
                    yield _ALIVE
                    continue
                try:
                    answer = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield _next(answer.body)
        finally:
            if following is not None:
                await _end(following)
            await self._answers.aclose()  # type: ignore[attr-defined]


_KEY_ENDED = request_error("UNAUTHENTICATED", "the API key was revoked or has expired")


def _next(body: object) -> bytes:
    return b"event: next\ndata: " + encode_json(body) + b"\n\n"


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _send(send: Send, message: Message) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
        await send(message)


async def _end(task: asyncio.Task[Answer]) -> None:
    # More than once where needed: `wait_for` of Python 3.11, which the driver of Redis calls,
    # swallows a cancellation that comes at the moment of its result.
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()  # Whatever it was: nobody is there to be told.


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
