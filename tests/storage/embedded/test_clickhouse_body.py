"""The bodies that the front reads."""

import gzip
import io
from collections.abc import Callable
from email.message import Message

import lz4.frame
import pytest

from aforo.storage.embedded import clickhouse_body as bodies


def read(body: bytes, **headers: str) -> bytes:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return b"".join(bodies.chunks(io.BytesIO(body), message))


def test_a_body_has_its_length_or_its_chunks() -> None:
    assert read(b"12345678", Content_Length="5") == b"12345"
    assert read(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", Transfer_Encoding="chunked") == b"abcde"
    assert read(b"") == b""


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("lz4", lz4.frame.compress)]
)
def test_compressed_frames_may_follow_one_another(
    encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(b"one ") + compress(b"two")
    assert read(body, Content_Length=str(len(body)), Content_Encoding=encoding) == b"one two"
    with pytest.raises(bodies.BodyError, match="ended inside"):
        read(body, Content_Length=str(len(body) - 3), Content_Encoding=encoding)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"abc", {"Content_Length": "5"}),
        (b"abc", {"Content_Length": "-1"}),
        (b"5\r\nabc", {"Transfer_Encoding": "chunked"}),
        (b"3\r\nabc\r\n", {"Transfer_Encoding": "chunked"}),
        (b"zz\r\nabc\r\n", {"Transfer_Encoding": "chunked"}),
        (b"abc", {"Content_Length": "3", "Content_Encoding": "lz4"}),
        (b"abc", {"Content_Length": "3", "Content_Encoding": "br"}),
    ],
)
def test_a_broken_body_is_an_error_and_never_a_shorter_body(
    body: bytes, headers: dict[str, str]
) -> None:
    with pytest.raises(bodies.BodyError):
        read(body, **headers)


def test_a_body_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_BYTES_MAX", 4)
    with pytest.raises(bodies.BodyError, match="longer than 4 bytes"):
        read(b"12345", Content_Length="5")


def test_a_form_gives_its_fields_and_refuses_files() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="param_a"%b\r\n\r\n\xc3\xbc\r\n1\r\n--x--'
    assert bodies.form(part % b"", "multipart/form-data; boundary=x") == {"param_a": "ü\r\n1"}
    with pytest.raises(bodies.BodyError, match="external tables"):
        bodies.form(part % b'; filename="t"', "multipart/form-data; boundary=x")
    with pytest.raises(bodies.BodyError, match="without boundary"):
        bodies.form(part % b"", "multipart/form-data")
