"""chdb inside its own process: one handle per request, because a handle remembers too much.

A handle whose query raised gives that query's rows before the next result, and `SET` and `USE`
stay; a new one costs a third of a millisecond. One handle is kept open only to hold the engine.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from aforo.storage.embedded.clickhouse_failure import UNKNOWN_SETTING, QueryFailed, failure

DATABASE = "aforo"
MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
ENGINE_BYTES_MAX = min(3_000_000_000, MACHINE_BYTES // 2)
QUERY_BYTES_MAX = ENGINE_BYTES_MAX // 3 * 2
DEFAULTS = {
    "max_memory_usage": str(QUERY_BYTES_MAX),
    "max_threads": str(min(4, os.cpu_count() or 1)),
    "max_result_rows": "5000000",
    "max_result_bytes": str(QUERY_BYTES_MAX // 4),
    "result_overflow_mode": "throw",
    "max_execution_time": "300",
    # Acknowledged means written: the engine's own default answers from a buffer.
    "async_insert": "0",
    "insert_deduplicate": "0",
}
# What makes every other setting fail once it is set, so it comes last.
LAST_SETTING = "readonly"

_SETTING_NAME = re.compile(r"[A-Za-z_][\w.]*\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole result."""

    body: bytes
    rows_read: int
    bytes_read: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Written:
    """What an insert did."""

    rows: int
    bytes: int
    seconds: float


class Engine:
    """The one engine of this process, on one folder."""

    def __init__(self, path: Path) -> None:
        """Open the engine on a folder, and make it this process's working folder's child."""
        # A connection string has its own rules for `?`, `&` and `:`; a bare name needs none.
        os.chdir(path.parent)
        self._path = path.name
        self._chdb: Any = import_module("chdb")
        options = f"max_server_memory_usage={ENGINE_BYTES_MAX}&timezone=UTC"
        self._root = self._chdb.connect(f"{self._path}?{options}")
        self._root.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic")
        self.version = (
            self._root.query("SELECT version()", "TabSeparatedRaw").bytes().decode().strip()
        )

    def close(self) -> None:
        """Write what is in memory and close."""
        self._root.close()

    @contextmanager
    def handle(self, *, database: str | None, settings: Mapping[str, str]) -> Iterator["Handle"]:
        """A fresh handle in this database and under these settings, closed afterwards.

        Raises: `QueryFailed`.
        """
        connection = self._chdb.connect(self._path)
        try:
            handle = Handle(connection)
            if database:
                handle.query(f"USE {_quoted_name(database)}", {})
            wanted = {**DEFAULTS, **settings}
            last = wanted.pop(LAST_SETTING, None)
            if last is not None:
                wanted[LAST_SETTING] = last
            pairs = ", ".join(f"{_checked_name(k)} = {_quoted(v)}" for k, v in wanted.items())
            handle.query(f"SET {pairs}", {})
            yield handle
        finally:
            connection.close()


class Handle:
    """One conversation with the engine."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def query(
        self, statement: str, parameters: Mapping[str, str], *, default_format: str = "TabSeparated"
    ) -> Answer:
        """Run a statement and give its whole result.

        Raises: `QueryFailed`.
        """
        try:
            result = self._connection.query(statement, default_format, params=dict(parameters))
        except (RuntimeError, UnicodeError) as error:
            raise QueryFailed(str(error)) from error
        return Answer(
            result.bytes() or b"",
            result.storage_rows_read(),
            result.storage_bytes_read(),
            result.elapsed(),
        )

    def stream(self, statement: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Run a SELECT with a FORMAT clause and give its result block by block.

        Raises: `QueryFailed`, also between blocks.
        """
        try:
            for chunk in self._connection.send_query(statement, "Native", params=dict(parameters)):
                yield chunk.bytes()
        except (RuntimeError, UnicodeError) as error:
            raise QueryFailed(str(error)) from error

    def insert(self, statement: str, data_format: str, chunks: Iterator[bytes]) -> Written:
        """Run an INSERT with the rows in these chunks; nothing is kept where a chunk is missing.

        Raises: `QueryFailed`, and whatever `chunks` raises.
        """
        try:
            with self._connection.send_insert(statement, data_format) as inserter:
                for chunk in chunks:
                    inserter.append(chunk)
                done = inserter.finish()
        except (RuntimeError, UnicodeError) as error:
            raise QueryFailed(str(error)) from error
        return Written(done.rows_written, done.bytes_written, done.elapsed)


def _checked_name(name: str) -> str:
    if not _SETTING_NAME.match(name):
        raise failure(UNKNOWN_SETTING, f"Unknown setting {name!r}. (UNKNOWN_SETTING)")
    return name


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _quoted_name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
