"""Usage, the event log and the quarantine through the API."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from tests.api.forms import GraphQL
from tests.api.shop import OCTOBER, Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]

USAGE = """
query($meterId: ID, $meterCode: String, $customerId: ID, $period: PeriodInput,
      $bucket: Bucket! = DAY, $zone: String! = "UTC") {
  usage(meterId: $meterId, meterCode: $meterCode, customerId: $customerId, period: $period,
        bucket: $bucket, timeZone: $zone) { start quantity events }
}
"""


async def test_usage_over_time_adds_up_to_what_is_billed(graphql: GraphQL, billed: Shop) -> None:
    for bucket, steps in (("HOUR", 5), ("DAY", 5), ("MONTH", 1)):
        points = (await graphql(USAGE, meterId=billed.meter_id, period=OCTOBER, bucket=bucket))[
            "usage"
        ]
        assert len(points) == steps
        assert sum(Decimal(point["quantity"]) for point in points) == Decimal("100.5")
        assert sum(point["events"] for point in points) == 5
    in_tokyo = await graphql(USAGE, meterCode="tokens", period=OCTOBER, zone="Asia/Tokyo")
    assert in_tokyo["usage"][0]["start"] == "2026-10-09T15:00:00Z"
    of_customer = await graphql(
        USAGE, meterCode="tokens", period=OCTOBER, customerId=billed.customer_id
    )
    assert len(of_customer["usage"]) == 5
    assert (await graphql(USAGE, meterCode="nothing"))["usage"] is None
    assert (await graphql(USAGE, meterCode="tokens"))["usage"] == []  # The last 30 days.


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "BAD_ARGUMENTS"),
        ({"meterCode": "tokens", "zone": "Mars/Olympus"}, None),
        (
            {"meterCode": "tokens", "period": {"start": OCTOBER["end"], "end": OCTOBER["start"]}},
            None,
        ),
        (
            {
                "meterCode": "tokens",
                "bucket": "HOUR",
                "period": {"start": "2020-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
            },
            "INVALID",
        ),
    ],
)
async def test_a_usage_that_makes_no_sense_is_refused(
    client: httpx2.AsyncClient, given: dict[str, Any], code: str | None
) -> None:
    answer = (await client.post("/graphql", json={"query": USAGE, "variables": given})).json()
    [error] = answer["errors"]
    assert error["extensions"]["code"] != "INTERNAL"
    assert code is None or error["extensions"]["code"] == code


EVENTS = """
query($customerId: ID, $type: String, $first: Int, $after: String) {
  events(customerId: $customerId, type: $type, first: $first, after: $after) {
    edges { node { eventId idempotencyKey properties } }
    pageInfo { hasNextPage endCursor }
  }
}
"""


async def test_the_latest_events_come_first_with_exact_properties(
    graphql: GraphQL, billed: Shop, client: httpx2.AsyncClient
) -> None:
    seen, after, more = [], None, True
    while more:
        page = (await graphql(EVENTS, first=2, after=after))["events"]
        seen += [edge["node"]["idempotencyKey"] for edge in page["edges"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert seen == [f"2026-10-{n}" for n in (4, 3, 2, 1, 0)]
    for wanted, count in (
        ({"customerId": billed.customer_id}, 5),
        ({"type": "llm.request"}, 5),
        ({"type": "nothing"}, 0),
    ):
        assert len((await graphql(EVENTS, **wanted))["events"]["edges"]) == count
    text = (await client.post("/graphql", json={"query": EVENTS})).text
    assert '"properties":{"model":"small","tokens":0.4}' in text
    assert '"properties":{"model":"small","tokens":"0.1"}' in text


@pytest.mark.parametrize(
    "name", ["'", '"', "\\", "\\'", "\n\t", "{customer:UUID}", "%s", "\\N", "é漢🙂", "x" * 100_000]
)
async def test_a_name_from_outside_is_only_ever_a_value(
    graphql: GraphQL, billed: Shop, name: str
) -> None:
    assert (await graphql(EVENTS, type=name))["events"]["edges"] == []
    assert (await graphql(USAGE, meterCode=name))["usage"] is None
    assert len((await graphql(EVENTS))["events"]["edges"]) == 5


@pytest.mark.parametrize(
    "cursor",
    ["x", "MQ", "MSAy!", "MSBh", "LTEgMg", "MSAtMg", "MSAyIDM", "OTk5OTk5OTk5OTk5OTk5OTk5OTkgMQ"],
)
async def test_a_forged_place_in_the_log_is_refused(
    client: httpx2.AsyncClient, cursor: str
) -> None:
    asked = {"query": EVENTS, "variables": {"after": cursor}}
    [error] = (await client.post("/graphql", json=asked)).json()["errors"]
    assert error["extensions"]["code"] == "BAD_CURSOR"


async def test_what_cannot_be_placed_is_shown_in_quarantine(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    answer = await send({**call(1, 5), "customer": "nobody"})
    assert answer["quarantined"] == 1
    query = """
    query($code: String) { quarantinedEvents(code: $code) {
      edges { node { id code message event receivedAt } }
    } }
    """
    [edge] = (await graphql(query))["quarantinedEvents"]["edges"]
    assert edge["node"]["code"] == "UNKNOWN_CUSTOMER"
    assert edge["node"]["event"]["customer"] == "nobody"
    assert (await graphql(query, code="UNKNOWN_METER"))["quarantinedEvents"]["edges"] == []
    assert len((await graphql(query, code="UNKNOWN_CUSTOMER"))["quarantinedEvents"]["edges"]) == 1
    again = await graphql("query($id: ID!) { node(id: $id) { id } }", id=edge["node"]["id"])
    assert again["node"]["id"] == edge["node"]["id"]
