"""One connection to Aforo: a batch goes out, and what came of it comes back as a value."""

import contextlib
import gzip
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from aforo_client.retry import is_passing, retry_after
from aforo_client.verdicts import Said, Unreadable, read_answer

VERSION = "0.1.0"
ANSWER_BYTES_MAX = 16 * 1024 * 1024
COMPRESSED_FROM_BYTES = 512
_READ_BYTES = 64 * 1024
_LEVEL = 1
"""gzip's quickest: events are alike, and more effort gains little."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Every event has its verdict."""

    counts: Mapping[str, int]
    said: Sequence[Said]


@dataclass(frozen=True, slots=True)
class Later:
    """No answer, or one that will pass: send it again."""

    reason: str
    after_seconds: float | None = None
    """What the server asks for."""
    is_cut_off: bool = False
    """Whether the connection failed under way, as where a batch is too large for it."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The batch is too large for the server, or for something before it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that will stay the same until a person has done something."""

    reason: str


Outcome = Taken | Later | TooLarge | Refused


class Transport:
    """Posts batches over a connection that is kept open. One thread sends; any may abort."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        compress: bool,
        timeout_seconds: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        """Raises ValueError where the address or the key is none; the key is not repeated."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ValueError("url is the address of Aforo, such as https://aforo.example")
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ValueError("key is an API key of Aforo; this one has spaces or odd characters")
        self.bytes_sent = 0
        self._is_secure = parts.scheme == "https"
        self._address = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/v1/events"
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "User-Agent": f"aforo-client-python/{VERSION}",
        }
        self._compress = compress
        self._timeout_seconds = timeout_seconds
        self._ssl_context = ssl_context
        self._connection: http.client.HTTPConnection | None = None
        self._aborted = threading.Event()

    def post(self, events: Sequence[bytes]) -> Outcome:
        """Send a batch once. Never raises for what the network or the server does."""
        body = b"[" + b",".join(events) + b"]"
        is_fresh = self._connection is None
        outcome = self._try(body, len(events))
        if isinstance(outcome, Later) and outcome.is_cut_off and not is_fresh:
            outcome = self._try(body, len(events))  # It had been closed while nobody used it.
        if isinstance(outcome, _NotCompressed):
            self._compress = False
            outcome = self._try(body, len(events))
        if isinstance(outcome, _NotCompressed):
            return Refused(outcome.reason)
        return outcome

    def abort(self) -> None:
        """End a request that is under way, and refuse every other."""
        self._aborted.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next batch opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _try(self, body: bytes, events: int) -> "Outcome | _NotCompressed":
        headers = dict(self._headers)
        if self._compress and len(body) >= COMPRESSED_FROM_BYTES:
            body = gzip.compress(body, _LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        try:
            status, answer_headers, answer = self._exchange(body, headers)
        except (OSError, http.client.HTTPException, Unreadable) as error:
            self.close()
            is_cut_off = isinstance(error, _CUT_OFF)
            return Later(f"{type(error).__name__}: {error}", is_cut_off=is_cut_off)
        if status == http.client.UNSUPPORTED_MEDIA_TYPE and "Content-Encoding" in headers:
            return _NotCompressed(_reason(status, answer))
        return _outcome(status, answer_headers, answer, events)

    def _exchange(
        self, body: bytes, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request and its whole answer. Raises OSError, HTTPException or Unreadable."""
        if self._aborted.is_set():
            raise ConnectionAbortedError("the client is closing")
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        self.bytes_sent += len(body)
        # A server that refuses a large body may answer before it has read it, and close.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", self._path, body, headers)
        deadline = time.monotonic() + self._timeout_seconds
        response = connection.getresponse()
        answer = bytearray()
        while piece := response.read1(_READ_BYTES):
            answer += piece
            if len(answer) > ANSWER_BYTES_MAX:
                raise Unreadable(f"the answer has more than {ANSWER_BYTES_MAX:,} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the answer took more than {self._timeout_seconds:g} s")
        if response.length:
            raise Unreadable("the answer ended early")
        response.close()  # `read1` leaves that to its caller; the connection stays open.
        if response.will_close:
            self.close()
        return response.status, response.headers, bytes(answer)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        timeout = self._timeout_seconds
        if not self._is_secure:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        context = self._ssl_context or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


_CUT_OFF = (ConnectionResetError, BrokenPipeError, TimeoutError, http.client.IncompleteRead)


@dataclass(frozen=True, slots=True)
class _NotCompressed:
    """The server takes no compressed bodies."""

    reason: str


def _outcome(status: int, headers: http.client.HTTPMessage, answer: bytes, events: int) -> Outcome:
    if status == http.client.ACCEPTED:
        try:
            counts, said = read_answer(json.loads(answer, parse_float=Decimal), events=events)
        except (ValueError, RecursionError, Unreadable) as error:
            return Later(f"202 with an answer that is none to this batch: {error}")
        return Taken(counts, said)
    reason = _reason(status, answer)
    if status == http.client.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge(reason)
    if is_passing(status):
        return Later(reason, retry_after(headers.get("Retry-After"), datetime.now(UTC)))
    return Refused(reason)


def _reason(status: int, answer: bytes) -> str:
    """The status with the server's own words, if it has any."""
    try:
        said = json.loads(answer)["error"]["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"status {status}"
    return f"status {status}: {said!s:.300}"
