"""Requests that are made to cost more than they say."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx2
import pytest

from aforo.api.auth import requests
from aforo.api.parts.answers import decode_json, encode_json

pytestmark = pytest.mark.anyio


async def test_an_error_repeats_a_bad_value_in_short(client: httpx2.AsyncClient) -> None:
    wrong = " ".join(f'a{number}: "{"b" * 2_000}"' for number in range(100))
    document = f"mutation {{ createCustomer(input: {{ {wrong} }}) {{ __typename }} }}"
    response = await client.post("/graphql", json={"query": document})
    assert response.json()["errors"]
    assert len(response.content) < len(document)


async def test_a_body_that_is_packed_is_refused(client: httpx2.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await client.post("/graphql", content=b"[]", headers=headers)
    assert response.status_code == 415
    assert "UNSUPPORTED_MEDIA_TYPE" in response.text


async def test_a_body_that_never_ends_is_given_up(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BODY_TIMEOUT_SECONDS", 0.1)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    for path in ("/graphql", "/v1/events"):
        headers = {"Content-Type": "application/json"}
        response = await client.post(path, content=dripping(), headers=headers)
        assert response.status_code == 408
        assert response.headers["connection"] == "close"


def test_numbers_stay_numbers_beside_one_that_is_too_long_for_64_bits() -> None:
    written = encode_json({"long": 10**90, "exact": Decimal("1.50")})
    assert json.loads(written, parse_float=Decimal) == {"long": 10**90, "exact": Decimal("1.50")}
    deep = b"[" * 400 + b"]" * 400
    assert encode_json(decode_json(deep)) == deep
