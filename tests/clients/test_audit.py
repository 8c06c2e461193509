"""The audit suite of the GraphQL-over-HTTP specification, every MUST and every SHOULD."""

import json

from tests.clients.conftest import Address
from tests.clients.node import Node

ASK_THE_SCHEMA = ["2EA1", "28B9"]
"""Checks that variables are taken, by way of `__type`, which production does not answer."""


async def test_every_must_and_should_is_kept(node: Node, address: Address) -> None:
    assert await warnings(node, address) == []


async def test_production_differs_only_where_a_check_reads_the_schema(
    node: Node, production: Address
) -> None:
    assert await warnings(node, production) == ASK_THE_SCHEMA


async def warnings(node: Node, address: Address) -> list[str]:
    """The ids of the checks, but for what the specification only allows, that did not pass."""
    verdicts = json.loads(await node.passes("node", "audit.mjs", environment=address.environment))
    assert len(verdicts) > 50
    assert {each["name"].split()[0] for each in verdicts} == {"MUST", "SHOULD", "MAY"}
    demanded = [each for each in verdicts if not each["name"].startswith("MAY")]
    return [each["id"] for each in demanded if each["status"] != "ok"]
