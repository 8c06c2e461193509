"""Traces through the API: which stages an event passed, what each decided and why."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.sdk.ids import TenantId
from aforo.stages.registry import StageName
from aforo.storage.scope import Runtime
from tests.api.forms import GraphQL, change, made, meter
from tests.api.shop import Shop, call
from tests.api.test_stages import changed, obeyed

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]
Steps = list[dict[str, Any]]

EVENT = """
query($eventId: ID, $key: String) {
  event(eventId: $eventId, idempotencyKey: $key) {
    __typename eventId idempotencyKey type
    trace { stage passed decision reason settingsVersion at meter quantity invoiceLineId }
  }
}
"""


async def event(graphql: GraphQL, key: str) -> dict[str, Any]:
    found = (await graphql(EVENT, key=key))["event"]
    assert found is not None
    assert found["idempotencyKey"] == key
    by_id = (await graphql(EVENT, eventId=found["eventId"]))["event"]
    assert by_id == found
    return dict(found)


async def trace(graphql: GraphQL, key: str) -> Steps:
    steps: Steps = (await event(graphql, key))["trace"]
    return steps


def short(steps: Steps) -> list[tuple[str, bool | None, str]]:
    return [(each["stage"], each["passed"], each["decision"]) for each in steps]


async def test_a_billed_event_names_the_lines_that_stand_on_it(
    graphql: GraphQL, billed: Shop
) -> None:
    steps = await trace(graphql, "2026-10-1")
    assert short(steps) == [
        ("INGESTION", True, "WELL_FORMED"),
        ("VALIDATION", True, "VALID"),
        ("DEDUPLICATION", True, "FIRST"),
        ("ENRICHMENT", True, "BY_CUSTOMER"),
        ("QUOTA_CHECK", True, "NO_QUOTA"),
        ("AGGREGATION", True, "COUNTED"),
        ("RATING", True, "RATED"),
        ("DISCOUNTING", True, "DISCOUNTED"),
        ("TAXATION", True, "TAXED"),
        ("SETTLEMENT", True, "SETTLED"),
    ]
    assert {each["settingsVersion"] for each in steps} == {0}
    assert {each["at"] for each in steps} == {"2026-11-20T12:00:00Z"}
    counted, rated = steps[5], steps[6]
    assert (counted["meter"], counted["quantity"]) == ("tokens", "0.4")
    assert "rate plan pro version 1" in rated["reason"]
    assert "invoice INV-000001" in rated["reason"]
    line = await graphql(
        "query($id: ID!) { node(id: $id) { ... on InvoiceLine { code sourceEvents(first: 9) "
        "{ edges { node { idempotencyKey trace { decision } } } } } } }",
        id=rated["invoiceLineId"],
    )
    assert line["node"]["code"] == "tokens"
    behind = [edge["node"] for edge in line["node"]["sourceEvents"]["edges"]]
    assert "2026-10-1" in {each["idempotencyKey"] for each in behind}
    assert all(each["trace"][6]["decision"] == "RATED" for each in behind)


async def test_an_event_keeps_the_versions_that_it_was_taken_under(
    runtime: Runtime,
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    run_jobs: RunJobs,
    tenant_id: TenantId,
) -> None:
    await send(call(1, 1))
    await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=1)
    await changed(graphql, StageName.VALIDATION, 1, futureSecondsMax=2)
    await obeyed(runtime, tenant_id, StageName.VALIDATION, 2)
    await send({**call(2, 1), "occurredAt": None})
    await changed(graphql, StageName.VALIDATION, 2, futureSecondsMax=3)
    await run_jobs()
    before, after = await trace(graphql, "2026-10-1"), await trace(graphql, "2026-10-2")
    assert [each["settingsVersion"] for each in before[:4]] == [0, 0, 0, 0]
    assert [each["settingsVersion"] for each in after[:4]] == [0, 2, 0, 0]
    assert (before[0]["decision"], after[0]["decision"]) == ("WELL_FORMED", "TIME_OF_RECEIPT")


async def test_what_no_meter_counts_says_why(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    filters = [{"property": "model", "values": ["large"]}]
    await made(graphql, "createMeter", **meter(code="large", filters=filters))
    missing = call(1, 1)
    missing["properties"] = {"model": "large"}
    await send(missing, call(2, 7))
    await run_jobs()
    steps = await trace(graphql, "2026-10-1")
    counts = [each for each in steps if each["stage"] == "AGGREGATION"]
    assert [(each["meter"], each["passed"], each["decision"]) for each in counts] == [
        ("tokens", False, "MISSING_PROPERTY"),
        ("large", False, "MISSING_PROPERTY"),
    ]
    assert "properties.tokens is missing" in counts[0]["reason"]
    assert short(steps)[-4:] == [
        (name, None, "NOT_REACHED") for name in ("RATING", "DISCOUNTING", "TAXATION", "SETTLEMENT")
    ]
    assert "no meter counts it" in steps[-1]["reason"]
    steps = await trace(graphql, "2026-10-2")
    counts = [each for each in steps if each["stage"] == "AGGREGATION"]
    assert [(each["meter"], each["decision"], each["quantity"]) for each in counts] == [
        ("tokens", "COUNTED", "7"),
        ("large", "FILTERED", None),
    ]
    assert "not been billed yet" in steps[-1]["reason"]


async def test_an_event_after_the_final_invoice_of_its_period_says_so(
    graphql: GraphQL, billed: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send(call(9, 1))
    await run_jobs()
    steps = await trace(graphql, "2026-10-9")
    assert steps[-1]["passed"] is None
    assert "after invoice INV-000001 of its period was final" in steps[-1]["reason"]


async def test_a_quota_that_is_used_up_is_named(
    graphql: GraphQL, send: Send, run_jobs: RunJobs, shop: Shop
) -> None:
    quota_id = await made(
        graphql,
        "createEntitlement",
        code="cap",
        name="Cap",
        kind="QUOTA",
        meterId=shop.meter_id,
        quota="10",
    )
    plan = await graphql(
        "{ ratePlans { edges { node { id } } } products { edges { node { id } } } }"
    )
    offering_id = await made(
        graphql,
        "createOffering",
        code="capped",
        name="Capped",
        productId=plan["products"]["edges"][0]["node"]["id"],
        ratePlanId=plan["ratePlans"]["edges"][0]["node"]["id"],
        entitlementIds=[quota_id],
    )
    customer_id = await made(
        graphql, "createCustomer", externalId="capped", name="Capped", currency="USD"
    )
    await made(
        graphql,
        "createSubscription",
        customerId=customer_id,
        offeringId=offering_id,
        startsAt="2026-10-01T00:00:00Z",
    )
    await send({**call(1, 4), "customer": "capped"})
    await run_jobs()
    [quota] = [each for each in await trace(graphql, "2026-10-1") if each["stage"] == "QUOTA_CHECK"]
    assert (quota["decision"], quota["meter"]) == ("QUOTA_USED", "tokens")
    assert "the quota cap of 10 tokens" in quota["reason"]


async def test_a_quarantined_event_has_a_trace_and_its_release_is_a_step(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send({**call(1, 3), "customer": "later"})
    found = await event(graphql, "2026-10-1")
    assert found["__typename"] == "QuarantinedEvent"
    assert short(found["trace"])[:3] == [
        ("INGESTION", True, "WELL_FORMED"),
        ("VALIDATION", False, "UNKNOWN_CUSTOMER"),
        ("DEDUPLICATION", True, "FIRST"),
    ]
    assert {each["decision"] for each in found["trace"][3:]} == {"NOT_REACHED"}
    assert "no customer has the id later" in found["trace"][1]["reason"]
    await change(
        graphql,
        "registerCustomerAlias",
        customerId=shop.customer_id,
        externalId="later",
        validFrom="2026-10-01T00:00:00Z",
    )
    await graphql(
        'mutation { releaseQuarantinedEvents(input: {code: "UNKNOWN_CUSTOMER"}) { __typename } }'
    )
    found = await event(graphql, "2026-10-1")
    assert found["__typename"] == "QuarantinedEvent"
    assert "on its way into the log" in found["trace"][-1]["reason"]
    await run_jobs()
    found = await event(graphql, "2026-10-1")
    assert found["__typename"] == "Event"
    assert short(found["trace"])[:8] == [
        ("INGESTION", True, "WELL_FORMED"),
        ("VALIDATION", False, "UNKNOWN_CUSTOMER"),
        ("DEDUPLICATION", True, "FIRST"),
        ("VALIDATION", True, "RELEASED"),
        ("INGESTION", True, "WELL_FORMED"),
        ("VALIDATION", True, "VALID"),
        ("DEDUPLICATION", True, "FIRST"),
        ("ENRICHMENT", True, "BY_ALIAS"),
    ]
    listed = await graphql(
        "{ quarantinedEvents(state: RELEASED) { edges { node { trace { decision } } } } }"
    )
    [node] = [edge["node"] for edge in listed["quarantinedEvents"]["edges"]]
    assert [each["decision"] for each in node["trace"]] == [
        each["decision"] for each in found["trace"]
    ]


async def test_a_discarded_event_never_goes_on(graphql: GraphQL, shop: Shop, send: Send) -> None:
    await send({**call(1, 3), "type": "unheard.of"})
    event_id = (await event(graphql, "2026-10-1"))["eventId"]
    await graphql(
        'mutation { discardQuarantinedEvents(input: {code: "UNKNOWN_METER"}) { __typename } }'
    )
    assert (await graphql(EVENT, key="2026-10-1"))["event"] is None
    found = (await graphql(EVENT, eventId=event_id))["event"]
    assert ("VALIDATION", False, "DISCARDED") in short(found["trace"])
    assert "never counts" in found["trace"][3]["reason"]


async def test_an_event_that_was_voided_says_by_what_and_is_not_billed(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send(call(1, 1))
    await run_jobs()
    await send({"idempotencyKey": "void-1", "voids": "2026-10-1", "reason": "a test"})
    await run_jobs()
    steps = await trace(graphql, "2026-10-1")
    [voided] = [each for each in steps if each["decision"] == "VOIDED"]
    assert (voided["stage"], voided["passed"]) == ("AGGREGATION", False)
    assert "void-1" in voided["reason"]
    assert short(steps)[-1] == ("SETTLEMENT", None, "NOT_REACHED")
    assert "voided it" in steps[-1]["reason"]


async def test_a_conflict_is_a_step_of_the_event_that_stands(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send(call(1, 1))
    await send(call(1, 2))
    await run_jobs()
    steps = await trace(graphql, "2026-10-1")
    assert ("DEDUPLICATION", True, "CONFLICT") in short(steps)
    [counted] = [each for each in steps if each["stage"] == "AGGREGATION"]
    assert counted["quantity"] == "1"


async def test_what_is_not_there_is_null_and_a_bad_question_is_refused(
    graphql: GraphQL, other: GraphQL, client: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    await send({**call(1, 1), "customer": "nobody"})
    event_id = (await event(graphql, "2026-10-1"))["eventId"]
    assert (await other(EVENT, eventId=event_id))["event"] is None
    assert (await other(EVENT, key="2026-10-1"))["event"] is None
    assert (await graphql(EVENT, key="never"))["event"] is None
    for given, code in (
        ({}, "INVALID"),
        ({"eventId": event_id, "key": "2026-10-1"}, "INVALID"),
        ({"eventId": "no id"}, "BAD_ID"),
    ):
        answer = await client.post("/graphql", json={"query": EVENT, "variables": given})
        [error] = answer.json()["errors"]
        assert error["extensions"]["code"] == code
