"""Requests that come at the same time, with the same events."""

import asyncio

import httpx2
import pytest

from tests.metering.market import Market

pytestmark = pytest.mark.anyio

KEYS = 100


async def test_senders_over_http_get_the_same_answers_as_one_after_the_other(
    market: Market, client: httpx2.AsyncClient
) -> None:
    batch = [market.event(f"k{number}") for number in range(KEYS)]
    responses = await asyncio.gather(*(client.post("/v1/events", json=batch) for _ in range(20)))
    assert {response.status_code for response in responses} == {202}
    accepted = [response.json()["accepted"] for response in responses]
    assert sum(accepted) == KEYS
    assert [response.json()["duplicates"] for response in responses] == [
        KEYS - each for each in accepted
    ]
