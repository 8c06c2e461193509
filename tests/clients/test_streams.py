"""The clients of live streams: graphql-ws on a WebSocket, graphql-sse in distinct connections."""

import pytest

from aforo.api.protocol import websocket
from tests.api.shop import Shop
from tests.clients.conftest import Address
from tests.clients.node import Node


@pytest.mark.parametrize("protocol", ["websocket", "sse"])
async def test_the_client_finds_what_it_needs(
    node: Node, working: Address, shop: Shop, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is a list of tests: of every close code, of pings, of a connection that is lost."""
    monkeypatch.setattr(websocket, "INIT_TIMEOUT_SECONDS", 2)
    words = ("node", "--test-force-exit", f"{protocol}.test.mjs")
    await node.passes(*words, environment=working.environment)
