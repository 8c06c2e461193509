"""A small HTTP server that answers for chdb as a ClickHouse server would, apart from our process.

It runs as `python -m aforo.storage.embedded.clickhouse_front` and holds what clickhouse-connect
uses of ClickHouse's HTTP protocol: queries in any format, parameters, settings, inserts with
compressed bodies, summaries, and errors with ClickHouse's code and text. It does not hold
sessions, temporary tables, external tables, progress headers and compressed answers.
"""

import argparse
import hmac
import json
import os
import secrets
import signal
import socket
import sys
import threading
import uuid
from base64 import b64decode
from collections.abc import Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aforo.storage.embedded import clickhouse_body as bodies
from aforo.storage.embedded import clickhouse_statement as statements
from aforo.storage.embedded.clickhouse_engine import Answer, Engine, Written
from aforo.storage.embedded.clickhouse_failure import (
    AUTHENTICATION_FAILED,
    INCORRECT_DATA,
    NOT_IMPLEMENTED,
    SYNTAX_ERROR,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    QueryFailed,
    failure,
)

USER = "aforo"
QUERIES_AT_ONCE = 8
CONNECTIONS_MAX = 128
QUEUE_SECONDS = 60.0
IDLE_SECONDS = 300
DRAIN_SECONDS = 5.0
CLOSE_SECONDS = 15.0
"""Longer than the drain, shorter than the patience of who stops us."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STATEMENT_BYTES_MAX = 64 * 1024 * 1024
HEAD_BYTES = 64 * 1024
SLICE_BYTES = 1024 * 1024

NOT_SETTINGS = frozenset(
    [
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "param_",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    ]
)


class Front(ThreadingHTTPServer):
    """The server: a thread per connection, a bounded number of both connections and queries."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, engine: Engine, password: str) -> None:
        super().__init__(listener.getsockname(), Conversation, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.engine = engine
        self.password = password
        self.queries = threading.BoundedSemaphore(QUERIES_AT_ONCE)
        self._connections = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, or drop it where there are too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def drain(self) -> None:
        """Wait for the running queries, but not for long."""
        for _ in range(QUERIES_AT_ONCE):
            self.queries.acquire(timeout=DRAIN_SECONDS / QUERIES_AT_ONCE)


class Conversation(BaseHTTPRequestHandler):
    """One connection, request after request."""

    server: Front
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # Head and body leave together.

    def do_GET(self) -> None:
        """Answer `/ping`, or a query that may only read."""
        if urlsplit(self.path).path == "/ping":
            self._send(200, b"Ok.\n")
        else:
            self._answer(may_write=False)

    def do_POST(self) -> None:
        """Answer a query."""
        self._answer(may_write=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: addresses hold parameters, which belong to customers."""

    def _answer(self, *, may_write: bool) -> None:
        fields = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        self._query_id = fields.get("query_id") or str(uuid.uuid4())
        self._began = False
        try:
            self._check_password(fields)
            if not may_write and fields.get("readonly", "0") == "0":
                fields["readonly"] = "2"
            if not self.server.queries.acquire(timeout=QUEUE_SECONDS):
                raise failure(TOO_MANY_SIMULTANEOUS_QUERIES, "Too many simultaneous queries")
            try:
                self._run(fields)
            finally:
                self.server.queries.release()
        except QueryFailed as error:
            self._send_failure(error)
        except bodies.BodyError as error:
            self._send_failure(failure(INCORRECT_DATA, str(error)))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_password(self, fields: Mapping[str, str]) -> None:
        user, password = _credentials(self.headers, fields)
        good = hmac.compare_digest(password.encode(), self.server.password.encode())
        if not (hmac.compare_digest(user.encode(), USER.encode()) and good):
            raise failure(
                AUTHENTICATION_FAILED,
                f"{user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)",
            )

    def _run(self, fields: dict[str, str]) -> None:
        body = bodies.chunks(self.rfile, self.headers)
        if (kind := self.headers.get("Content-Type", "")).startswith("multipart/form-data"):
            fields |= bodies.form(_whole(body), kind)
            body = iter(())
        parameters = {
            name.removeprefix("param_"): value
            for name, value in fields.items()
            if name.startswith("param_")
        }
        settings = {
            name: value
            for name, value in fields.items()
            if name not in NOT_SETTINGS and not name.startswith("param_")
        }
        if fields.get("compress", "0") not in {"0", ""} or fields.get("decompress", "0") != "0":
            raise failure(NOT_IMPLEMENTED, "compress and decompress are not supported")
        with self.server.engine.handle(
            database=fields.get("database"), settings=settings
        ) as handle:
            given = fields.get("query", "").encode("utf-8", "surrogateescape")
            head, body = (given, body) if given else _peeked(body)
            if (insert := statements.data_insert(head)) is not None:
                rest = _joined(head[insert.length :], body)
                self._send_summary(handle.insert(insert.statement, insert.format, rest))
                return
            if given and (reading := statements.input_insert(_text(head))) is not None:
                _check_alone(_text(head))
                with bodies.as_file(self.rfile, self.headers) as (path, compression):
                    handle.query(reading.reading(path, compression), parameters)
                self._send(200, b"")
                return
            # A body goes on where the address ended, and by no means where only we had paused.
            between = b"\n" if given else b""
            statement = _text(between.join(part for part in (head, _whole(body)) if part))
            _check_alone(statement)
            if fields.get("wait_end_of_query") != "1" and statements.can_stream(statement):
                self._send_stream(handle.stream(statement, parameters), statement)
                return
            wanted = statements.output_format(statement) or fields.get(
                "default_format", self.headers.get("X-ClickHouse-Format", "TabSeparated")
            )
            self._send_result(
                handle.query(statement, parameters, default_format=_named(wanted)),
                statement,
                wanted,
            )

    def _send_result(self, answer: Answer, statement: str, wanted: str) -> None:
        body = answer.body
        has_result = bool(body)
        if _named(wanted) != wanted and statements.output_format(statement) is None:
            # Asked with names, a statement that has a result says at least those: by this the
            # client tells an empty result from none.
            body = body.partition(b"\n")[2]
        summary = {
            "read_rows": str(answer.rows_read),
            "read_bytes": str(answer.bytes_read),
            "elapsed_ns": str(int(answer.seconds * 1e9)),
        }
        headers = {"X-ClickHouse-Summary": json.dumps(summary)}
        if has_result or statements.output_format(statement) is not None:
            headers["X-ClickHouse-Format"] = wanted
        self._send(200, body, headers)

    def _send_summary(self, written: Written) -> None:
        summary = {
            "read_rows": "0",
            "read_bytes": "0",
            "written_rows": str(written.rows),
            "written_bytes": str(written.bytes),
            "result_rows": str(written.rows),
            "result_bytes": str(written.bytes),
            "elapsed_ns": str(int(written.seconds * 1e9)),
        }
        self._send(200, b"", {"X-ClickHouse-Summary": json.dumps(summary)})

    def _send_stream(self, blocks: Iterator[bytes], statement: str) -> None:
        # The first block is awaited before the head goes out, so that most errors have a status.
        first = next(blocks, b"")
        tag = secrets.token_hex(8)
        self._begin(
            200,
            {
                "Transfer-Encoding": "chunked",
                "X-ClickHouse-Format": statements.output_format(statement) or "",
                "X-ClickHouse-Exception-Tag": tag,
            },
        )
        try:
            self._write_chunk(first)
            for block in blocks:
                self._write_chunk(block)
        except QueryFailed as error:
            text = error.worded(self.server.engine.version)
            self._write_chunk(
                f"__exception__\r\n{tag}\r\n{text}\n{len(text)} {tag}\r\n__exception__\r\n".encode()
            )
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _write_chunk(self, block: bytes) -> None:
        for start in range(0, len(block), SLICE_BYTES):
            part = block[start : start + SLICE_BYTES]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    def _send_failure(self, error: QueryFailed) -> None:
        # What is left of the body is not worth reading.
        self.close_connection = True
        if self._began:
            return
        self._send(
            error.status,
            f"{error.worded(self.server.engine.version)}\n".encode("utf-8", "replace"),
            {"X-ClickHouse-Exception-Code": str(error.code), "Connection": "close"},
        )

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)
        self.wfile.flush()

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self._began = True
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("X-ClickHouse-Server-Display-Name", "aforo-embedded")
        self.send_header("X-ClickHouse-Query-Id", getattr(self, "_query_id", ""))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.end_headers()


def main() -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs and close the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", required=True, type=Path, help="folder of the data")
    parser.add_argument("--password-file", required=True, type=Path)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--port", type=int, help="on loopback; 0 takes a free one")
    place.add_argument("--fd", type=int, help="an inherited socket that listens already")
    options = parser.parse_args()
    # Blocked in every thread and waited for in this one: a handler could come at a moment when
    # the lock that it needs is held by what it interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    listener = (
        socket.create_server(("127.0.0.1", options.port))
        if options.fd is None
        else socket.socket(fileno=options.fd)
    )
    password = options.password_file.read_text(encoding="ascii").strip()
    engine = Engine(options.path.absolute())
    front = Front(listener, engine, password)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    signal.sigwait(STOP_SIGNALS)
    last_resort = threading.Timer(CLOSE_SECONDS, os._exit, (1,))
    last_resort.daemon = True
    last_resort.start()
    front.shutdown()
    front.drain()
    engine.close()
    sys.stdout.flush()
    # The engine's own threads would hold an ordinary exit.
    os._exit(0)


def _check_alone(statement: str) -> None:
    if statements.has_more_than_one(statement):
        raise failure(SYNTAX_ERROR, "Multi-statements are not allowed. (SYNTAX_ERROR)")


def _credentials(headers: Message, fields: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return "default", ""
        return user, password
    return (
        headers.get("X-ClickHouse-User") or fields.get("user", "default"),
        headers.get("X-ClickHouse-Key") or fields.get("password", ""),
    )


def _named(output_format: str) -> str:
    return "TabSeparatedWithNames" if output_format == "TabSeparated" else output_format


def _whole(body: Iterator[bytes]) -> bytes:
    whole = bytearray()
    for chunk in body:
        whole += chunk
        if len(whole) > STATEMENT_BYTES_MAX:
            raise bodies.BodyError(f"the statement is longer than {STATEMENT_BYTES_MAX} bytes")
    return bytes(whole)


def _peeked(body: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Enough of a body to see what statement it begins with, and what follows."""
    head = bytearray()
    for chunk in body:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return bytes(head), body


def _joined(head: bytes, body: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from body


def _text(statement: bytes) -> str:
    try:
        return statement.decode()
    except UnicodeDecodeError as error:
        raise failure(SYNTAX_ERROR, f"the statement is not UTF-8: {error}") from error


if __name__ == "__main__":
    main()
