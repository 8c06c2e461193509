"""What the tests of the Python client share: a client of a tenant that sells something."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aforo_client import Client, Options
from aforo_client.spool import SUFFIX
from tests.api.forms import GraphQL
from tests.api.shop import Shop
from tests.clients.conftest import Address
from tests.clients.python.between import Between, standing_between
from tests.conftest import NOW

PACKAGE = Path(__file__).parents[3] / "clients/python"
"""Where the client is, for programs that may import it."""

EVENTS = """
query($after: String) {
  events(first: 100, after: $after) {
    pageInfo { hasNextPage endCursor }
    edges { node { idempotencyKey } }
  }
}
"""

OF_TOKENS = {"customer": "acme", "occurred_at": NOW}

QUICK = {"backoff_seconds": 0.01, "backoff_max_seconds": 0.05, "linger_seconds": 0.0}
"""Options of a client that does not make a test wait."""


@pytest.fixture
async def between(address: Address, shop: Shop) -> AsyncIterator[Between]:
    """What stands between the client and Aforo, where Acme buys."""
    async with standing_between(address.url) as opened:
        yield opened


@pytest.fixture
def opened(between: Between, address: Address, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Opens clients with one spool; those that are still open are closed at the end."""
    clients = []

    def open_(*, on_verdict: Any = None, **options: Any) -> Client:
        chosen = Options(**{**QUICK, **options})
        clients.append(
            Client(
                between.url,
                address.key,
                tmp_path / "spool",
                on_verdict=on_verdict,
                options=chosen,
            )
        )
        return clients[-1]

    yield open_
    for client in clients:
        client.close(0)


@pytest.fixture
def counted(
    graphql: GraphQL, run_jobs: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[list[str]]]:
    """The keys of the events that count, in order, each as often as it counts."""

    async def read() -> list[str]:
        await run_jobs()
        keys: list[str] = []
        after = None
        while True:
            page = (await graphql(EVENTS, after=after))["events"]
            keys += [edge["node"]["idempotencyKey"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return sorted(keys)
            after = page["pageInfo"]["endCursor"]

    return read


async def sent(client: Client, seconds: float = 10) -> bool:
    """Flush without holding up the server, which is in this process; whether all was sent."""
    return await asyncio.to_thread(client.flush, seconds)


def track(client: Client, *keys: str, **more: Any) -> None:
    """Track an event under each key."""
    for key in keys:
        client.track(
            "llm.request",
            idempotency_key=key,
            **{**OF_TOKENS, "properties": {"tokens": Decimal("1.5")}, **more},
        )


def is_empty(folder: Path) -> bool:
    """Whether nothing is left in the spool of `opened`."""
    return not list((folder / "spool").glob(f"*{SUFFIX}"))
