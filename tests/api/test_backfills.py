"""Backfills through the API: started, filled in every way, closed, reverted, and listed."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from aforo.importing import run
from aforo.importing.mapping import Wanted
from aforo.importing.reading import Source
from aforo.importing.run import Target
from aforo.importing.shapes import Format
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL
from tests.conftest import Send
from tests.metering.market import Market, open_market

pytestmark = pytest.mark.anyio

BACKFILL = "... on Backfill { id name state events } ... on Problem { code field }"
START = f"mutation($input: StartBackfillInput!) {{ startBackfill(input: $input) {{ {BACKFILL} }} }}"
CLOSE = f"mutation($input: CloseBackfillInput!) {{ closeBackfill(input: $input) {{ {BACKFILL} }} }}"
REVERT = (
    f"mutation($input: RevertBackfillInput!) {{ revertBackfill(input: $input) {{ {BACKFILL} }} }}"
)
INGEST = """
mutation($input: IngestEventsInput!) {
  ingestEvents(input: $input) {
    ... on IngestedEvents { accepted }
    ... on Problem { code field }
  }
}
"""
LIST = """
query($state: BackfillState) {
  backfills(state: $state) {
    edges { node { name reason state events closedAt revertedAt revertReason keysFreedAt } }
  }
}
"""
LOG = """
query($action: String) {
  auditLog(action: $action) { edges { node { changes { type before after } } } }
}
"""


@pytest.fixture
async def market(runtime: Runtime, tenant_id: TenantId) -> Market:
    return await open_market(runtime, tenant_id)


async def test_a_backfill_is_filled_in_every_way_closed_and_reverted(
    graphql: GraphQL,
    send: Send,
    client: httpx2.AsyncClient,
    tenant: NewTenant,
    market: Market,
    run_jobs: Callable[[], Awaitable[None]],
    tmp_path: Path,
) -> None:
    started = (await graphql(START, input={"name": "october", "reason": "outage"}))["startBackfill"]
    assert (started["state"], started["events"]) == ("OPEN", 0)
    assert (await send(market.event("a"), backfill="october"))["accepted"] == 1
    by_graphql = {"events": [market.event("b")], "backfill": "october"}
    assert (await graphql(INGEST, input=by_graphql))["ingestEvents"]["accepted"] == 1
    file = tmp_path / "events.csv"
    file.write_text(
        "idempotencyKey,type,customer,occurredAt,tokens\n"
        "c,llm.request,acme,2026-11-01T00:00:00Z,5\n"
    )
    report = await run.import_file(
        Source(file, Format.CSV, Wanted({}, {}, None), ",", "utf-8", 10),
        Target(
            url="http://aforo.test",
            key=tenant.key.token,
            backfill="october",
            transport=client._transport,
        ),
        state=tmp_path / "state",
        not_taken=tmp_path / "not-taken",
    )
    assert report.totals["accepted"] == 1
    await run_jobs()
    assert await market.used("tokens") == 0
    closed = (await graphql(CLOSE, input={"backfillId": started["id"]}))["closeBackfill"]
    assert (closed["state"], closed["events"]) == ("CLOSED", 3)
    await run_jobs()
    assert await market.used("tokens") == 25
    reverting = {"backfillId": started["id"], "reason": "twice"}
    assert (await graphql(REVERT, input=reverting))["revertBackfill"]["state"] == "REVERTED"
    await run_jobs()
    assert await market.used("tokens") == 0
    [edge] = (await graphql(LIST, state="REVERTED"))["backfills"]["edges"]
    at = "2026-11-20T12:00:00Z"
    assert edge["node"] == {
        "name": "october",
        "reason": "outage",
        "state": "REVERTED",
        "events": 3,
        "closedAt": at,
        "revertedAt": at,
        "revertReason": "twice",
        "keysFreedAt": at,
    }
    assert (await graphql(LIST, state="OPEN"))["backfills"]["edges"] == []
    for action, state in (("closeBackfill", "CLOSED"), ("revertBackfill", "REVERTED")):
        [entry] = (await graphql(LOG, action=action))["auditLog"]["edges"]
        [change] = entry["node"]["changes"]
        assert (change["type"], change["after"]["state"]) == ("Backfill", state)


async def test_events_are_added_only_to_a_backfill_that_is_open(
    graphql: GraphQL, client: httpx2.AsyncClient, market: Market
) -> None:
    started = (await graphql(START, input={"name": "x", "reason": "y"}))["startBackfill"]
    again = (await graphql(START, input={"name": "x", "reason": "y"}))["startBackfill"]
    assert again == {"code": "BACKFILL_EXISTS", "field": "name"}
    await graphql(CLOSE, input={"backfillId": started["id"]})
    settled = (await graphql(CLOSE, input={"backfillId": started["id"]}))["closeBackfill"]
    assert settled == {"code": "BACKFILL_SETTLED", "field": "backfillId"}
    for name, status, code in (("x", 409, "BACKFILL_SETTLED"), ("z", 404, "NOT_FOUND")):
        answer = await client.post(f"/v1/events?backfill={name}", json=[market.event()])
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        by_graphql = {"events": [market.event()], "backfill": name}
        assert (await graphql(INGEST, input=by_graphql))["ingestEvents"]["code"] == code
    for query in ("backfill=", "backfill=x&backfill=y"):
        answer = await client.post(f"/v1/events?{query}", json=[])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_REQUEST")
    assert await market.rows("event_key") == []
