"""What a body is packed in, and how it is unpacked within bounds."""

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request

from aforo.api.auth.requests import Refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLICE_BYTES = 64 * 1024
MEMBERS_MAX = 1_000
"""Of one body: a member may be as short as 20 bytes, and each has to be started anew."""
ZSTD_WINDOW_LOG_MAX = 23
"""8 MiB, which RFC 9659 sets for this encoding: the memory that a frame may ask for."""
ACCEPTED = "gzip, zstd"

_IDENTITY = "identity"


class _Member(Protocol):
    """One stream within a body, as zlib and zstd both have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def encoding_of(request: Request) -> str:
    """The content encoding of a body, `identity` where it has none. Raises `Refused` with 415."""
    named = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    encodings = [name.strip() for name in named if name.strip()] or [_IDENTITY]
    if len(encodings) > 1:
        raise _unsupported("a body has one content encoding, and this one has several")
    (encoding,) = encodings
    if encoding != _IDENTITY and encoding not in _MEMBERS:
        raise _unsupported("the content encoding is gzip or zstd, or there is none")
    return encoding


def unpacked(body: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """The body as it was before it was packed, and no more of it than the limit.

    A body may be several members or frames in a row, as RFC 1952 and RFC 8878 have it; nothing
    else may come after one. Raises `Refused` with 413 for too much, 400 for a broken stream.
    """
    if encoding == _IDENTITY:
        return body
    start_member, whole = _MEMBERS[encoding], bytearray()
    member, members = start_member(), 1
    for start in range(0, len(body), SLICE_BYTES):
        piece = body[start : start + SLICE_BYTES]
        while piece:
            if member.eof:
                member, members = start_member(), members + 1
                if members > MEMBERS_MAX:
                    raise _broken(encoding, f"it has more than {MEMBERS_MAX:,} members")
            # One byte past the limit is enough to know: a bomb is never unpacked further.
            try:
                whole += member.decompress(piece, bytes_max + 1 - len(whole))
            except (zlib.error, zstd.ZstdError) as error:
                raise _broken(encoding, f"{error}") from error
            if len(whole) > bytes_max:
                raise Refused(
                    413,
                    "TOO_LARGE",
                    f"a body has at most {bytes_max:,} bytes once it is unpacked, and this one "
                    "has more: send it in parts",
                )
            piece = member.unused_data
    if not member.eof:
        raise _broken(encoding, "it ends early")
    return bytes(whole)


def _gzip_member() -> _Member:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def _zstd_frame() -> _Member:
    options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG_MAX}
    return zstd.ZstdDecompressor(options=options)


_MEMBERS: dict[str, Callable[[], _Member]] = {
    "gzip": _gzip_member,
    "x-gzip": _gzip_member,  # RFC 9110, 8.4.1.3: the same under its old name.
    "zstd": _zstd_frame,
}


def _unsupported(message: str) -> Refused:
    return Refused(415, "UNSUPPORTED_MEDIA_TYPE", message, {"Accept-Encoding": ACCEPTED})


def _broken(encoding: str, reason: str) -> Refused:
    return Refused(400, "BAD_REQUEST", f"the body cannot be unpacked as {encoding}: {reason}")
