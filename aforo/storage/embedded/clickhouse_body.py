"""The bodies of HTTP requests to the front: their length, their compression, their forms."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from functools import partial
from importlib import import_module
from io import BufferedIOBase
from tempfile import TemporaryFile
from typing import Any, Protocol

CHUNK_BYTES = 1024 * 1024
BODY_BYTES_MAX = 1024 * 1024 * 1024
LINE_BYTES_MAX = 256
GZIP_OR_ZLIB = 47
"""zlib's window bits for either of the two."""


_ENGINE_NAMES = {"": "none", "identity": "none", "gzip": "gzip", "zstd": "zstd"}


class BodyError(Exception):
    """The request's body is broken, too long, or in a form that the front does not take."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def chunks(source: BufferedIOBase, headers: Message) -> Iterator[bytes]:
    """The body's bytes as they were before compression.

    Raises: `BodyError`, also in the middle, where the client went away.
    """
    raw = _counted(_transferred(source, headers))
    encoding = headers.get("Content-Encoding", "identity").lower()
    return raw if encoding in {"", "identity"} else _decompressed(raw, encoding)


@contextmanager
def as_file(source: BufferedIOBase, headers: Message) -> Iterator[tuple[str, str]]:
    """The body, as it is compressed, as a file that nobody else finds: its path, and the engine's
    name of the compression.

    Raises: `BodyError`, with nothing given where the client went away.
    """
    encoding = headers.get("Content-Encoding", "identity").lower()
    compression = _ENGINE_NAMES.get(encoding)
    if compression is None:
        raise BodyError(
            f"rows to be read as input are not taken with Content-Encoding {encoding!r}"
        )
    with TemporaryFile() as file:
        for chunk in _counted(_transferred(source, headers)):
            file.write(chunk)
        file.flush()
        yield f"/dev/fd/{file.fileno()}", compression


def form(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a multipart form.

    Raises: `BodyError` for files (tables sent along with a query) and for a broken form.
    """
    _, found, boundary = content_type.partition("boundary=")
    if not found:
        raise BodyError("a multipart form without boundary")
    fields: dict[str, str] = {}
    mark = b"--" + boundary.split(";")[0].strip('" ').encode()
    for part in body.split(mark)[1:-1]:
        head, separator, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = head.decode("utf-8", "replace")
        _, named, rest = disposition.partition('name="')
        if not separator or not named or "filename=" in disposition:
            raise BodyError("the embedded engine takes no external tables")
        fields[rest.partition('"')[0]] = value.removesuffix(b"\r\n").decode(
            "utf-8", "surrogateescape"
        )
    return fields


def _transferred(source: BufferedIOBase, headers: Message) -> Iterator[bytes]:
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        yield from _chunked(source)
        return
    length = headers.get("Content-Length", "0")
    if not length.isdecimal():
        raise BodyError("Content-Length is not a number")
    yield from _exactly(source, int(length))


def _chunked(source: BufferedIOBase) -> Iterator[bytes]:
    while True:
        line = source.readline(LINE_BYTES_MAX)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise BodyError("the connection ended inside the body") from error
        if size == 0:
            break
        yield from _exactly(source, size)
        source.readline(LINE_BYTES_MAX)
    while source.readline(LINE_BYTES_MAX) not in {b"\r\n", b"\n", b""}:
        pass


def _exactly(source: BufferedIOBase, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = source.read(min(size, CHUNK_BYTES))
        if not chunk:
            raise BodyError("the connection ended inside the body")
        size -= len(chunk)
        yield chunk


def _counted(raw: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for chunk in raw:
        total += len(chunk)
        if total > BODY_BYTES_MAX:
            raise BodyError(f"the body is longer than {BODY_BYTES_MAX} bytes")
        yield chunk


def _decompressed(raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    make, broken = _codec(encoding)
    decompressor: _Decompressor | None = None
    for chunk in raw:
        rest = chunk
        while rest:
            # A body may be several compressed frames, one after the other.
            if decompressor is None or decompressor.eof:
                decompressor = make()
            try:
                plain = decompressor.decompress(rest)
            except broken as error:
                raise BodyError(f"the body is not {encoding}: {error}") from error
            if plain:
                yield plain
            rest = decompressor.unused_data if decompressor.eof else b""
    if decompressor is not None and not decompressor.eof:
        raise BodyError("the connection ended inside the body")


def _codec(encoding: str) -> tuple[Callable[[], _Decompressor], type[Exception]]:
    """What decompresses, and what it raises on bytes that are something else."""
    library: Any
    match encoding:
        case "gzip" | "deflate":
            return partial(zlib.decompressobj, wbits=GZIP_OR_ZLIB), zlib.error
        case "lz4":
            library = import_module("lz4.frame")
            return library.LZ4FrameDecompressor, RuntimeError
        case "zstd":
            try:
                library = import_module("compression.zstd")
            except ModuleNotFoundError:
                library = import_module("backports.zstd")
            return library.ZstdDecompressor, library.ZstdError
        case _:
            raise BodyError(f"the embedded engine does not take Content-Encoding {encoding!r}")
