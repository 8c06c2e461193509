"""Packed bodies: what is unpacked, what is refused, and what that costs."""

import gzip
import json
import random
import sys
import time
import tracemalloc
import zlib

import httpx2
import pytest

from aforo.api.auth.requests import Refused
from aforo.api.ingest.encodings import MEMBERS_MAX, ZSTD_WINDOW_LOG_MAX, unpacked
from aforo.api.ingest.route import BODY_BYTES_MAX
from tests.api.ingest.forms import ARRAY
from tests.metering.market import KEPT, Market

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.anyio

PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd.compress}
TEXT = json.dumps([{"idempotencyKey": f"key-{number}"} for number in range(200)]).encode()
SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
"""A skippable frame of RFC 8878."""


def refusal(body: bytes, encoding: str, *, bytes_max: int = BODY_BYTES_MAX) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        unpacked(body, encoding, bytes_max=bytes_max)
    return refused.value.status, refused.value.message


@pytest.mark.parametrize("encoding", PACK)
def test_what_was_packed_is_unpacked(encoding: str) -> None:
    pack = PACK[encoding]
    whole = random.Random(1).randbytes(300_000) + TEXT  # More than one slice, and hardly packed.
    assert unpacked(pack(whole), encoding, bytes_max=BODY_BYTES_MAX) == whole
    assert unpacked(pack(b""), encoding, bytes_max=BODY_BYTES_MAX) == b""
    assert unpacked(whole, "identity", bytes_max=BODY_BYTES_MAX) == whole


@pytest.mark.parametrize("encoding", PACK)
def test_members_in_a_row_are_one_body(encoding: str) -> None:
    pack = PACK[encoding]
    parts = [TEXT, b"", b"x" * 100_000, TEXT]
    body = b"".join(map(pack, parts))
    assert unpacked(body, encoding, bytes_max=BODY_BYTES_MAX) == b"".join(parts)
    most = pack(b"x") * MEMBERS_MAX
    assert unpacked(most, encoding, bytes_max=BODY_BYTES_MAX) == b"x" * MEMBERS_MAX
    status, message = refusal(most + pack(b"x"), encoding)
    assert (status, "more than 1,000 members" in message) == (400, True)


def test_frames_that_are_to_be_skipped_are_skipped() -> None:
    body = SKIPPED + zstd.compress(TEXT) + SKIPPED
    assert unpacked(body, "zstd", bytes_max=BODY_BYTES_MAX) == TEXT


@pytest.mark.parametrize("encoding", PACK)
def test_nothing_else_stands_before_between_or_after_members(encoding: str) -> None:
    good = PACK[encoding](TEXT)
    for broken in (good + b"\0", good + b"\0" * 512, good + b"[]", b"[]" + good, b"[]", b"\0"):
        assert refusal(broken, encoding)[0] == 400


@pytest.mark.parametrize("encoding", PACK)
def test_every_cut_is_noticed(encoding: str) -> None:
    good = PACK[encoding](TEXT)
    for length in range(len(good)):
        status, message = refusal(good[:length], encoding)
        assert (status, "ends early" in message) == (400, True), length


def test_a_wrong_check_sum_is_noticed() -> None:
    good = bytearray(gzip.compress(TEXT))
    good[-8] ^= 1
    assert refusal(bytes(good), "gzip")[0] == 400
    options = {zstd.CompressionParameter.checksum_flag: 1}
    summed = bytearray(zstd.compress(TEXT, options=options))
    summed[-1] ^= 1
    assert refusal(bytes(summed), "zstd")[0] == 400


def test_one_encoding_is_not_another() -> None:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = raw.compress(TEXT) + raw.flush()
    for body, encoding in (
        (zlib.compress(TEXT), "gzip"),
        (deflated, "gzip"),
        (zstd.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "zstd"),
    ):
        assert refusal(body, encoding)[0] == 400


def test_a_frame_asks_for_eight_mebibytes_of_memory_at_most() -> None:
    whole = random.Random(2).randbytes(9 * 1024 * 1024)
    for log, is_taken in ((ZSTD_WINDOW_LOG_MAX, True), (ZSTD_WINDOW_LOG_MAX + 1, False)):
        options = {
            zstd.CompressionParameter.window_log: log,
            zstd.CompressionParameter.compression_level: 1,
            zstd.CompressionParameter.content_size_flag: 0,
        }
        packer = zstd.ZstdCompressor(options=options)
        body = packer.compress(whole) + packer.flush()
        if is_taken:
            assert unpacked(body, "zstd", bytes_max=BODY_BYTES_MAX) == whole
        else:
            assert refusal(body, "zstd")[0] == 400


@pytest.mark.parametrize("encoding", PACK)
def test_the_limit_is_that_of_the_unpacked_body_to_the_byte(encoding: str) -> None:
    pack = PACK[encoding]
    for size in (1, 1_000, 70_000):
        body = pack(b"x" * size)
        assert len(unpacked(body, encoding, bytes_max=size)) == size
        assert refusal(body, encoding, bytes_max=size - 1)[0] == 413
        halves = pack(b"x" * (size - 1)) + pack(b"x")
        assert refusal(halves, encoding, bytes_max=size - 1)[0] == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_ten_gigabytes_out_of_ten_megabytes_cost_next_to_nothing(encoding: str) -> None:
    member = PACK[encoding](bytes(20 * 1024 * 1024))
    bomb = member * min(BODY_BYTES_MAX // len(member), 512)
    assert 20 * 1024 * 1024 * (len(bomb) // len(member)) >= 10 * 1000**3
    tracemalloc.start()
    try:
        started = time.process_time()
        assert refusal(bomb, encoding)[0] == 413
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * BODY_BYTES_MAX
    assert seconds < 5  # Of ten or more, if it were all unpacked.


async def test_a_packed_batch_is_taken_like_any_other(
    client: httpx2.AsyncClient, market: Market
) -> None:
    for encoding, pack in PACK.items():
        body = json.dumps([market.event(f"packed-{encoding}")]).encode()
        headers = {**ARRAY, "Content-Encoding": encoding}
        taken = await client.post("/v1/events", content=pack(body), headers=headers)
        assert (taken.status_code, taken.json()["accepted"]) == (202, 1), encoding


@pytest.mark.parametrize(
    "encoding", ["br", "deflate", "gzip, gzip", "gzip, identity", "gzip;q=1", "compress", "*"]
)
async def test_another_encoding_is_a_415_that_names_what_is_taken(
    client: httpx2.AsyncClient, encoding: str
) -> None:
    headers = {**ARRAY, "Content-Encoding": encoding}
    refused = await client.post("/v1/events", content=b"[]", headers=headers)
    assert refused.status_code == 415
    assert refused.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert refused.headers["accept-encoding"] == "gzip, zstd"


async def test_encodings_on_two_lines_are_several_too(client: httpx2.AsyncClient) -> None:
    headers = [("Content-Type", "application/json"), *[("Content-Encoding", "gzip")] * 2]
    packed = gzip.compress(gzip.compress(b"[]"))
    refused = await client.post("/v1/events", content=packed, headers=headers)
    assert (refused.status_code, "several" in refused.text) == (415, True)


async def test_what_cannot_be_unpacked_writes_nothing(
    client: httpx2.AsyncClient, market: Market
) -> None:
    body = gzip.compress(json.dumps([market.event("never")]).encode())
    bomb = gzip.compress(bytes(BODY_BYTES_MAX + 1))
    headers = {**ARRAY, "Content-Encoding": "gzip"}
    for content, status, code in (
        (body[:-1], 400, "BAD_REQUEST"),
        (b"", 400, "BAD_REQUEST"),
        (bomb, 413, "TOO_LARGE"),
    ):
        refused = await client.post("/v1/events", content=content, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert [await market.rows(table) for table in KEPT] == [[]] * len(KEPT)
