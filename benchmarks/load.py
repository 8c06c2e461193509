"""Keeps a server busy over a few connections, and counts what it answers."""

import http.client
import json
import socket
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

CONNECTIONS = 4
RECEIVE_BYTES = 256 * 1024


def rate(url: str, body: Mapping[str, object], headers: Mapping[str, str], seconds: float) -> float:
    """Requests per second that a server answers with 200 over four connections kept alive.

    The client parses no more of an answer than its length: what is measured is the server.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    encoded = json.dumps(body).encode()
    head = {"Host": parts.netloc, "Content-Type": "application/json", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    request = (
        f"POST /graphql HTTP/1.1\r\n{lines}Content-Length: {len(encoded)}\r\n\r\n"
    ).encode() + encoded
    address = (parts.hostname, parts.port or 80)
    connections = [socket.create_connection(address, timeout=30) for _ in range(CONNECTIONS)]
    try:
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
        answered = 0
        begun = time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            for connection in connections:
                _read_answer(connection)
                connection.sendall(request)
                answered += 1
        return answered / elapsed
    finally:
        for connection in connections:
            connection.close()


def one(url: str, body: Mapping[str, object], headers: Mapping[str, str]) -> dict[str, object]:
    """The answer to one request, whole, to see that it is the right one."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(
            "POST", "/graphql", json.dumps(body), {"Content-Type": "application/json", **headers}
        )
        answer: dict[str, object] = json.loads(connection.getresponse().read())
        assert "errors" not in answer, answer
        return answer
    finally:
        connection.close()


def _read_answer(connection: socket.socket) -> None:
    received = connection.recv(RECEIVE_BYTES)
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += connection.recv(RECEIVE_BYTES)
    head = received[:end].lower()
    assert head.startswith(b"http/1.1 200"), received[:500]
    _, _, length = head.partition(b"content-length:")
    missing = end + 4 + int(length.split(b"\r\n", 1)[0]) - len(received)
    while missing > 0:
        missing -= len(connection.recv(RECEIVE_BYTES))
