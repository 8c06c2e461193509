"""The client: `track` keeps an event in the spool, and it is sent from there behind the scenes."""

import atexit
import contextlib
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from aforo_client.errors import ClientClosed
from aforo_client.events import new_key, written_event
from aforo_client.options import Options
from aforo_client.sender import OnVerdict, Sender
from aforo_client.spool import Spool
from aforo_client.stats import Stats
from aforo_client.transport import Transport

FLUSH_SECONDS = 30.0
_STOP_SECONDS = 1.0


class Client:
    """Sends events of one tenant. Safe to use from many threads, and in the child of a fork.

    The spool is a folder on a local disk; several processes may share it, if all of them send to
    the same tenant of the same server.
    """

    def __init__(
        self,
        url: str,
        key: str,
        spool: str | os.PathLike[str],
        *,
        on_verdict: OnVerdict | None = None,
        options: Options | None = None,
    ) -> None:
        """Open the spool, and go on with what an earlier process left in it.

        `on_verdict` is called, in a thread of the client, for every event that was not counted.
        Raises ValueError for an address or a key that is none, `SpoolError` for the spool.
        """
        self._url = url.rstrip("/")
        self._key = key
        self._folder = Path(spool).absolute()
        self._on_verdict = on_verdict
        self._options = options or Options()
        self._lock = threading.Lock()
        self._is_closed = False
        self._parts: _Parts | None = self._started()
        _open_clients.add(self)

    def __repr__(self) -> str:
        """Without the key."""
        return f"Client({self._url!r}, spool={str(self._folder)!r})"

    def track(
        self,
        type: str,  # noqa: A002 (Aforo's own word.)
        *,
        customer: str | None = None,
        api_key: str | None = None,
        properties: Mapping[str, object] | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Keep an event, to be sent soon; gives its idempotency key.

        Without `occurred_at`, which needs a time zone, it happened now; without `idempotency_key`
        it gets one, which only this event has. Raises `InvalidEvent`, `SpoolFull`, `SpoolError`
        or `ClientClosed`, and then it was not kept.
        """
        key = new_key() if idempotency_key is None else idempotency_key
        event = written_event(
            type,
            key=key,
            customer=customer,
            api_key=api_key,
            occurred_at=occurred_at,
            properties=properties,
        )
        self._running().spool.append(event)
        return key

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Send at once what waits; whether all of it has its verdict within so many seconds."""
        return self._running().sender.flush(timeout)

    def stats(self) -> Stats:
        """What this process has done so far, also after it is closed."""
        with self._lock:
            if self._parts is None and not self._is_closed:
                self._parts = self._started()
            return self._parts.sender.stats() if self._parts is not None else Stats()

    def close(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Flush and stop; whether everything was sent. The rest stays in the spool for the next."""
        with self._lock:
            if self._is_closed:
                return True
            self._is_closed = True
            parts = self._parts
        _open_clients.discard(self)
        if parts is None:
            return True
        deadline = time.monotonic() + timeout
        is_sent = parts.sender.flush(timeout)
        parts.sender.stop(max(deadline - time.monotonic(), _STOP_SECONDS))
        return is_sent

    def __enter__(self) -> Self:
        """Close it at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush and stop."""
        self.close()

    def _running(self) -> "_Parts":
        with self._lock:
            if self._is_closed:
                raise ClientClosed("the client is closed: open another one")
            if self._parts is None:  # The first call in the child of a fork.
                self._parts = self._started()
            return self._parts

    def _started(self) -> "_Parts":
        transport = Transport(
            self._url,
            self._key,
            compress=self._options.compress,
            timeout_seconds=self._options.timeout_seconds,
            ssl_context=self._options.ssl_context,
        )
        spool = Spool(self._folder, self._owner(), self._options)
        sender = Sender(spool, transport, self._options, self._on_verdict)
        sender.start()
        return _Parts(spool, transport, sender)

    def _owner(self) -> dict[str, str]:
        """Whose events the spool holds; of the key only what it is for, which rotation keeps."""
        kind = re.match(r"afo_(live|test)_", self._key)
        return {"url": self._url, "for": kind[1] if kind else "unknown"}

    def _at_exit(self) -> None:
        with contextlib.suppress(Exception):
            self.close(self._options.exit_seconds)

    def _in_child(self) -> None:
        """After a fork: the threads, files and connection are the parent's; begin anew at need."""
        self._lock = threading.Lock()
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.spool.abandon()
            parts.transport.close()


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one process of a client consists of."""

    spool: Spool
    transport: Transport
    sender: Sender


_open_clients: set[Client] = set()


@atexit.register
def _close_all() -> None:
    for client in list(_open_clients):
        client._at_exit()  # noqa: SLF001


def _begin_anew() -> None:
    for client in list(_open_clients):
        client._in_child()  # noqa: SLF001


os.register_at_fork(after_in_child=_begin_anew)
