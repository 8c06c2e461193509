"""Events on lines: each stands for itself."""

import json

import httpx2
import pytest

from tests.api.ingest.forms import LINES
from tests.metering.market import Market

pytestmark = pytest.mark.anyio


async def test_a_line_that_is_no_json_leaves_the_others_alone(
    client: httpx2.AsyncClient, market: Market
) -> None:
    good = [json.dumps(market.event(f"line-{number}")).encode() for number in range(4)]
    body = b"\n".join(
        [
            good[0],
            b"",
            b"{",
            b" \t\r",
            b"\xff\xfe",
            good[1] + b"\r",
            b"\t" + good[2],
            b"NaN",
            b'{"a":' * 5_000,
            good[3] + good[3],
            b"\x0b",
            b"\xef\xbb\xbf" + good[3],
            b"7",
        ]
    )
    response = await client.post("/v1/events", content=body + b"\n\n", headers=LINES)
    answer = response.json()
    assert (response.status_code, answer["accepted"], answer["rejected"]) == (202, 3, 8)
    assert [one["index"] for one in answer["verdicts"]] == [1, 2, 5, 6, 7, 8, 9, 10]
    assert {(one["code"], one["stage"]) for one in answer["verdicts"]} == {
        ("BAD_VALUE", "INGESTION")
    }
    assert "cannot be read as JSON" in answer["verdicts"][0]["message"]
    [kept] = await market.rows("ingest_batch")
    assert (kept["received"], kept["accepted"], kept["rejected"]) == (11, 3, 8)


async def test_a_line_that_is_no_json_fails_an_atomic_batch(
    client: httpx2.AsyncClient, market: Market
) -> None:
    body = json.dumps(market.event("whole")).encode() + b"\n{"
    refused = await client.post(
        "/v1/events", params={"atomic": "true"}, content=body, headers=LINES
    )
    assert (refused.status_code, refused.json()["verdicts"][0]["index"]) == (422, 1)
    assert await market.rows("event_key") == []


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n"])
async def test_no_lines_are_an_empty_batch(client: httpx2.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/events", content=body, headers=LINES)
    assert (response.status_code, response.json()["verdicts"]) == (202, [])


async def test_a_thousand_lines_are_taken_among_any_number_of_blank_ones(
    client: httpx2.AsyncClient,
) -> None:
    thousand = b"{}\n" * 1_000
    for body, status in (
        (thousand + b"\n" * 9_000_000, 202),
        (b"\n" * 9_000_000 + thousand, 202),
        (thousand + b"\n{}", 413),
    ):
        response = await client.post("/v1/events", content=body, headers=LINES)
        assert response.status_code == status
