"""GraphQL over WebSocket: the protocol graphql-transport-ws, and no other."""

import asyncio
from typing import Any

import structlog
from graphql import OperationType
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from aforo.api.auth.callers import caller_of_socket, looked_at_again
from aforo.api.auth.requests import Credential, Refused, token_of
from aforo.api.parts.answers import Unreadable, decode_json, encode_json
from aforo.api.protocol.documents import DocumentRefused
from aforo.api.protocol.errors import FormattedError, masked
from aforo.api.protocol.operations import (
    Answer,
    GraphQLService,
    document_answer,
    marked,
    read_request,
    refusal_errors,
)
from aforo.api.protocol.streams import End
from aforo.sdk.errors import Unavailable
from aforo.storage.endings import end_all

PROTOCOL = "graphql-transport-ws"
INIT_TIMEOUT_SECONDS = 10
MESSAGE_BYTES_MAX = 128 * 1024
"""Also the server's own limit (`ws_max_size`), so that nothing larger is read at all."""
OPERATIONS_MAX = 50
TOO_SLOW = 4413
SEND_TIMEOUT_SECONDS = 30
"""A client that takes nothing for so long is cut off."""
CLOSE_TIMEOUT_SECONDS = 10
"""If it takes something again after that within so long, it learns why."""
ID_CHARACTERS_MAX = 128

log = structlog.get_logger()


class SocketClosed(Exception):
    """The connection ends, for a reason that has a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class GraphQLWebSocket:
    """The ASGI application at `/graphql` for WebSockets."""

    def __init__(self, service: GraphQLService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        offered = PROTOCOL in scope.get("subprotocols", [])
        await socket.accept(subprotocol=PROTOCOL if offered else None)
        if not offered:
            await socket.close(4406, f"offer the protocol {PROTOCOL}")
            return
        await _Connection(socket, self._service, scope["state"]["request_id"]).run()


class _Connection:
    """One socket: a reader, one task per operation, and watches on its caller and on the client."""

    def __init__(self, socket: WebSocket, service: GraphQLService, request_id: str) -> None:
        self._socket = socket
        self._service = service
        self._request_id = request_id
        self._watch = service.streams.watch()
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._stuck = asyncio.Event()

    async def run(self) -> None:
        """Serve until either side ends it."""
        with self._watch:
            tasks = [
                asyncio.create_task(part())
                for part in (self._read, self._watch_for_end, self._watch_for_stuck_reader)
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_all([*tasks, *self._operations.values()])
                await asyncio.gather(*self._endings)
            await self._end(next(iter(done)).exception())

    async def _end(self, error: BaseException | None) -> None:
        code, reason = 1000, ""
        match error:
            case WebSocketDisconnect() | OSError():
                return  # The other side is gone.
            case SocketClosed():
                code, reason = error.code, error.reason
            case Unavailable():
                code, reason = 1013, "an engine is down, try again"
            case None:
                pass
            case _:
                log.error("a WebSocket failed", request_id=self._request_id, exc_info=error)
                code, reason = 4500, f"failed on our side, logged as request {self._request_id}"
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._socket.close(code, reason)
        except (RuntimeError, OSError, TimeoutError, WebSocketDisconnect):
            log.debug("a WebSocket was closed already", code=code)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(INIT_TIMEOUT_SECONDS):
                while self._watch.credential is None:
                    await self._initialise(await self._message())
        except TimeoutError as error:
            raise SocketClosed(4408, "Connection initialisation timeout") from error
        while True:
            await self._handle(await self._message())

    async def _watch_for_end(self) -> None:
        match await self._watch.over:
            case End.UNAUTHENTICATED:
                raise SocketClosed(4401, f"Unauthorized: {End.UNAUTHENTICATED.value}")
            case End.STOPPING:
                raise SocketClosed(1001, End.STOPPING.value)

    async def _watch_for_stuck_reader(self) -> None:
        await self._stuck.wait()
        raise SocketClosed(TOO_SLOW, "too slow: go on after the last cursor that you have")

    async def _initialise(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "connection_init":
                self._watch.credential = await self._identified(message.get("payload"))
                await self._send({"type": "connection_ack"})
            case "ping":
                await self._pong(message)
            case "subscribe":
                raise SocketClosed(4401, "Unauthorized")
            case _:
                raise SocketClosed(4400, "the first message is connection_init")

    async def _identified(self, payload: object) -> Credential:
        if payload is not None and not isinstance(payload, dict):
            raise SocketClosed(4400, "the payload of connection_init is an object")
        given = {str(name).lower(): value for name, value in (payload or {}).items()}
        token = token_of(given.get("authorization") or given.get("apikey"))
        try:
            return await caller_of_socket(self._service.runtime, self._socket, token)
        except Refused as error:
            raise SocketClosed(4401, "Unauthorized: send the API key in connection_init") from error

    async def _handle(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "subscribe":
                await self._subscribe(message)
            case "complete":
                operation = self._operations.pop(_id(message), None)
                if operation is not None:
                    # Beside the reading, which an operation that ends slowly must not hold up.
                    ending = asyncio.create_task(end_all([operation]))
                    self._endings.add(ending)
                    ending.add_done_callback(self._endings.discard)
            case "ping":
                await self._pong(message)
            case "pong":
                pass
            case "connection_init":
                raise SocketClosed(4429, "Too many initialisation requests")
            case _:
                raise SocketClosed(4400, "this type of message is not for the server")

    async def _pong(self, message: dict[str, Any]) -> None:
        payload = {"payload": message["payload"]} if "payload" in message else {}
        await self._send({"type": "pong", **payload})

    async def _subscribe(self, message: dict[str, Any]) -> None:
        id_ = _id(message)
        if id_ in self._operations:
            raise SocketClosed(4409, f"Subscriber for {id_} already exists")
        if not isinstance(message.get("payload"), dict):
            raise SocketClosed(4400, "the payload of subscribe is an object")
        if len(self._operations) >= OPERATIONS_MAX:
            await self._fail(id_, _too_many())
            return
        task = asyncio.create_task(self._operate(id_, message["payload"]))
        self._operations[id_] = task
        task.add_done_callback(lambda done: self._forget(id_, done))

    def _forget(self, id_: str, done: "asyncio.Task[None]") -> None:
        if self._operations.get(id_) is done:
            del self._operations[id_]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.info("an operation of a WebSocket ended early", error=repr(error))

    async def _operate(self, id_: str, payload: dict[str, Any]) -> None:
        credential = self._watch.credential
        assert credential is not None, "operations start after connection_init"
        try:
            errors = await self._run(id_, payload, credential)
        except DocumentRefused as refused:
            errors = document_answer(refused, self._request_id).body["errors"]
        except Refused as refused:
            errors = refusal_errors(refused)
        except (OSError, RuntimeError, TimeoutError, WebSocketDisconnect):
            raise  # The socket takes nothing more, so there is nobody to tell.
        except Exception:
            log.exception("an operation failed", request_id=self._request_id)
            errors = [masked(self._request_id)]
        if errors:
            await self._fail(id_, errors)
            return
        self._done(id_)
        await self._send({"type": "complete", "id": id_})

    async def _run(
        self, id_: str, payload: dict[str, Any], credential: Credential
    ) -> list[FormattedError]:
        """Send what an operation gives; the errors if nothing was executed."""
        asked = read_request(payload)
        credential = await looked_at_again(self._service.runtime, credential)
        asked, operation = await self._service.admission.admit(asked, credential.caller, {})
        if operation.kind is not OperationType.SUBSCRIPTION:
            answer = await self._service.execute(asked, operation, credential, self._request_id)
            return await self._next(id_, marked(answer))
        answers = self._service.subscribe(operation, credential, self._request_id).answers
        try:
            async for answer in answers:
                if errors := await self._next(id_, answer):
                    return errors
        finally:
            await answers.aclose()
        return []

    async def _next(self, id_: str, answer: Answer) -> list[FormattedError]:
        if answer.is_request_error:
            errors: list[FormattedError] = answer.body["errors"]
            return errors
        await self._send({"type": "next", "id": id_, "payload": answer.body})
        return []

    async def _fail(self, id_: str, errors: list[FormattedError]) -> None:
        self._done(id_)
        await self._send({"type": "error", "id": id_, "payload": errors})

    def _done(self, id_: str) -> None:
        # Before the client learns of the end: from then on it may use the id again.
        if self._operations.get(id_) is asyncio.current_task():
            del self._operations[id_]

    async def _message(self) -> dict[str, Any]:
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1005))
        text = received.get("text")
        if text is None:
            raise SocketClosed(4400, "messages are text")
        if len(text.encode(errors="surrogatepass")) > MESSAGE_BYTES_MAX:
            raise SocketClosed(1009, f"a message has at most {MESSAGE_BYTES_MAX} bytes")
        try:
            message = decode_json(text)
        except Unreadable as error:
            raise SocketClosed(4400, "messages are JSON") from error
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise SocketClosed(4400, "a message is an object with a type")
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        # One at a time: a socket that takes nothing holds its operations up, and no memory.
        try:
            async with self._sending, asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await self._socket.send_text(encode_json(message).decode())
        except TimeoutError:
            self._stuck.set()
            raise


def _id(message: dict[str, Any]) -> str:
    id_ = message.get("id")
    if not isinstance(id_, str) or not 0 < len(id_) <= ID_CHARACTERS_MAX:
        raise SocketClosed(4400, "a message names its operation with an id")
    return id_


def _too_many() -> list[FormattedError]:
    refused = Refused(
        429, "TOO_MANY_SUBSCRIPTIONS", f"a socket runs at most {OPERATIONS_MAX} operations"
    )
    return refusal_errors(refused)
