"""Ten thousand payloads of bad faith: each is refused in words or taken whole."""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import httpx2
import pytest

from tests.api.ingest.forms import (
    ARRAY,
    CLOUD_BATCH,
    CLOUD_EVENT,
    LINES,
    Sent,
    binary,
    cloud_event,
    plain,
)
from tests.api.ingest.test_encodings import zstd
from tests.metering.market import Market

pytestmark = pytest.mark.anyio

COUNTS = ("accepted", "duplicates", "conflicts", "rejected", "quarantined")
REQUESTS = 200
LINES_EACH = 46

# Each stands in place of some value.
VALUES: Sequence[bytes] = [
    rb'"\u0000"',
    b'"\0"',
    rb'"\ud800"',
    rb'"\udfff\ud800"',
    rb'"\uD83D\uDE00"',
    rb'"\u12"',
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xe2\x80\xa8"',
    b"NaN",
    b"-Infinity",
    b"Infinity",
    b"nan",
    b'"NaN"',
    b'"Infinity"',
    b"1e400",
    b"-1e400",
    b"1e-400",
    b"1E+1000000",
    b"1e99999999999999999999",
    b"1_000",
    b'"1_000"',
    b"0x10",
    b"+1",
    b"01",
    b".5",
    b"5.",
    b"-",
    b"1e",
    "\u0661".encode(),
    '"\u0661\u0662"'.encode(),
    b"-0",
    b"0e0",
    b"9" * 4_301,
    b"-" + b"9" * 50_000,
    b"0." + b"3" * 9_000,
    b"1" * 101,
    b'"' + b"1" * 101 + b'"',
    b"true",
    b"null",
    b"",
    b"[]",
    b"{}",
    b'""',
    b'"',
    b"'x'",
    b'"\\',
    b'"\t"',
    b"undefined",
    b"//",
    b"[" * 9 + b"]" * 9,
    b"[" * 1_200,
    b'{"a":' * 400 + b"1" + b"}" * 400,
    b"[" * 90 + b"]" * 90,
    b'{"a":1,"a":2}',
    b'{"\\u0000":1}',
    b'{"":1}',
    b'{"__proto__":{}}',
    b"{1:2}",
    b'{"a"}',
    b"[1,]",
    b'"' + b"x" * 9_000 + b'"',
    b'"' + b"\\u0041" * 300 + b'"',
    b'"2026-13-45T99:99:99Z"',
    b'"2026-11-20T10:00:00"',
    b'"0000-00-00T00:00:00Z"',
    b'"9999-12-31T23:59:59-23:59"',
    b'"\xe2\x80\xae\xf0\x9f\x92\xa9"',
    b"\xef\xbb\xbf1",
    b"1 2",
    b'"a""b"',
    b"1;DROP",
    b"*",
    b"\0",
]
HUGE: Sequence[bytes] = [
    b"{" + b",".join(b'"k%d":%d' % (number, number) for number in range(100_000)) + b"}",
    b"[" + b"0," * 500_000 + b"0]",
    b'"' + b"\xf0\x9f\x92\xa9" * 500_000 + b'"',
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"9" * 1_000_000,
]


def hostile(event: object, rng: random.Random, values: Sequence[bytes] = VALUES) -> bytes:
    """An event in which one or two values are something else, and at times a byte as well."""
    text = json.dumps(event).encode()
    members = list(re.finditer(rb'"[^"]*"|\d+', text))
    for member in sorted(rng.sample(members, rng.choice((1, 1, 2))), key=re.Match.start)[::-1]:
        text = text[: member.start()] + rng.choice(values) + text[member.end() :]
    if rng.random() < 0.1:
        place = rng.randrange(len(text))
        text = text[:place] + rng.randbytes(1) + text[place + 1 :]
    return text


def numbered(rng: random.Random) -> dict[str, object]:
    return cloud_event(id=str(rng.randrange(500)), apikey=rng.choice([*[None] * 9, "sk_live_1"]))


def array(rng: random.Random, values: Sequence[bytes]) -> Sent:
    good = json.dumps(plain(numbered(rng))).encode()
    return b"[" + good + b"," + hostile(plain(numbered(rng)), rng, values) + b"]", ARRAY


def lines(rng: random.Random, values: Sequence[bytes]) -> Sent:
    each = [hostile(plain(numbered(rng)), rng, values) for _ in range(LINES_EACH)]
    return b"\n".join(each)[: 9 * 1024 * 1024], LINES


def batched(rng: random.Random, values: Sequence[bytes]) -> Sent:
    good = json.dumps(numbered(rng)).encode()
    return b"[" + good + b"," + hostile(numbered(rng), rng, values) + b"]", CLOUD_BATCH


def structured(rng: random.Random, values: Sequence[bytes]) -> Sent:
    return hostile(numbered(rng), rng, values), CLOUD_EVENT


def in_headers(rng: random.Random, values: Sequence[bytes]) -> Sent:
    """A hostile body, or a hostile header that HTTP itself still lets through."""
    [(body, headers)] = binary([numbered(rng)])
    if rng.random() < 0.5:
        return hostile({"tokens": 1, "model": "m"}, rng, values), headers
    value = rng.choice(values).translate(None, b"\r\n\0")[:2_000].decode("latin-1")
    name = rng.choice([*headers, "ce-apikey", "ce-data", "ce-x"])
    return body, headers if name == "Content-Type" else {**headers, name: value}


WRITERS: dict[str, Callable[[random.Random, Sequence[bytes]], Sent]] = {
    "array": array,
    "lines": lines,
    "batched": batched,
    "structured": structured,
    "binary": in_headers,
}


def packed(sent: Sent, rng: random.Random) -> Sent:
    """As it is, or packed, and at times broken afterwards."""
    body, headers = sent
    encoding = rng.choice(["identity", "gzip", "zstd"])
    if encoding == "identity":
        return sent
    body = gzip.compress(body, 1) if encoding == "gzip" else zstd.compress(body, 1)
    if rng.random() < 0.2:
        place = rng.randrange(len(body))
        body = body[:place] + rng.choice([b"", rng.randbytes(3), body[place:] * 2])
    return body, {**headers, "Content-Encoding": encoding}


async def posted(client: httpx2.AsyncClient, sent: Sent, told: Counter[str]) -> None:
    body, headers = sent
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = await client.post("/v1/events", content=body, headers=raw)
    assert response.status_code in {202, 400, 413, 415}, (response.text, body[:200], headers)
    told[str(response.status_code)] += 1
    answer = response.json()
    if response.status_code != 202:
        assert set(answer["error"]) >= {"code", "message"}
        return
    told.update({name: answer[name] for name in COUNTS})
    told["received"] += sum(answer[name] for name in COUNTS)
    refused = sum(answer[name] for name in COUNTS[1:])
    assert len(answer["verdicts"]) == refused


async def nothing_is_half_written(market: Market, told: Counter[str]) -> None:
    kept = await market.rows("ingest_batch")
    for name in ("received", *COUNTS):
        assert sum(row[name] for row in kept) == told[name], name
    keys = await market.rows("event_key")
    assert len(await market.waiting()) == told["accepted"]
    assert len(await market.rows("quarantined_event")) == told["quarantined"]
    assert len(keys) == told["accepted"] + told["quarantined"]
    assert len(await market.rows("event_conflict")) == told["conflicts"]


@pytest.mark.parametrize("form", WRITERS)
async def test_whatever_is_sent_is_refused_in_words_or_taken_whole(
    client: httpx2.AsyncClient, market: Market, form: str
) -> None:
    rng, told = random.Random(form), Counter[str]()
    for _ in range(REQUESTS):
        await posted(client, packed(WRITERS[form](rng, VALUES), rng), told)
    assert told["202"] > 20
    assert told["400"] > 20
    assert told["accepted"] > 5
    assert told["rejected"] > 20
    await nothing_is_half_written(market, told)
    await market.seal()
    assert await market.used("calls") == told["accepted"]


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("value", range(len(HUGE)))
async def test_what_is_huge_is_refused_too(
    client: httpx2.AsyncClient, market: Market, form: str, value: int
) -> None:
    rng, told = random.Random(form), Counter[str]()
    for _ in range(2 if form == "lines" else 3):
        await posted(client, packed(WRITERS[form](rng, HUGE[value : value + 1]), rng), told)
    await nothing_is_half_written(market, told)
