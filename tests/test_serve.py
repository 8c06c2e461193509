"""Where the API may listen, and how it ends: in order, also for those who wait for events."""

import asyncio
import socket
from pathlib import Path

import httpx2
import pytest

from aforo.serve import STUCK_SECONDS, ListenError, TlsFiles, bind, check_exposure, serve
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.server import socket_to

TLS = TlsFiles(Path("chain.pem"), Path("key.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    check_exposure(host, tls=None, behind_proxy=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "10.0.0.1"])
def test_a_host_that_others_reach_needs_tls_or_a_proxy(host: str) -> None:
    with pytest.raises(ListenError, match="--tls-certificate and --tls-key, or --behind-proxy"):
        check_exposure(host, tls=None, behind_proxy=False)
    check_exposure(host, tls=TLS, behind_proxy=False)
    check_exposure(host, tls=None, behind_proxy=True)


def test_a_port_in_use_is_named_with_the_option_that_chooses_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"port {port} of 127\.0\.0\.1 .* --port"):
            bind("127.0.0.1", port)


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(ListenError, match=r"nowhere\.invalid is no address of this machine"):
        bind("nowhere.invalid", 0)


def test_a_bound_port_is_taken_before_anybody_is_answered() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux drops them")
def test_a_connection_that_takes_nothing_is_dropped_in_time() -> None:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                waits = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert waits == STUCK_SECONDS * 1_000


async def test_streams_end_in_order_and_in_words_when_the_process_stops(
    runtime: Runtime, tenant: NewTenant
) -> None:
    up = asyncio.Event()
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(serve(runtime, listener, grace_seconds=60, on_ready=up.set))
    async with asyncio.timeout(60), httpx2.AsyncClient(timeout=20) as client:
        await up.wait()
        stream = client.stream(
            "POST",
            f"http://127.0.0.1:{port}/graphql",
            json={"query": "subscription { signals { id } }"},
            headers={
                "Authorization": f"Bearer {tenant.key.token}",
                "Accept": "text/event-stream",
            },
        )
        async with (
            stream as response,
            socket_to(port, token=tenant.key.token) as opened,
            socket_to(port) as unknown,
        ):
            assert response.status_code == 200
            await opened.initialise()
            await opened.subscribe("subscription { signals { id } }")
            assert await opened.exchange({"type": "ping"}) == {"type": "pong"}
            serving.cancel()
            # Without a proper end the client would raise here.
            text = (await response.aread()).decode()
            for each in (opened, unknown):
                code, reason = await each.closed()
                assert (code, "subscribe again" in reason) == (1001, True)
        assert '"code":"STOPPING"' in text
        assert text.endswith("event: complete\ndata:\n\n")
        with pytest.raises(asyncio.CancelledError):
            await serving
