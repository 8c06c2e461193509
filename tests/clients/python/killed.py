"""A program that is killed at each of its steps in turn, for `test_killed.py`.

It forks a child for every step. The child opens a client, tracks events and sends them, and dies
of SIGKILL before one of its calls to the system, or in the middle of a write. What `track` has
returned for is written to a file. Then the next client on the same spool goes on with the rest.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from aforo_client import Client, Options

STEPS_MAX = 150
CALLS = ("open", "write", "fsync", "unlink")
WRITE = os.write
OPTIONS = Options(
    batch_events=2,
    linger_seconds=0.0,
    segment_bytes=500,
    fsync="always",
    backoff_seconds=0.01,
    compress=False,
)


def killing(call: Callable[..., Any], steps: list[int], *, amid: bool) -> Callable[..., Any]:
    """The call, which kills the process when no step is left; `amid`: with half of it written."""

    def called(*arguments: Any, **named: Any) -> Any:
        steps[0] -= 1
        if steps[0] == 0:
            if amid:
                WRITE(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)

    return called


def child(name: str, step: int, amid: bool, url: str, key: str, folder: Path, now: str) -> NoReturn:
    """Track three events, of which the first is rejected, and send them."""
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    steps = [step]
    for call in ("write",) if amid else CALLS:
        setattr(os, call, killing(getattr(os, call), steps, amid=amid))
    if not amid:
        send = killing(socket.socket.sendall, steps, amid=False)
        socket.socket.sendall = send  # type: ignore[method-assign]
    try:
        with Client(url, key, folder / "spool", options=OPTIONS) as client:
            for number in range(3):
                client.track(
                    "llm.request",
                    customer="acme",
                    occurred_at=datetime.fromisoformat(now),
                    idempotency_key=f"{name}-{number}",
                    properties={"tokens": number or "many"},
                )
                WRITE(acknowledged, f"{name}-{number}\n".encode())
            client.flush(10)
    except BaseException:  # noqa: BLE001 (It must not go on as its parent.)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Kill at every step, until a child ends by itself; print how many died."""
    url, key, folder, now = sys.argv[1:]
    killed = 0
    for amid in (False, True):
        for step in range(1, STEPS_MAX):
            pid = os.fork()
            if pid == 0:
                child(f"{amid}-{step}", step, amid, url, key, Path(folder), now)
            _, status = os.waitpid(pid, 0)
            with Client(url, key, Path(folder, "spool"), options=OPTIONS) as heir:
                assert heir.flush(10), heir.stats()
            if not os.WIFSIGNALED(status):
                assert status == 0, "a child failed by itself"
                break
            killed += 1
        else:
            raise AssertionError("no child ended by itself")
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main()
