"""Where the API may listen: keys never travel in the clear over a network."""

import socket
from pathlib import Path

import pytest

from aforo.serve import ListenError, TlsFiles, bind, check_exposure

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
