"""What is published, and when: a tenant's life, told by its events."""

import dataclasses
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.api.parts import relay
from aforo.billing.commands import create_wallet, fail, grant_credit, start_bill_run
from aforo.billing.models import Invoice
from aforo.plugins import load_registry
from aforo.sdk import BillRunId, PricedLine, PricingModel, Usage, hookimpl
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.outbox import OutboxEvent
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
from tests.billing.trade import NOVEMBER, Buyer, RunJobs, open_trade
from tests.billing.trade import call as trade_call
from tests.conftest import Send
from tests.shop import call, open_shop

pytestmark = pytest.mark.anyio

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


class Moody(PricingModel):
    """Prices up to three calls, and fails beyond."""

    key = "acme.moody"
    summary = "Fails"

    def price(self, usage: Usage) -> list[PricedLine]:
        if usage.quantity > 3:
            raise RuntimeError("not today")
        return [PricedLine("Calls", usage.quantity, usage.fraction)]


class Acme:
    @hookimpl
    def register_pricing_models(self) -> list[type[PricingModel]]:
        return [Moody]


async def told(runtime: Runtime, tenant_id: TenantId) -> list[dict[str, Any]]:
    """The bodies of the tenant's events, in order."""
    async with runtime.scope(tenant_id) as scope:
        rows = await scope.db.scalars(sa.select(OutboxEvent).order_by(col(OutboxEvent.position)))
        return [json.loads(row.body) for row in rows]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def test_a_month_of_a_customer_is_told_from_creation_to_the_final_invoice(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock, send: Send, run_jobs: RunJobs
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    await run_jobs()
    clock.move_to(DECEMBER + timedelta(minutes=1))
    await run_jobs()
    await run_jobs()
    clock.move_to(DECEMBER + timedelta(hours=1, minutes=1))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        await end_subscription(scope, subscription_id=shop.subscriptions["acme"])
    events = await told(runtime, tenant_id)
    assert types(events) == [
        "api_key.created",
        "customer.created",
        "subscription.created",
        "signal.fired",
        *["action.recorded"] * 3,
        "invoice.drafted",
        "bill_run.completed",
        "invoice.finalized",
        "bill_run.completed",
        "subscription.ended",
    ]
    assert len({event["id"] for event in events}) == len(events)
    by_type = {event["type"]: event["data"] for event in events}
    async with runtime.scope(tenant_id) as scope:
        invoice = await scope.db.scalar(sa.select(Invoice))
    assert invoice is not None
    final, draft = by_type["invoice.finalized"], by_type["invoice.drafted"]
    assert final["invoice"] == draft["invoice"] == relay.global_id("Invoice", invoice.id)
    assert (draft["state"], draft["number"]) == ("DRAFT", None)
    assert (final["state"], final["number"]) == ("FINALIZED", "INV-000001")
    assert (final["total"], final["amountDue"], final["currency"]) == ("100.00", "100.00", "USD")
    customer = relay.global_id("Customer", shop.customers["acme"])
    assert {by_type[kind]["customer"] for kind in by_type if "customer" in by_type[kind]} == {
        customer
    }
    assert by_type["action.recorded"]["signal"] == by_type["signal.fired"]["signal"]
    assert by_type["subscription.ended"]["endsAt"] == "2026-12-01T01:01:00Z"


async def test_credit_and_runs_that_fail_or_refuse_are_told(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    moody = dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))
    trade = await open_trade(
        moody, tenant_id, [Buyer(name="a")], lines=[("calls", "acme.moody", {})]
    )
    async with runtime.scope(tenant_id) as scope:
        wallet = await create_wallet(
            scope, customer_id=trade.customers["a"], currency="USD", name="Prepaid"
        )
        await grant_credit(scope, wallet_id=wallet.id, amount=Decimal("25.5"), reference="pay-1")
    await send(*(trade_call("a") for _ in range(4)))
    async with runtime.scope(tenant_id) as scope:
        failed = await start_bill_run(scope, until=NOVEMBER)
        await fail(scope, BillRunId(failed.id), "an engine was away")
        run = await start_bill_run(scope, until=NOVEMBER)
    await worker.drain(moody, tenant_id)
    events = await told(runtime, tenant_id)
    counted = Counter(types(events))
    assert counted["bill_run.failed"] == counted["wallet.credited"] == 1
    by_type = {event["type"]: event["data"] for event in events}
    assert by_type["wallet.credited"] == {
        "wallet": relay.global_id("Wallet", wallet.id),
        "grant": by_type["wallet.credited"]["grant"],
        "customer": relay.global_id("Customer", trade.customers["a"]),
        "currency": "USD",
        "amount": "25.5",
        "expiresAt": None,
        "reference": "pay-1",
    }
    assert by_type["bill_run.failed"] == {
        "billRun": relay.global_id("BillRun", failed.id),
        "until": "2026-11-01T00:00:00Z",
        "failure": "an engine was away",
    }
    parked = by_type["account.parked"]
    assert parked["subscription"] == relay.global_id(
        "CustomerSubscription", trade.subscriptions["a"]
    )
    assert parked["billRun"] == relay.global_id("BillRun", run.id)
    assert "acme.moody" in parked["reason"]


async def test_keys_are_told_without_their_secrets(
    runtime: Runtime, tenant_id: TenantId, graphql: Any
) -> None:
    made = await graphql(
        """mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) {
             ... on NewApiKey { token apiKey { id } } } }""",
        input={"name": "For a partner", "scopes": ["USAGE_READ"]},
    )
    key = made["createApiKey"]
    rotated = await graphql(
        """mutation($input: RotateApiKeyInput!) { rotateApiKey(input: $input) {
             ... on NewApiKey { token } } }""",
        input={"apiKeyId": key["apiKey"]["id"]},
    )
    for _ in range(2):  # The second time nothing happens, and nothing is told.
        await graphql(
            """mutation($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) {
                 ... on ApiKey { revokedAt } } }""",
            input={"apiKeyId": key["apiKey"]["id"]},
        )
    events = await told(runtime, tenant_id)
    assert types(events) == [
        "api_key.created",
        "api_key.created",
        "api_key.rotated",
        "api_key.revoked",
    ]
    assert {event["data"]["name"] for event in events[1:]} == {"For a partner"}
    for token in (key["token"], rotated["rotateApiKey"]["token"]):
        secret = token.split("_")[3]
        assert not any(secret in json.dumps(event) for event in events)
