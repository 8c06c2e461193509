"""ClickHouse (chdb) behind its HTTP front, as a child process of its own.

A query that crashes the engine takes the child with it and nothing else; the listening socket is
ours, so the address stays and requests wait while the child is started again.
"""

import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from os import pathsep
from pathlib import Path
from socket import socket

from aforo.storage.embedded import places
from aforo.storage.embedded.errors import EngineError
from aforo.storage.embedded.processes import stop_orphans
from aforo.storage.embedded.supervisor import Program, Supervisor

FRONT = "aforo.storage.embedded.clickhouse_front"
DATABASE = "aforo"
USER = "aforo"
PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ClickHouse:
    """A running ClickHouse with the database `aforo`."""

    url: str
    """`http://user:password@127.0.0.1:port/aforo`."""
    supervisor: Supervisor
    listener: socket

    def stop(self) -> None:
        """Finish the running queries, close the engine, and free the port."""
        self.supervisor.stop()
        self.listener.close()


def start(
    root: Path, *, port: int = 0, on_fault: Callable[[str], None] | None = None
) -> ClickHouse:
    """Start ClickHouse on `root/clickhouse`, listening on loopback; port 0 takes a free one.

    Raises: `EngineError`.
    """
    places.package_folder("chdb", "ClickHouse")
    home = places.make_private(root / "clickhouse")
    data = home / "data"
    password = places.secret(root / "secrets", "clickhouse")
    listener = places.listen(port, "ClickHouse")
    address = f"127.0.0.1:{listener.getsockname()[1]}"

    def give_up(fault: str) -> None:
        # Else callers would wait in the socket's queue for a child that never comes.
        listener.close()
        if on_fault is not None:
            on_fault(fault)

    scratch = home / "scratch"

    def prepare() -> None:
        stop_orphans(FRONT, data, stop_signal=signal.SIGTERM)
        # What a killed child left there is of no use to anyone.
        shutil.rmtree(scratch, ignore_errors=True)
        places.make_private(scratch)

    supervisor = Supervisor(
        Program(
            name="ClickHouse",
            command=(
                *(sys.executable, "-P", "-m", FRONT),
                *("--path", str(data), "--fd", str(listener.fileno())),
                *("--password-file", str(root / "secrets" / "clickhouse")),
            ),
            folder=home,
            log=root / "log" / "clickhouse.log",
            prepare=prepare,
            is_ready=lambda _pid: _is_ready(address),
            environment={
                "TMPDIR": str(scratch),
                "PYTHONPATH": pathsep.join(path for path in sys.path if path),
            },
            pass_fds=(listener.fileno(),),
        ),
        on_fault=give_up,
    )
    try:
        supervisor.start()
    except EngineError:
        listener.close()
        raise
    return ClickHouse(f"http://{USER}:{password}@{address}/{DATABASE}", supervisor, listener)


def _is_ready(address: str) -> bool:
    """It answers; until then the question waits in the socket's queue."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/ping", timeout=PROBE_SECONDS) as answer:
            return bool(answer.read() == b"Ok.\n")
    except (OSError, urllib.error.URLError):
        return False
