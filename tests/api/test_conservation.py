"""What was received and what became of it, through the API."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.api.forms import GraphQL
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

BALANCE = """
query($period: PeriodInput) {
  ingestionBalance(period: $period) {
    total { ...Numbers }
    hours { start ...Numbers }
  }
}
fragment Numbers on IngestionBalance {
  received accepted duplicates conflicts rejected quarantined discarded released
  inLog inInbox unaccounted missing balanced
}
"""


async def test_every_event_is_one_of_six_things(
    graphql: GraphQL,
    shop: Shop,
    send: Callable[..., Awaitable[dict[str, Any]]],
    run_jobs: Callable[[], Awaitable[None]],
) -> None:
    await send(
        call(1, 1),
        call(1, 1),
        call(1, 2),
        call(2, "x"),
        {**call(3, 1), "customer": "nobody"},
        {**call(4, 1), "type": "unheard.of"},
        {**call(5, 1), "customer": "nobody"},
    )
    await run_jobs()
    await graphql(
        'mutation { discardQuarantinedEvents(input: {code: "UNKNOWN_METER"}) { __typename } }'
    )
    [waiting, _] = (await graphql("{ quarantinedEvents { edges { node { id } } } }"))[
        "quarantinedEvents"
    ]["edges"]
    await graphql(
        "mutation($id: ID!) { correctQuarantinedEvent(input: {quarantinedEventId: $id, "
        'customer: "acme"}) { __typename } '
        "releaseQuarantinedEvents(input: {quarantinedEventIds: [$id]}) { __typename } }",
        id=waiting["node"]["id"],
    )
    numbers = {
        "received": 7,
        "accepted": 2,
        "duplicates": 1,
        "conflicts": 1,
        "rejected": 1,
        "quarantined": 1,
        "discarded": 1,
        "released": 1,
        "inLog": 1,
        "inInbox": 1,
        "unaccounted": 0,
        "missing": 0,
        "balanced": True,
    }
    found = (await graphql(BALANCE))["ingestionBalance"]
    assert found == {"total": numbers, "hours": [{"start": "2026-11-20T12:00:00Z", **numbers}]}


async def test_no_more_than_31_days_are_looked_at(client: httpx2.AsyncClient) -> None:
    period = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:01Z"}
    asked = {"query": BALANCE, "variables": {"period": period}}
    [error] = (await client.post("/graphql", json=asked)).json()["errors"]
    assert error["extensions"]["code"] == "INVALID"
    asked["variables"] = {"period": {**period, "end": "2026-11-01T00:00:00Z"}}
    answer = (await client.post("/graphql", json=asked)).json()
    assert answer["data"]["ingestionBalance"]["hours"] == []
