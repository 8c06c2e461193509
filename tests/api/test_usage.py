"""Usage through the API."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from aforo.metering import rollups
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from tests.api.forms import GraphQL, made, meter
from tests.api.shop import OCTOBER, Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

SERIES = """
query($meterId: ID, $meterCode: String, $where: UsageFilterInput, $period: PeriodInput,
      $bucket: Bucket! = DAY, $zone: String, $asOf: BigInt) {
  usage(meterId: $meterId, meterCode: $meterCode, where: $where, period: $period,
        timeZone: $zone, asOf: $asOf) {
    asOf start end timeZone meter { code } total { quantity events }
    points(bucket: $bucket) { start quantity events }
  }
}
"""
GROUPS = """
query($code: String!, $by: [UsageGroupingInput!]!, $where: UsageFilterInput, $bucket: Bucket,
      $first: Int! = 100, $period: PeriodInput!) {
  usage(meterCode: $code, where: $where, period: $period) {
    groups(by: $by, bucket: $bucket, first: $first) {
      count
      groups { keys { by property id value } quantity events points { start quantity } }
    }
  }
}
"""


async def test_a_series_adds_up_to_what_is_billed(graphql: GraphQL, billed: Shop) -> None:
    for bucket, steps in (("QUARTER_HOUR", 5), ("HOUR", 5), ("DAY", 5), ("WEEK", 2), ("MONTH", 1)):
        asked = {"meterId": billed.meter_id, "period": OCTOBER, "bucket": bucket}
        usage = (await graphql(SERIES, **asked))["usage"]
        points = usage["points"]
        assert len(points) == steps
        assert sum(Decimal(point["quantity"]) for point in points) == Decimal("100.5")
        assert sum(point["events"] for point in points) == 5
        assert usage["total"] == {"quantity": "100.5", "events": 5}
        assert (usage["meter"], usage["timeZone"]) == ({"code": "tokens"}, "UTC")
    in_tokyo = await graphql(SERIES, meterCode="tokens", period=OCTOBER, zone="Asia/Tokyo")
    assert in_tokyo["usage"]["points"][0]["start"] == "2026-10-09T15:00:00Z"
    assert (await graphql(SERIES, meterCode="nothing"))["usage"] is None


async def test_without_a_period_it_is_the_last_30_days(graphql: GraphQL, billed: Shop) -> None:
    usage = (await graphql(SERIES, meterCode="tokens"))["usage"]
    assert (usage["start"], usage["end"]) == ("2026-10-21T12:00:00Z", "2026-11-20T12:00:00Z")
    assert (usage["points"], usage["total"]) == ([], {"quantity": "0", "events": 0})


async def test_days_are_those_of_the_one_customer_that_is_asked_for(
    graphql: GraphQL, billed: Shop
) -> None:
    far = await made(
        graphql,
        "createCustomer",
        externalId="far",
        name="Far",
        currency="USD",
        timeZone="Asia/Kathmandu",
    )
    for ids, zone in (([far], "Asia/Kathmandu"), ([far, billed.customer_id], "UTC")):
        asked = {"meterCode": "tokens", "where": {"customerIds": ids}, "period": OCTOBER}
        assert (await graphql(SERIES, **asked))["usage"]["timeZone"] == zone
        given = await graphql(SERIES, **asked, zone="Europe/Berlin")
        assert given["usage"]["timeZone"] == "Europe/Berlin"


async def test_the_figures_of_an_earlier_answer_come_again(
    graphql: GraphQL, billed: Shop, send: Send, run_jobs: RunJobs
) -> None:
    asked = {"meterCode": "tokens", "period": OCTOBER}
    before = (await graphql(SERIES, **asked))["usage"]
    await send(call(7, 3))
    await run_jobs()
    after = (await graphql(SERIES, **asked))["usage"]
    assert (after["total"], after["asOf"] > before["asOf"]) == (
        {"quantity": "103.5", "events": 6},
        True,
    )
    assert (await graphql(SERIES, **asked, asOf=before["asOf"]))["usage"] == before
    nothing = (await graphql(SERIES, **asked, asOf=0))["usage"]
    assert nothing["total"] == {"quantity": "0", "events": 0}


async def test_groups_have_the_ids_and_values_that_their_events_share(
    graphql: GraphQL,
    billed: Shop,
    send: Send,
    run_jobs: RunJobs,
    runtime: Runtime,
    tenant_id: TenantId,
) -> None:
    await made(graphql, "createMeter", **meter(code="by-model", dimensions=["model", "region"]))
    await send(call(7, 3, region="eu"), call(8, 90, model="large"))
    await run_jobs()
    by = [{"by": "PROPERTY", "property": "model"}, {"by": "PROPERTY", "property": "region"}]
    asked = {"code": "by-model", "by": [{"by": "CUSTOMER"}, *by], "period": OCTOBER}
    for _ in range(2):
        found = (await graphql(GROUPS, **asked, bucket="MONTH"))["usage"]["groups"]
        assert found["count"] == 3
        assert [
            ([key["value"] for key in one["keys"]], one["quantity"]) for one in found["groups"]
        ] == [
            ([None, "small", None], "100.5"),
            ([None, "large", None], "90"),
            ([None, "small", "eu"], "3"),
        ]
        for one in found["groups"]:
            assert one["keys"][0] == {
                "by": "CUSTOMER",
                "property": None,
                "id": billed.customer_id,
                "value": None,
            }
            assert [point["quantity"] for point in one["points"]] == [one["quantity"]]
        first = (await graphql(GROUPS, **asked, first=1))["usage"]["groups"]
        assert (first["count"], len(first["groups"])) == (3, 1)
        where = {"properties": [{"property": "region", "values": [None]}]}
        some = (await graphql(GROUPS, **asked, where=where))["usage"]["groups"]
        assert some["count"] == 2
        async with runtime.scope(tenant_id) as scope:
            await rollups.roll_up(scope, span_events=1)


PROPERTY = {"by": "PROPERTY", "property": "model"}


@pytest.mark.parametrize(
    ("document", "given", "code", "field"),
    [
        (SERIES, {}, "BAD_ARGUMENTS", "meterId"),
        (SERIES, {"zone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE", "timeZone"),
        (SERIES, {"period": dict(zip(("end", "start"), OCTOBER.values(), strict=True))},
         "BAD_PERIOD", "end"),
        (SERIES, {"bucket": "QUARTER_HOUR", "period": {**OCTOBER, "end": "2027-03-01T00:00:00Z"}},
         "INVALID", "bucket"),
        (SERIES, {"asOf": 10**15}, "INVALID", "asOf"),
        (SERIES, {"asOf": -1}, "INVALID", "asOf"),
        (SERIES, {"where": {"properties": [{"property": "model", "values": []}]}},
         "NO_DIMENSION", "property"),
        (SERIES, {"where": {"properties": [{"property": "m", "values": []}] * 5}},
         "INVALID", "where.properties"),
        (SERIES, {"where": {"properties": [{"property": "m", "values": ["x"] * 101}]}},
         "INVALID", "where.properties.0.values"),
        (SERIES, {"where": {"teamIds": ["x"]}}, "BAD_ID", "where.teamIds.0"),
        (GROUPS, {"by": []}, "INVALID", "by"),
        (GROUPS, {"by": [{"by": "TEAM"}] * 4}, "INVALID", "by"),
        (GROUPS, {"by": [{"by": "TEAM"}] * 2}, "INVALID", "by.1"),
        (GROUPS, {"by": [{"by": "PROPERTY"}]}, "INVALID", "by.0.property"),
        (GROUPS, {"by": [{"by": "TEAM", "property": "model"}]}, "INVALID", "by.0.property"),
        (GROUPS, {"by": [PROPERTY]}, "NO_DIMENSION", "property"),
        (GROUPS, {"by": [{"by": "TEAM"}], "first": 0}, "INVALID", "first"),
        (GROUPS, {"by": [{"by": "TEAM"}], "first": 1001}, "INVALID", "first"),
        (GROUPS, {"by": [{"by": "TEAM"}], "first": 101, "bucket": "MONTH"}, "INVALID", "first"),
        (GROUPS, {"by": [{"by": "TEAM"}], "first": 100, "bucket": "HOUR"}, "INVALID", "bucket"),
    ],
)  # fmt: skip
async def test_a_question_that_makes_no_sense_is_refused(
    client: httpx2.AsyncClient,
    shop: Shop,
    document: str,
    given: dict[str, Any],
    code: str,
    field: str,
) -> None:
    meant = {} if code == "BAD_ARGUMENTS" else {"meterCode": "tokens"}
    variables = {"code": "tokens", "period": OCTOBER} if document is GROUPS else meant
    body = {"query": document, "variables": variables | given}
    answer = (await client.post("/graphql", json=body)).json()
    [error] = answer["errors"]
    assert (error["extensions"]["code"], error["extensions"]["field"]) == (code, field)


@pytest.mark.parametrize("name", ["'", '"', "\\", "\\'", "{customer:UUID}", "%s", "\\N", "é漢🙂"])
async def test_a_name_from_outside_is_only_ever_a_value(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs, name: str
) -> None:
    await made(graphql, "createMeter", **meter(code="odd", dimensions=[name]))
    await send(call(1, 5, **{name: name}), call(2, 6))
    await run_jobs()
    by = [{"by": "PROPERTY", "property": name}]
    found = (await graphql(GROUPS, code="odd", by=by, period=OCTOBER, bucket="MONTH"))["usage"]
    assert [
        (one["keys"][0]["value"], one["quantity"], len(one["points"]))
        for one in found["groups"]["groups"]
    ] == [(None, "6", 1), (name, "5", 1)]
    where = {"properties": [{"property": name, "values": [name]}]}
    some = (await graphql(GROUPS, code="odd", by=by, where=where, period=OCTOBER))["usage"]
    assert [one["quantity"] for one in some["groups"]["groups"]] == ["5"]
