"""Webhooks through GraphQL: endpoints made, tried, told again, and what is shown of it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook, WebhookVerificationError

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.webhooks.commands import ENDPOINTS_MAX
from aforo.webhooks.fan_out import KEPT
from aforo.webhooks.models import WebhookEndpoint
from tests.api.forms import change, customer, made, no_such, problem
from tests.conftest import GraphQL
from tests.receivers import Receiver, answers, receiving

pytestmark = pytest.mark.anyio

Run = Callable[[], Awaitable[None]]

CREATE = """mutation($input: CreateWebhookEndpointInput!) { createWebhookEndpoint(input: $input) {
  ... on NewWebhookSecret { secret endpoint { id url description eventTypes state } }
  ... on Problem { code field } } }"""
ENDPOINTS = """{ webhookEndpoints { edges { node {
  id url description eventTypes state disabledReason
  previousSecretUntil warning failingFrom } } } }"""
LOG = """query($endpoint: ID, $state: WebhookDeliveryState, $type: WebhookEventType) {
  webhookDeliveries(webhookEndpointId: $endpoint, state: $state, eventType: $type) {
    edges { node { id eventId eventType state attemptCount nextAttemptAt failure payload
      endpoint { id } attempts { edges { node { number status response failure } } } } } } }"""
ROTATE = """mutation($input: RotateWebhookSecretInput!) { rotateWebhookSecret(input: $input) {
  ... on NewWebhookSecret { secret endpoint { previousSecretUntil } }
  ... on Problem { code field } } }"""
REPLAY = """mutation($input: ReplayWebhookEventsInput!) { replayWebhookEvents(input: $input) {
  ... on WebhookReplay { eventCount endpoint { id } } ... on Problem { code field } } }"""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def created(graphql: GraphQL, url: str, **more: Any) -> tuple[str, str]:
    """A new endpoint's id, and its secret."""
    answer = (await graphql(CREATE, input={"url": url, **more}))["createWebhookEndpoint"]
    return answer["endpoint"]["id"], answer["secret"]


async def log_of(graphql: GraphQL, **filters: str) -> list[dict[str, Any]]:
    """Deliveries, the newest first."""
    found = (await graphql(LOG, **filters))["webhookDeliveries"]["edges"]
    return [edge["node"] for edge in found]


async def only_endpoint(graphql: GraphQL) -> dict[str, Any]:
    [edge] = (await graphql(ENDPOINTS))["webhookEndpoints"]["edges"]
    node: dict[str, Any] = edge["node"]
    return node


def types(receiver: Receiver) -> list[str]:
    return [json.loads(heard.body)["type"] for heard in receiver.heard]


async def test_an_endpoint_is_made_and_its_secret_is_shown_once(
    graphql: GraphQL, receiver: Receiver, runtime: Runtime, tenant_id: TenantId
) -> None:
    answer = await graphql(
        CREATE,
        input={
            "url": receiver.url(),
            "description": " Our ERP ",
            "eventTypes": ["INVOICE_FINALIZED", "CUSTOMER_CREATED", "INVOICE_FINALIZED"],
        },
    )
    new = answer["createWebhookEndpoint"]
    assert new["secret"].startswith("whsec_")
    shown = await only_endpoint(graphql)
    assert shown.items() >= new["endpoint"].items()
    assert shown["eventTypes"] == ["CUSTOMER_CREATED", "INVOICE_FINALIZED"]
    assert (shown["description"], shown["state"]) == ("Our ERP", "ENABLED")
    async with runtime.scope(tenant_id) as scope:
        row = await scope.db.scalar(sa.select(WebhookEndpoint))
        assert row is not None
        assert new["secret"].encode() not in row.secret, "at rest it is sealed"


async def test_the_test_button_tells_how_it_went(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run
) -> None:
    endpoint, _ = await created(graphql, receiver.url(), eventTypes=["WALLET_CREDITED"])
    delivery = await made(graphql, "sendTestWebhook", webhookEndpointId=endpoint)
    [waiting] = await log_of(graphql)
    assert (waiting["id"], waiting["state"], waiting["attemptCount"]) == (delivery, "PENDING", 0)
    assert waiting["nextAttemptAt"] == "2026-11-20T12:00:00Z"
    await run_jobs()
    assert types(receiver) == ["webhook.test"]
    [done] = await log_of(graphql, endpoint=endpoint, state="DELIVERED", type="WEBHOOK_TEST")
    assert done["eventId"] == receiver.heard[0].headers["webhook-id"]
    assert done["payload"] == json.loads(receiver.heard[0].body)
    assert done["payload"]["data"]["endpoint"] == endpoint == done["endpoint"]["id"]
    [attempt] = [edge["node"] for edge in done["attempts"]["edges"]]
    assert attempt == {"number": 1, "status": 200, "response": "ok", "failure": None}
    assert await log_of(graphql, state="EXHAUSTED") == []
    assert await log_of(graphql, type="CUSTOMER_CREATED") == []


async def test_a_delivery_is_made_again_at_once_with_the_same_id_and_bytes(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run
) -> None:
    await created(graphql, receiver.url(), eventTypes=["CUSTOMER_CREATED"])
    receiver.answer = answers(500)
    await made(graphql, "createCustomer", **customer())
    await run_jobs()
    [failed] = await log_of(graphql)
    assert (failed["state"], failed["failure"]) == ("PENDING", "it answered with status 500")
    receiver.answer = answers()
    for _ in range(2):  # Once while it waits for its next try, once after it was delivered.
        await made(graphql, "resendWebhookDelivery", webhookDeliveryId=failed["id"])
        await run_jobs()
    assert len(receiver.heard) == 3
    assert len({(one.body, one.headers["webhook-id"]) for one in receiver.heard}) == 1
    [done] = await log_of(graphql)
    assert (done["state"], done["attemptCount"], done["failure"]) == ("DELIVERED", 3, None)


async def test_one_that_waits_for_an_earlier_one_is_not_resent(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run
) -> None:
    await created(graphql, receiver.url(), eventTypes=["WALLET_CREDITED"])
    receiver.answer = answers(500)
    payer = await made(graphql, "createCustomer", **customer())
    wallet = await made(graphql, "createWallet", customerId=payer, currency="USD")
    for reference in ("first", "second"):
        await made(graphql, "grantCredit", walletId=wallet, amount="1", reference=reference)
    await run_jobs()
    second, first = await log_of(graphql)
    assert (first["state"], second["state"]) == ("PENDING", "WAITING")
    assert second["nextAttemptAt"] is None
    answer = await change(graphql, "resendWebhookDelivery", webhookDeliveryId=second["id"])
    assert problem(answer) == ("ConflictProblem", "DELIVERY_WAITS", "webhookDeliveryId")


async def test_a_time_is_replayed_with_the_same_ids_also_to_an_endpoint_that_was_not_there(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run, clock: MovableClock
) -> None:
    await created(graphql, receiver.url("/old"), eventTypes=["CUSTOMER_CREATED"])
    await made(graphql, "createCustomer", **customer())
    await run_jobs()
    clock.advance(timedelta(hours=1))
    await made(graphql, "createCustomer", **customer(externalId="later"))
    await run_jobs()
    new, _ = await created(graphql, receiver.url("/new"))
    start, end = "2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z"
    when = {"period": {"start": start, "end": end}}
    asked = {"webhookEndpointId": new, "eventTypes": ["CUSTOMER_CREATED"], **when}
    for _ in range(2):
        answer = await graphql(REPLAY, input=asked)
        assert answer["replayWebhookEvents"] == {"eventCount": 1, "endpoint": {"id": new}}
        await run_jobs()
    first, *others = receiver.heard
    assert [one.target for one in receiver.heard] == ["/old", "/old", "/new", "/new"]
    assert {(one.body, one.headers["webhook-id"]) for one in others[1:]} == {
        (first.body, first.headers["webhook-id"])
    }
    everything = await graphql(REPLAY, input={"webhookEndpointId": new, **when})
    assert everything["replayWebhookEvents"]["eventCount"] == 2, "the key's event too"
    turned = {"webhookEndpointId": new, "period": {"start": end, "end": start}}
    wrong = await graphql(REPLAY, input=turned)
    assert wrong["replayWebhookEvents"] == {"code": "BAD_PERIOD", "field": "end"}


async def test_after_a_rotation_both_secrets_sign_until_the_overlap_ends(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run, clock: MovableClock
) -> None:
    clock.move_to(datetime.now(UTC))  # The verifying library looks at the machine's own.
    endpoint, old = await created(graphql, receiver.url())
    rotated = await graphql(ROTATE, input={"webhookEndpointId": endpoint, "overlapSeconds": 7_200})
    new = rotated["rotateWebhookSecret"]["secret"]
    assert new != old

    async def verifies() -> dict[str, bool]:
        receiver.heard.clear()
        await made(graphql, "sendTestWebhook", webhookEndpointId=endpoint)
        await run_jobs()
        heard = receiver.heard[-1]
        found = {}
        for name, secret in (("old", old), ("new", new)):
            try:
                Webhook(secret).verify(heard.body, heard.headers)
                found[name] = True
            except WebhookVerificationError:
                found[name] = False
        return found

    assert await verifies() == {"old": True, "new": True}
    endpoint_shown = await only_endpoint(graphql)
    until = datetime.fromisoformat(endpoint_shown["previousSecretUntil"])
    assert until == clock.now() + timedelta(hours=2)
    # The end of the overlap, seen from the calls: they are signed by the clock that moved.
    clock.move_to(until)
    receiver.heard.clear()
    await made(graphql, "sendTestWebhook", webhookEndpointId=endpoint)
    await run_jobs()
    assert receiver.heard[-1].headers["webhook-signature"].count("v1,") == 1
    wrong = await graphql(ROTATE, input={"webhookEndpointId": endpoint, "overlapSeconds": 604_801})
    assert wrong["rotateWebhookSecret"] == {"code": "INVALID", "field": "overlapSeconds"}


async def test_a_disabled_endpoint_is_told_nothing_until_it_is_enabled(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run
) -> None:
    endpoint, _ = await created(graphql, receiver.url(), eventTypes=["CUSTOMER_CREATED"])
    receiver.answer = answers(500)
    await made(graphql, "createCustomer", **customer())
    await run_jobs()
    await made(graphql, "disableWebhookEndpoint", webhookEndpointId=endpoint)
    shown = await only_endpoint(graphql)
    assert (shown["state"], shown["disabledReason"]) == ("DISABLED", "OWNER")
    [cancelled] = await log_of(graphql)
    assert cancelled["state"] == "CANCELLED"
    await made(graphql, "createCustomer", **customer(externalId="meanwhile"))
    await run_jobs()
    for name, given in (
        ("sendTestWebhook", {"webhookEndpointId": endpoint}),
        ("resendWebhookDelivery", {"webhookDeliveryId": cancelled["id"]}),
    ):
        answer = await change(graphql, name, **given)
        assert problem(answer)[:2] == ("ConflictProblem", "ENDPOINT_DISABLED")
    receiver.answer = answers()
    await made(graphql, "enableWebhookEndpoint", webhookEndpointId=endpoint)
    await made(graphql, "resendWebhookDelivery", webhookDeliveryId=cancelled["id"])
    await made(graphql, "createCustomer", **customer(externalId="after"))
    await run_jobs()
    told = [json.loads(heard.body)["data"]["externalId"] for heard in receiver.heard]
    assert sorted(told) == ["acme", "acme", "after"]


async def test_an_endpoint_is_changed_and_deleted(
    graphql: GraphQL, receiver: Receiver, run_jobs: Run, clock: MovableClock
) -> None:
    endpoint, _ = await created(graphql, "http://127.0.0.1:9/")
    await made(
        graphql,
        "updateWebhookEndpoint",
        webhookEndpointId=endpoint,
        url=receiver.url("/new"),
        eventTypes=["CUSTOMER_CREATED"],
    )
    await made(graphql, "createCustomer", **customer())
    await run_jobs()
    assert receiver.heard[-1].target == "/new"
    await made(graphql, "deleteWebhookEndpoint", webhookEndpointId=endpoint)
    assert (await graphql(ENDPOINTS))["webhookEndpoints"]["edges"] == []
    assert len(await log_of(graphql, endpoint=endpoint)) == 1, "the log stays"
    for name in ("enableWebhookEndpoint", "sendTestWebhook", "deleteWebhookEndpoint"):
        answer = await change(graphql, name, webhookEndpointId=endpoint)
        assert problem(answer) == ("NotFoundProblem", "NOT_FOUND", "webhookEndpointId")
    clock.advance(KEPT + timedelta(seconds=1))
    await run_jobs()
    assert await log_of(graphql) == [], "for 30 days"
    gone = await graphql("query($id: ID!) { node(id: $id) { id } }", id=endpoint)
    assert gone["node"] is None


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/", "http://10.0.0.1/", "https://user@example.com/", "ftp://x/"),
        *("http://2130706433/", "http://[::ffff:127.0.0.1]/", "not a url", ""),
    ],
)
async def test_a_url_that_must_not_be_called_is_refused(graphql: GraphQL, url: str) -> None:
    answer = await graphql(CREATE, input={"url": url})
    assert answer["createWebhookEndpoint"] == {"code": "URL_NOT_ALLOWED", "field": "url"}
    assert (await graphql(ENDPOINTS))["webhookEndpoints"]["edges"] == []


async def test_what_makes_no_sense_is_refused(graphql: GraphQL) -> None:
    url = "http://127.0.0.1:9/"
    for given, field in (
        ({"description": "x" * 501}, "description"),
        ({"eventTypes": ["WEBHOOK_TEST"]}, "eventTypes"),
    ):
        answer = await graphql(CREATE, input={"url": url, **given})
        assert answer["createWebhookEndpoint"] == {"code": "INVALID", "field": field}
    for _ in range(ENDPOINTS_MAX):
        await created(graphql, url)
    answer = await graphql(CREATE, input={"url": url})
    assert answer["createWebhookEndpoint"]["code"] == "TOO_MANY_ENDPOINTS"
    answer = await change(
        graphql, "resendWebhookDelivery", webhookDeliveryId=no_such("WebhookDelivery")
    )
    assert problem(answer) == ("NotFoundProblem", "NOT_FOUND", "webhookDeliveryId")
