"""How long the gateway takes for a decision that it remembers, beside a server without any."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.limits import bare_server
from benchmarks.ports import free_port, wait_for_port

CLIENTS = Path(__file__).parents[1] / "clients"
ASKED = 10_000
ENDED_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Decided:
    """Microseconds from the question to the answer, over a connection that is kept."""

    median_us: float
    p99_us: float


def measure(url: str, key: str, *, customer: str, meter: str) -> tuple[Decided, Decided]:
    """A decision that is remembered, and the same with an event that is kept for each."""
    with tempfile.TemporaryDirectory(prefix="aforo-gateway-") as folder:
        event = {"type": "llm.request", "properties": {"trace": "bench"}}
        rules = {
            "customerHeader": "x-customer",
            "rules": [
                {"prefix": "/metered", "meter": meter, "event": event},
                {"prefix": "/", "meter": meter},
            ],
        }
        Path(folder, "rules.json").write_text(json.dumps(rules))
        with _gateway(url, key, Path(folder)) as port:
            return (
                _ask(port, "/check/plain", 200, customer),
                _ask(port, "/check/metered", 200, customer),
            )


def measure_bare() -> Decided:
    """The same request to a server that only answers."""
    with bare_server() as url:
        return _ask(int(url.rpartition(":")[2]), "/v1/events", 202, "nobody")


@contextmanager
def _gateway(url: str, key: str, folder: Path) -> Iterator[int]:
    port = free_port()
    paths = [str(CLIENTS / "gateway"), str(CLIENTS / "python")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "AFORO_URL": url,
        "AFORO_API_KEY": key,
    }
    command = [sys.executable, "-m", "aforo_gateway", "--port", str(port)]
    options = ["--rules", str(folder / "rules.json"), "--spool", str(folder / "spool")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
        try:
            wait_for_port(port)
            yield port
        finally:
            process.terminate()
            process.wait(ENDED_SECONDS)


def _ask(port: int, path: str, status: int, customer: str) -> Decided:
    """Ask over and over; the answer has no body, or an empty object."""
    ends = b"\r\n\r\n" if status == 200 else b"{}"
    head = [f"POST {path} HTTP/1.1", "Host: bench", f"X-Customer: {customer}", "Content-Length: 0"]
    request = "\r\n".join([*head, "", ""]).encode()
    good = f"HTTP/1.1 {status} ".encode()
    took = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ASKED):
            begun = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(4_096)
            while not answer.endswith(ends):
                answer += connection.recv(4_096)
            took.append(time.perf_counter() - begun)
            assert answer.startswith(good), answer
    took = sorted(took[ASKED // 10 :])  # The first ones warm it up.
    return Decided(took[len(took) // 2] * 1e6, took[len(took) * 99 // 100] * 1e6)
