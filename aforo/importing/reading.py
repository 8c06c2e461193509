"""Files as batches of events: CSV, lines of JSON, Parquet."""

import codecs
import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from aforo.importing.mapping import Plan, Wanted, planned
from aforo.importing.shapes import (
    BATCH_BYTES_MAX,
    EVENTS_MAX,
    Batch,
    Format,
    NotTaken,
    Row,
    refused,
)
from aforo.sdk.errors import Invalid

SUFFIXES = {
    ".csv": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".parquet": Format.PARQUET,
}
_BLANK = b" \t\r\n"
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])

Read = Row | NotTaken


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how it is to be read."""

    path: Path
    format: Format
    wanted: Wanted
    delimiter: str = ","
    encoding: str = "utf-8"
    batch_rows: int = EVENTS_MAX

    @property
    def options(self) -> dict[str, object]:
        """All that makes other events, or other batches, of the same file."""
        return {
            "format": self.format,
            "map": dict(self.wanted.columns),
            "set": dict(self.wanted.fixed),
            "properties": self.wanted.properties,
            "delimiter": self.delimiter,
            "encoding": self.encoding,
            "batch": self.batch_rows,
        }


@dataclass(slots=True)
class Progress:
    """How far into its file a reader is."""

    share: float = 0.0
    """From 0 to 1."""
    totals: dict[str, int] = field(default_factory=dict)


def format_of(path: Path) -> Format:
    """The format that a name speaks of. Raises `Invalid`."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        known = ", ".join(SUFFIXES)
        raise Invalid(f"{path.name} does not end in {known}: say --format csv, ndjson or parquet")
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. Raises `Invalid`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error


def batches(source: Source, digest: str, progress: Progress) -> Iterator[Batch]:
    """The rows of a file, batch by batch; the keys of rows that have none come of the digest and
    the number of the row. Raises `Invalid` where the file as a whole cannot be read."""
    rows = _READERS[source.format](source, digest, progress)
    batch = Batch(0)
    for read in rows:
        size = len(read.text) + 1 if isinstance(read, Row) else 0
        is_full = len(batch.rows) + len(batch.refused) >= source.batch_rows
        if is_full or batch.size + size > BATCH_BYTES_MAX:
            yield batch
            batch = Batch(batch.number + 1)
        if isinstance(read, NotTaken):
            batch.refused.append(read)
        elif size > BATCH_BYTES_MAX:
            message = f"the event has over {BATCH_BYTES_MAX:,} bytes"
            batch.refused.append(refused(read.line, message))
        else:
            batch.rows.append(read)
            batch.size += size
    if batch.rows or batch.refused:
        yield batch


def key_of(digest: str, number: int) -> str:
    """The idempotency key of a row that brings none."""
    return f"import-{digest[:32]}-{number}"


def _csv_rows(source: Source, digest: str, progress: Progress) -> Iterator[Read]:
    records = _records(_texts(source, progress), source.delimiter)
    _, header = next(records, (0, []))
    if not header:
        raise Invalid(f"{source.path.name} is empty: its first line names the columns")
    plan = planned(source.wanted, header)
    for number, (line, cells) in enumerate(records, start=1):
        if len(cells) != len(header):
            message = f"the row has {len(cells)} cells, and the first line has {len(header)}"
            yield refused(line, message)
        else:
            row = dict(zip(header, cells, strict=True))
            yield _mapped(plan, row, line=line, key=key_of(digest, number))


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line that it begins in. Raises `Invalid`."""
    reader, line = csv.reader(lines, delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise Invalid(f"the record that begins in line {line} is no CSV: {error}") from error


def _texts(source: Source, progress: Progress) -> Iterator[str]:
    """The lines of a file, decoded. Raises `Invalid`."""
    number = 0
    is_utf8 = source.encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
    encoding = "utf-8-sig" if is_utf8 else source.encoding
    try:
        with (
            source.path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding, newline="") as file,
        ):
            size = max(os.fstat(raw.fileno()).st_size, 1)
            for line in file:
                number += 1
                progress.share = raw.tell() / size
                yield line
    except LookupError as error:
        raise Invalid(f"--encoding {source.encoding} is unknown") from error
    except UnicodeError as error:
        raise Invalid(
            f"the file is not in {source.encoding}, from line {number + 1} on or soon after: name "
            "another with --encoding"
        ) from error


def _mapped(plan: Plan, row: Mapping[str, object], *, line: int, key: str) -> Read:
    try:
        return Row(line, plan.event(row, key=key)[1])
    except (Invalid, UnicodeError) as error:
        return refused(line, f"{error}", key)


def _json_rows(source: Source, digest: str, progress: Progress) -> Iterator[Read]:
    """Lines as they stand: what is wrong with one is for the API to say."""
    with source.path.open("rb") as file:
        size, seen, number = max(os.fstat(file.fileno()).st_size, 1), 0, 0
        file.seek(len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0)
        for line, given in enumerate(file, start=1):
            seen += len(given)
            progress.share = seen / size
            if text := given.strip(_BLANK):
                number += 1
                yield Row(line, _keyed(text, key_of(digest, number)))


def _keyed(text: bytes, key: str) -> bytes:
    """An event with a key, its values byte by byte as they were."""
    try:
        members = _MEMBERS.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
    if bytes(members.get("idempotencyKey", b"null")) != b"null":
        return text
    return msgspec.json.encode({**members, "idempotencyKey": key})


def _parquet_rows(source: Source, digest: str, progress: Progress) -> Iterator[Read]:
    try:
        from aforo.importing.parquet import rows  # noqa: PLC0415 — it is an extra.
    except ModuleNotFoundError as error:
        raise Invalid(
            "Parquet files need pyarrow: run `pip install 'aforo[parquet]'`, or turn the file "
            "into CSV or lines of JSON"
        ) from error
    columns, total, found = rows(source.path)
    plan = planned(source.wanted, columns)
    for number, row in enumerate(found, start=1):
        progress.share = number / max(total, 1)
        yield _mapped(plan, row, line=number, key=key_of(digest, number))


_READERS: dict[Format, Callable[[Source, str, Progress], Iterator[Read]]] = {
    Format.CSV: _csv_rows,
    Format.NDJSON: _json_rows,
    Format.PARQUET: _parquet_rows,
}
