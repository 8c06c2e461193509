"""The quarantine through the API: shown, corrected, released, discarded, recorded."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, made, no_such, problem
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

LIST = """
query($state: QuarantineState, $code: String, $type: String, $customer: String) {
  quarantinedEvents(state: $state, code: $code, type: $type, customer: $customer) {
    edges { node {
      id state code message type customer event corrected receivedAt settledAt settledBy
    } }
    totalCount
  }
}
"""
RELEASE = """
mutation($input: ReleaseQuarantinedEventsInput!) {
  releaseQuarantinedEvents(input: $input) {
    ... on ReleasedEvents { released failures { code events } next }
    ... on Problem { code field }
  }
}
"""
DISCARD = """
mutation($input: DiscardQuarantinedEventsInput!) {
  discardQuarantinedEvents(input: $input) { ... on DiscardedEvents { discarded next } }
}
"""
CORRECT = """
mutation($input: CorrectQuarantinedEventInput!) {
  correctQuarantinedEvent(input: $input) {
    __typename
    ... on QuarantinedEvent { id type customer event corrected }
    ... on Problem { code message field }
  }
}
"""
REFUSED = """
mutation($input: %s!) {
  result: %s(input: $input) { __typename ... on Problem { code field } }
}
"""


async def listed(graphql: GraphQL, **wanted: Any) -> list[dict[str, Any]]:
    found = await graphql(LIST, **({"state": "QUARANTINED"} | wanted))
    edges = found["quarantinedEvents"]["edges"]
    assert found["quarantinedEvents"]["totalCount"] == len(edges)
    return [edge["node"] for edge in edges]


async def test_an_event_is_corrected_released_and_counted(
    graphql: GraphQL, tenant: NewTenant, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    sent = {**call(1, 5.25), "customer": "acme-typo"}
    await send(sent)
    [waiting] = await listed(graphql)
    assert waiting["event"]["properties"] == {"tokens": 5.25, "model": "small"}
    assert (waiting["customer"], waiting["corrected"], waiting["settledAt"]) == (
        "acme-typo",
        None,
        None,
    )
    ids = [waiting["id"]]
    release = await graphql(RELEASE, input={"quarantinedEventIds": ids})
    assert release["releaseQuarantinedEvents"] == {
        "released": 0,
        "failures": [{"code": "UNKNOWN_CUSTOMER", "events": 1}],
        "next": None,
    }
    corrected = await graphql(CORRECT, input={"quarantinedEventId": ids[0], "customer": "acme"})
    assert corrected["correctQuarantinedEvent"]["corrected"] == {"customer": "acme"}
    assert corrected["correctQuarantinedEvent"]["event"]["customer"] == "acme-typo"
    release = await graphql(RELEASE, input={"code": "UNKNOWN_CUSTOMER", "customer": "acme"})
    assert release["releaseQuarantinedEvents"]["released"] == 1
    await run_jobs()
    events = await graphql("{ events { edges { node { idempotencyKey customer { id } } } } }")
    [event] = [edge["node"] for edge in events["events"]["edges"]]
    assert event == {
        "idempotencyKey": sent["idempotencyKey"],
        "customer": {"id": shop.customer_id},
    }
    assert await listed(graphql) == []
    [settled] = await listed(graphql, state="RELEASED")
    assert settled["settledAt"] == "2026-11-20T12:00:00Z"
    assert settled["settledBy"] == tenant.key.row.public_id
    assert await listed(graphql, state=None) == [settled]
    again = await send(sent)
    assert again["duplicates"] == 1


async def test_the_list_is_filtered_by_what_an_event_says(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    await send(
        {**call(1, 1), "customer": "a"},
        {**call(2, 1), "customer": "b"},
        {**call(3, 1), "type": "other"},
    )
    for wanted, keys in (
        ({"customer": "a"}, {"2026-10-1"}),
        ({"type": "other"}, {"2026-10-3"}),
        ({"code": "UNKNOWN_CUSTOMER"}, {"2026-10-1", "2026-10-2"}),
        ({"code": "UNKNOWN_CUSTOMER", "customer": "b"}, {"2026-10-2"}),
        ({"state": "RELEASED"}, set()),
    ):
        found = await listed(graphql, **wanted)
        assert {each["event"]["idempotencyKey"] for each in found} == keys


async def test_a_discarded_event_may_be_sent_anew(graphql: GraphQL, shop: Shop, send: Send) -> None:
    sent = {**call(1, 5), "customer": "nobody"}
    await send(sent)
    discarded = await graphql(DISCARD, input={"customer": "nobody"})
    assert discarded["discardQuarantinedEvents"] == {"discarded": 1, "next": None}
    assert (await send({**sent, "customer": "acme"}))["accepted"] == 1
    [gone] = await listed(graphql, state="DISCARDED")
    assert gone["event"]["customer"] == "nobody"


async def test_what_is_wrong_is_told_and_nothing_is_changed(
    graphql: GraphQL, shop: Shop, send: Send
) -> None:
    await send({**call(1, 5), "customer": "nobody"})
    before = await listed(graphql)
    event_id = before[0]["id"]
    for name, given, told in (
        ("releaseQuarantinedEvents", {}, ("InvalidProblem", "MISSING_FIELD", None)),
        ("discardQuarantinedEvents", {}, ("InvalidProblem", "MISSING_FIELD", None)),
        (
            "releaseQuarantinedEvents",
            {"code": "UNKNOWN_CUSTOMER", "after": "?"},
            ("InvalidProblem", "BAD_CURSOR", "after"),
        ),
        (
            "discardQuarantinedEvents",
            {"quarantinedEventIds": [event_id, no_such("QuarantinedEvent")]},
            ("NotFoundProblem", "NOT_FOUND", "quarantinedEventIds.1"),
        ),
        (
            "correctQuarantinedEvent",
            {"quarantinedEventId": event_id},
            ("InvalidProblem", "INVALID", None),
        ),
        (
            "correctQuarantinedEvent",
            {"quarantinedEventId": event_id, "customer": None},
            ("InvalidProblem", "MISSING_FIELD", None),
        ),
        (
            "correctQuarantinedEvent",
            {"quarantinedEventId": event_id, "properties": [1]},
            ("InvalidProblem", "BAD_VALUE", "properties"),
        ),
    ):
        input_type = f"{name[0].upper()}{name[1:]}Input"
        answer = await graphql(REFUSED % (input_type, name), input=given)
        assert problem(answer["result"]) == told
    assert await listed(graphql) == before


async def test_what_was_done_is_in_the_audit_log(graphql: GraphQL, shop: Shop, send: Send) -> None:
    await send({**call(1, 5), "customer": "nobody"}, {**call(2, 5), "customer": "acme2"})
    nobody, acme2 = await listed(graphql)
    await graphql(DISCARD, input={"quarantinedEventIds": [nobody["id"]]})
    await graphql(CORRECT, input={"quarantinedEventId": acme2["id"], "customer": "acme"})
    await graphql(RELEASE, input={"quarantinedEventIds": [acme2["id"]]})
    log = await graphql(
        "query($id: ID) { auditLog(objectId: $id) { edges { node { action "
        "changes { type id before after } } } } }",
        id=acme2["id"],
    )
    entries = [edge["node"] for edge in log["auditLog"]["edges"]]
    assert [each["action"] for each in entries] == [
        "releaseQuarantinedEvents",
        "correctQuarantinedEvent",
    ]
    [released] = entries[0]["changes"]
    assert (released["before"]["state"], released["after"]["state"]) == ("QUARANTINED", "RELEASED")


async def test_with_a_key_a_release_is_answered_once_more_without_being_done_again(
    graphql: GraphQL, client: httpx2.AsyncClient, shop: Shop, send: Send
) -> None:
    await send({**call(1, 5), "customer": "later"})
    await made(graphql, "createCustomer", externalId="later", name="Later", currency="USD")
    [waiting] = await listed(graphql)
    await graphql(CORRECT, input={"quarantinedEventId": waiting["id"], "customer": "acme"})
    asked = {"query": RELEASE, "variables": {"input": {"customer": "acme"}}}
    answers = [
        await client.post("/graphql", json=asked, headers={"Idempotency-Key": "release-1"})
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["data"]["releaseQuarantinedEvents"]["released"] == 1
