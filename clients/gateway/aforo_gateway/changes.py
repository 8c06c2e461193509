"""Follows the stream of changes, so that no decision is used after somebody has changed it."""

import asyncio
import json
import logging
import random

import httpx2

from aforo_gateway.decisions import Decisions

logger = logging.getLogger("aforo_gateway")

PATH = "/v1/entitlements/changes"
QUIET_SECONDS = 30.0
"""Without a line for so long, the connection is taken for dead: signs of life come oftener."""
PAUSE_SECONDS = 1.0


async def follow(client: httpx2.AsyncClient, decisions: Decisions) -> None:
    """Follow until cancelled. While it is not followed, decisions count for a second at most."""
    while True:
        try:
            await _follow_once(client, decisions)
            logger.info("the stream of changes ended")
        except (httpx2.HTTPError, ValueError) as error:
            logger.warning("changes are not told: %s: %s", type(error).__name__, error)
        finally:
            decisions.is_followed = False
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311


async def _follow_once(client: httpx2.AsyncClient, decisions: Decisions) -> None:
    timeout = httpx2.Timeout(10, read=QUIET_SECONDS)
    headers = {"Accept": "text/event-stream"}
    async with client.stream("GET", PATH, headers=headers, timeout=timeout) as response:
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"{PATH} has the status {response.status_code}")
        decisions.change(None)  # What changed before is not told again.
        decisions.is_followed = True
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                decisions.change(_customer(line.removeprefix("data:")))


def _customer(data: str) -> str | None:
    """Whom a change is about; None, which is everybody, where it does not say so plainly."""
    try:
        change = json.loads(data)
    except ValueError:
        return None
    if not isinstance(change, dict) or change.get("missed") is not None:
        return None
    customer = change.get("customer")
    return customer if isinstance(customer, str) else None
