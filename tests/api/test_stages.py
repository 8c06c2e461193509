"""The stages through the API: listed, changed by versions, and obeyed at once."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import httpx2
import pytest

from aforo.sdk.ids import TenantId
from aforo.stages.queries import remembered
from aforo.stages.registry import StageName
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, http, line, made, meter, new_key, plan, poster, problem
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]

STAGES = """
{ stages {
  name position description uses version
  settings { name type default minimum maximum values value }
  versions { edges { node { version settings reason changedBy changedAt } } totalCount }
} }
"""
CHANGE = """
mutation($input: ChangeStageSettingsInput!) {
  changed: changeStageSettings(input: $input) {
    __typename
    ... on StageVersion { id stage version settings reason changedBy changedAt }
    ... on Problem { code message field }
  }
}
"""


async def changed(
    graphql: GraphQL, stage: StageName, version: int, **settings: Any
) -> dict[str, Any]:
    given = {"stage": stage, "settings": settings, "reason": "a test", "expectedVersion": version}
    answer = (await graphql(CHANGE, input=given))["changed"]
    assert isinstance(answer, dict)
    return answer


async def stage(graphql: GraphQL, name: StageName) -> dict[str, Any]:
    [found] = [each for each in (await graphql(STAGES))["stages"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


async def obeyed(runtime: Runtime, tenant_id: TenantId, name: StageName, version: int) -> None:
    """Wait until this process goes by a version: a second at most."""
    for _ in range(500):
        if (await remembered(runtime, tenant_id)).version(name) == version:
            return
        await anyio.sleep(0.01)
    raise AssertionError(f"version {version} of {name} is not gone by")


async def test_the_ten_stages_are_listed_with_their_settings(graphql: GraphQL) -> None:
    found = (await graphql(STAGES))["stages"]
    assert [each["name"] for each in found] == list(StageName)
    assert [each["position"] for each in found] == list(range(1, 11))
    assert all(each["uses"] and each["version"] == 0 for each in found)
    [future] = [each for each in found[1]["settings"] if each["name"] == "futureSecondsMax"]
    assert future == {
        "name": "futureSecondsMax",
        "type": "INTEGER",
        "default": 300,
        "minimum": 0,
        "maximum": 300,
        "values": [],
        "value": 300,
    }
    assert found[6]["settings"] == []
    assert found[1]["versions"] == {"edges": [], "totalCount": 0}


async def test_a_change_is_a_version_that_keeps_the_other_settings(
    graphql: GraphQL, tenant: NewTenant
) -> None:
    first = await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=60)
    second = await changed(graphql, StageName.VALIDATION, 1, releaseAutomatically=True)
    assert (first["version"], second["version"]) == (1, 2)
    assert second["settings"] == {
        "futureSecondsMax": 60,
        "ageSecondsMax": 7_776_000,
        "releaseAutomatically": True,
    }
    assert (second["changedBy"], second["changedAt"]) == (
        tenant.key.row.public_id,
        "2026-11-20T12:00:00Z",
    )
    found = await stage(graphql, StageName.VALIDATION)
    assert found["version"] == 2
    assert [each["value"] for each in found["settings"]] == [60, 7_776_000, True]
    history = [edge["node"] for edge in found["versions"]["edges"]]
    assert [each["version"] for each in history] == [2, 1]
    assert history[1]["settings"] == first["settings"]
    assert (await stage(graphql, StageName.INGESTION))["version"] == 0


async def test_what_is_wrong_is_named_and_changes_nothing(graphql: GraphQL) -> None:
    await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=60)
    before = await graphql(STAGES)
    right = {"futureSecondsMax": 30}
    for given, told in (
        ({"expectedVersion": 0}, ("ConflictProblem", "STAGE_CHANGED", "expectedVersion")),
        ({"expectedVersion": 2}, ("ConflictProblem", "STAGE_CHANGED", "expectedVersion")),
        ({"reason": " "}, ("InvalidProblem", "INVALID", "reason")),
        ({"reason": "x" * 501}, ("InvalidProblem", "INVALID", "reason")),
        ({"settings": [1]}, ("InvalidProblem", "INVALID", "settings")),
        ({"settings": {}}, ("InvalidProblem", "NOTHING_CHANGED", "settings")),
        (
            {"settings": {"futureSecondMax": 1}},
            ("InvalidProblem", "UNKNOWN_SETTING", "settings.futureSecondMax"),
        ),
        (
            {"settings": {"futureSecondsMax": 301}},
            ("InvalidProblem", "INVALID", "settings.futureSecondsMax"),
        ),
        (
            {"stage": "RATING"},
            ("InvalidProblem", "UNKNOWN_SETTING", "settings.futureSecondsMax"),
        ),
    ):
        asked = {"stage": "VALIDATION", "settings": right, "reason": "x", "expectedVersion": 1}
        answer = await graphql(CHANGE, input={**asked, **given})
        assert problem(answer["changed"]) == told
    assert await graphql(STAGES) == before


async def test_of_two_who_expect_the_same_version_one_is_told(graphql: GraphQL) -> None:
    kinds: list[str] = []

    async def one(seconds: int) -> None:
        answer = await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=seconds)
        kinds.append(answer["__typename"])

    async with anyio.create_task_group() as tasks:
        for seconds in range(5):
            tasks.start_soon(one, seconds)
    assert sorted(kinds) == ["ConflictProblem"] * 4 + ["StageVersion"]
    assert (await stage(graphql, StageName.VALIDATION))["versions"]["totalCount"] == 1


async def test_a_change_is_in_the_audit_log(graphql: GraphQL) -> None:
    made_id = (await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=60))["id"]
    log = await graphql(
        "query($id: ID) { auditLog(objectId: $id) { edges { node { action "
        "changes { type after } } } } }",
        id=made_id,
    )
    [entry] = [edge["node"] for edge in log["auditLog"]["edges"]]
    assert entry["action"] == "changeStageSettings"
    [change] = entry["changes"]
    assert (change["after"]["version"], change["after"]["reason"]) == (1, "a test")


async def test_billing_needs_its_own_permission_too(
    runtime: Runtime, graphql: GraphQL, tenant: NewTenant
) -> None:
    _, token = await new_key(graphql, "USAGE_READ", "USAGE_WRITE")
    async with http(runtime, tenant) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        asked = {"stage": "SETTLEMENT", "settings": {"graceSeconds": 1}}
        asked |= {"reason": "x", "expectedVersion": 0}
        body = {"query": CHANGE, "variables": {"input": asked}}
        [error] = (await client.post("/graphql", json=body)).json()["errors"]
        assert error["extensions"]["code"] == "FORBIDDEN"
        allowed = await changed(poster(client), StageName.VALIDATION, 0, futureSecondsMax=1)
    assert allowed["version"] == 1
    assert (await stage(graphql, StageName.SETTLEMENT))["version"] == 0


async def test_another_tenant_goes_by_its_own_settings(
    runtime: Runtime, graphql: GraphQL, other: GraphQL, tenant_id: TenantId
) -> None:
    await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=0)
    await obeyed(runtime, tenant_id, StageName.VALIDATION, 1)
    assert (await stage(other, StageName.VALIDATION))["version"] == 0


async def test_events_are_held_to_the_window_and_the_time_that_are_set(
    runtime: Runtime,
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    tenant_id: TenantId,
    clock: MovableClock,
) -> None:
    now = clock.now()
    ahead = {**call(1, 1), "occurredAt": (now + timedelta(seconds=60)).isoformat()}
    back = {**call(2, 1), "occurredAt": (now - timedelta(hours=1)).isoformat()}
    timeless = {**call(3, 1), "occurredAt": None}
    await changed(graphql, StageName.VALIDATION, 0, futureSecondsMax=59, ageSecondsMax=3599)
    await changed(graphql, StageName.INGESTION, 0, requiresOccurredAt=True)
    await obeyed(runtime, tenant_id, StageName.INGESTION, 1)
    answer = await send(ahead, back, timeless)
    assert [(each["stage"], each["code"]) for each in answer["verdicts"]] == [
        ("VALIDATION", "TIMESTAMP_IN_FUTURE"),
        ("VALIDATION", "TIMESTAMP_TOO_OLD"),
        ("INGESTION", "MISSING_FIELD"),
    ]
    assert "over 59 seconds past" in answer["verdicts"][0]["message"]
    await changed(graphql, StageName.VALIDATION, 1, futureSecondsMax=60, ageSecondsMax=3600)
    await changed(graphql, StageName.INGESTION, 1, requiresOccurredAt=False)
    await obeyed(runtime, tenant_id, StageName.INGESTION, 2)
    assert (await send(ahead, back, timeless))["accepted"] == 3


async def test_a_quota_and_a_subscription_take_what_is_set_unless_they_say(
    graphql: GraphQL,
) -> None:
    await changed(graphql, StageName.QUOTA_CHECK, 0, defaultPolicy="BLOCK")
    await changed(graphql, StageName.SETTLEMENT, 0, graceSeconds=7)
    meter_id = await made(graphql, "createMeter", **meter())
    quota = {"kind": "QUOTA", "meterId": meter_id, "quota": "5", "name": "Quota"}
    await made(graphql, "createEntitlement", code="set", **quota)
    await made(graphql, "createEntitlement", code="said", policy="OVERAGE", **quota)
    found = await graphql("{ entitlements { edges { node { code policy } } } }")
    policies = {
        edge["node"]["code"]: edge["node"]["policy"] for edge in found["entitlements"]["edges"]
    }
    assert policies == {"set": "BLOCK", "said": "OVERAGE"}
    plan_id = await made(graphql, "createRatePlan", **plan(line(meter_id)))
    product_id = await made(graphql, "createProduct", code="p", name="P")
    offering_id = await made(
        graphql,
        "createOffering",
        code="o",
        name="O",
        productId=product_id,
        ratePlanId=plan_id,
    )
    graces = []
    for number, said in enumerate(({}, {"graceSeconds": 9})):
        customer_id = await made(
            graphql, "createCustomer", externalId=f"c{number}", name="C", currency="USD"
        )
        subscription_id = await made(
            graphql, "createSubscription", customerId=customer_id, offeringId=offering_id, **said
        )
        query = "query($id: ID!) { node(id: $id) { ... on CustomerSubscription { graceSeconds } } }"
        graces.append((await graphql(query, id=subscription_id))["node"]["graceSeconds"])
    assert graces == [7, 9]


async def test_copies_are_looked_for_as_it_is_set(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    first = call(1, 5)
    later = {**first, "idempotencyKey": "again", "occurredAt": "2026-10-11T01:00:08.000001Z"}
    await send(first, later)
    await run_jobs()
    suspects = """
    query($id: ID!, $period: PeriodInput!) {
      suspectedDuplicates(customerId: $id, period: $period) { count }
    }
    """
    october = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}
    asked = {"id": shop.customer_id, "period": october}
    assert (await graphql(suspects, **asked))["suspectedDuplicates"]["count"] == 0
    await changed(graphql, StageName.DEDUPLICATION, 0, suspectedWithinSeconds=8)
    assert (await graphql(suspects, **asked))["suspectedDuplicates"]["count"] == 1


async def test_settings_need_a_tenant(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/graphql", json={"query": STAGES}, headers={"Authorization": ""})
    assert answer.status_code == 401
