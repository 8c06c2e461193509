"""The API over HTTP: where it may listen, and how it comes to an end."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from aforo.api.app import create_app
from aforo.api.protocol.websocket import MESSAGE_BYTES_MAX
from aforo.sdk.errors import AforoError
from aforo.storage.scope import Runtime

GRACE_SECONDS = 10
"""How long open requests may take once the process is told to stop."""
KEEP_ALIVE_SECONDS = 75
WEBSOCKET_PING_SECONDS = 10.0
"""Proxies close what is quiet, many after a minute."""
WEBSOCKET_PONG_SECONDS = 30.0
"""Whoever has not answered a ping by then is gone."""
STUCK_SECONDS = 90
"""A connection whose other side takes nothing for so long is dropped by the system."""
BACKLOG = 2_048
WEBSOCKET_MESSAGE_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
"""Above what the application refuses in its own words."""


class ListenError(AforoError):
    """The API cannot listen where it is told to."""

    code = "LISTEN"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate chain and its key, both PEM."""

    certificate: Path
    key: Path


def check_exposure(host: str, *, tls: TlsFiles | None, behind_proxy: bool) -> None:
    """Refuse to send keys in the clear over a network.

    Raises: `ListenError` for a host that others can reach, without TLS and without a proxy that
    the caller vouches for.
    """
    if tls is not None or behind_proxy or _is_loopback(host):
        return
    raise ListenError(
        f"{host} can be reached from outside and API keys would travel unencrypted: give "
        "--tls-certificate and --tls-key, or --behind-proxy if a proxy in front does the TLS"
    )


def bind(host: str, port: int) -> socket.socket:
    """Take the port, without listening yet; port 0 takes a free one.

    Raises: `ListenError`, which names the port where it is in use.
    """
    family, kind, protocol, _, address = _resolve(host, port)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if (patience := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        # Else whoever takes nothing keeps what waits for it, also once it was cut off.
        listener.setsockopt(socket.IPPROTO_TCP, patience, STUCK_SECONDS * 1_000)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


async def serve(
    runtime: Runtime,
    listener: socket.socket,
    *,
    tls: TlsFiles | None = None,
    grace_seconds: int = GRACE_SECONDS,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Answer requests on a bound socket until cancelled; those that are open then may finish.

    Raises: `ListenError`.
    """
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # Another process bound it too, and was first to listen.
        raise _cannot_listen(host, port, error) from error
    app = create_app(runtime)
    server = _Server(_config(app, tls=tls, grace_seconds=grace_seconds), on_ready)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        # Streams would last until they are cut off: they are told first, while the server can
        # still say why.
        await app.state.graphql.streams.stop(seconds=grace_seconds / 2)
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone, and says when it is up."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: ASGIApp, *, tls: TlsFiles | None, grace_seconds: int) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=WEBSOCKET_MESSAGE_BYTES_MAX,
        ws_ping_interval=WEBSOCKET_PING_SECONDS,
        ws_ping_timeout=WEBSOCKET_PONG_SECONDS,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"the TLS certificate or its key cannot be used: {error}") from error
    return config


def _is_loopback(host: str) -> bool:
    return all(ip_address(address[0]).is_loopback for *_, address in _resolve(host, 0))


def _resolve(host: str, port: int) -> Sequence[tuple[Any, Any, int, str, Any]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{host} is no address of this machine: {error.strerror}") from error


def _cannot_listen(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"port {port} of {host} is in use: stop what uses it, or choose another with --port"
        )
    return ListenError(f"port {port} of {host} cannot be used: {error.strerror}")
