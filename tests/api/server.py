"""The application behind a real server on a free port, and clients that speak its streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect

from aforo.api.protocol.websocket import MESSAGE_BYTES_MAX, PROTOCOL

TIMEOUT_SECONDS = 60


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[int]:
    """Serve an application; gives the port."""
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        lifespan="off",
        ws_max_size=2 * MESSAGE_BYTES_MAX,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    config.load()
    listening = config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await server.listens.wait()
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.listens.set()


class Socket:
    """A WebSocket that speaks graphql-transport-ws, frame by frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        """The next message; it must be a text frame, for clients drop all others."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            text = await self.connection.recv()
        assert isinstance(text, str)
        message: dict[str, Any] = json.loads(text)
        return message

    async def exchange(self, message: object) -> dict[str, Any]:
        await self.send(message)
        return await self.receive()

    async def initialise(self, payload: object = None) -> Self:
        message = {"type": "connection_init"}
        answer = await self.exchange(message if payload is None else message | {"payload": payload})
        assert answer == {"type": "connection_ack"}
        return self

    async def subscribe(self, query: str, *, id_: str = "1", **variables: object) -> None:
        payload = {"query": query, "variables": variables}
        await self.send({"id": id_, "type": "subscribe", "payload": payload})

    async def closed(self) -> tuple[int, str]:
        """Read on until the server closes; its code and reason."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


@asynccontextmanager
async def socket_to(
    port: int,
    *,
    token: str | None = None,
    protocols: tuple[str, ...] = (PROTOCOL,),
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Socket]:
    """Open a WebSocket, with the key in the handshake if there is a token."""
    headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    async with connect(
        f"ws://127.0.0.1:{port}/graphql",
        subprotocols=protocols or None,  # type: ignore[arg-type]
        additional_headers=headers,
        max_queue=4,
        close_timeout=1,
    ) as connection:
        yield Socket(connection)
