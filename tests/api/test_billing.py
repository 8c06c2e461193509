"""Bills through the API: invoices with their lines and events, wallets, taxes, revenue."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from aforo.api.parts.cursors import cursor_at
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from tests.api.forms import GraphQL, change, made
from tests.api.shop import OCTOBER, Shop
from tests.conftest import Send
from tests.shop import call, open_shop

RunJobs = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.anyio

INVOICES = """
query($customerId: ID, $state: InvoiceState, $period: PeriodInput) {
  invoices(customerId: $customerId, state: $state, period: $period) {
    edges { node {
      id number state currency periodStart periodEnd
      subtotal discount tax total fromWallet amountDue cogs
      customer { id externalId }
      subscription { id }
      billRun { state }
      taxes { name rate inclusive base amount }
      lines {
        kind code quantity unrounded amount discounted tax eventCount
        meter { id }
        steps { label quantity unitPrice amount }
        sourceEvents(first: 20) { edges { node { idempotencyKey properties } } }
      }
    } }
  }
}
"""


async def test_an_invoice_shows_how_it_came_about(graphql: GraphQL, billed: Shop) -> None:
    [edge] = (await graphql(INVOICES))["invoices"]["edges"]
    invoice = edge["node"]
    amounts = ("subtotal", "discount", "tax", "total", "fromWallet", "amountDue", "cogs")
    # 20 + 100.5 x 0.01 rounded up; ten percent off; ten percent tax; five from the wallet.
    assert [Decimal(invoice[name]) for name in amounts] == [
        Decimal(number) for number in ("21.01", "2.10", "1.89", "20.80", "5", "15.80", "2.01")
    ]
    assert all(isinstance(invoice[name], str) for name in amounts)
    assert (invoice["state"], invoice["number"]) == ("FINALIZED", "INV-000001")
    assert invoice["periodStart"] == "2026-10-01T00:00:00Z"
    assert invoice["periodEnd"] == "2026-11-01T00:00:00Z"
    assert invoice["customer"] == {"id": billed.customer_id, "externalId": "acme"}
    assert invoice["subscription"] == {"id": billed.subscription_id}
    assert invoice["billRun"] == {"state": "DONE"}
    [tax] = invoice["taxes"]
    assert (Decimal(tax["base"]), Decimal(tax["amount"])) == (Decimal("18.91"), Decimal("1.89"))
    fee, usage, discount = invoice["lines"]
    assert [one["kind"] for one in invoice["lines"]] == ["FEE", "USAGE", "DISCOUNT"]
    assert Decimal(usage["quantity"]) == Decimal("100.5")
    assert (Decimal(usage["unrounded"]), usage["amount"]) == (Decimal("1.005"), "1.01")
    assert usage["meter"] == {"id": billed.meter_id}
    assert usage["eventCount"] == len(usage["sourceEvents"]["edges"]) == 5
    [step] = usage["steps"]
    assert (Decimal(step["quantity"]), Decimal(step["unitPrice"])) == (
        Decimal("100.5"),
        Decimal("0.01"),
    )
    assert fee["sourceEvents"]["edges"] == discount["sourceEvents"]["edges"] == []


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 1),
        ({"state": "FINALIZED"}, 1),
        ({"state": "DRAFT"}, 0),
        ({"period": {"start": "2026-10-01T00:00:00Z", "end": "2026-10-02T00:00:00Z"}}, 1),
        ({"period": {"start": "2026-10-02T00:00:00Z", "end": "2026-11-02T00:00:00Z"}}, 0),
    ],
)
async def test_invoices_are_found_by_what_they_are(
    graphql: GraphQL, billed: Shop, wanted: dict[str, Any], count: int
) -> None:
    for customer in ({}, {"customerId": billed.customer_id}):
        found = await graphql(INVOICES, **wanted, **customer)
        assert len(found["invoices"]["edges"]) == count


async def test_source_events_come_in_pages_in_the_order_of_time(
    graphql: GraphQL, billed: Shop
) -> None:
    [edge] = (await graphql("{ invoices { edges { node { lines { id code } } } } }"))["invoices"][
        "edges"
    ]
    line_id = next(one["id"] for one in edge["node"]["lines"] if one["code"] == "tokens")
    query = """
    query($id: ID!, $after: String) { node(id: $id) { ... on InvoiceLine {
      sourceEvents(first: 2, after: $after) {
        edges { node { idempotencyKey occurredAt customer { name } cost costCurrency } }
        pageInfo { hasNextPage endCursor }
      }
    } } }
    """
    seen, after, more = [], None, True
    while more:
        page = (await graphql(query, id=line_id, after=after))["node"]["sourceEvents"]
        seen += [one["node"] for one in page["edges"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert [event["idempotencyKey"] for event in seen] == [f"2026-10-{n}" for n in range(5)]
    assert seen[0]["occurredAt"] == "2026-10-10T00:00:00.000001Z"
    assert {event["customer"]["name"] for event in seen} == {"Acme"}
    assert [Decimal(event["cost"]) for event in seen] == [
        Decimal(cost) for cost in ("0.002", "0.008", "1", "0.5", "0.5")
    ]
    assert {event["costCurrency"] for event in seen} == {"USD"}


@pytest.mark.parametrize(
    "place",
    [
        ("0001-01-01T00:00:00+00:00", "0" * 32),
        ("2026-10-10T00:00:00", "0" * 32),
        ("2026-10-10T00:00:00+00:00", "x"),
        ("2026-10-10T00:00:00+00:00",),
        ("now", "0" * 32),
    ],
)
async def test_a_forged_place_among_source_events_is_refused(
    graphql: GraphQL, billed: Shop, client: httpx2.AsyncClient, place: tuple[str, ...]
) -> None:
    query = (
        "query($after: String) { invoices { edges { node { lines { "
        "sourceEvents(first: 1, after: $after) { edges { cursor } } } } } } }"
    )
    assert len((await graphql(query))["invoices"]["edges"]) == 1
    asked = {"query": query, "variables": {"after": cursor_at(*place)}}
    answer = (await client.post("/graphql", json=asked)).json()
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"BAD_CURSOR"}


async def test_a_wallet_shows_its_balance_and_grants(graphql: GraphQL, billed: Shop) -> None:
    query = """
    query($id: ID!) { customer(id: $id) {
      wallets { id currency balance grants { edges { node { amount priority expiresAt } } } }
    } }
    """
    [wallet] = (await graphql(query, id=billed.customer_id))["customer"]["wallets"]
    assert (wallet["id"], wallet["currency"]) == (billed.wallet_id, "USD")
    assert Decimal(wallet["balance"]) == 0
    [grant] = wallet["grants"]["edges"]
    assert grant["node"] == {"amount": "5.00", "priority": 50, "expiresAt": None}
    await made(graphql, "grantCredit", walletId=billed.wallet_id, amount="2.50", reference="gift")
    again = await change(
        graphql, "grantCredit", walletId=billed.wallet_id, amount="2.50", reference="gift"
    )
    assert again["__typename"] == "ConflictProblem"
    [wallet] = (await graphql(query, id=billed.customer_id))["customer"]["wallets"]
    assert Decimal(wallet["balance"]) == Decimal("2.5")


async def test_the_tax_engine_in_force_is_shown(graphql: GraphQL) -> None:
    query = "{ taxSettings { engine settings } }"
    assert (await graphql(query))["taxSettings"] is None
    for given, typename in (
        ({"engine": "nothing", "settings": {}}, "NotFoundProblem"),
        ({"engine": "manual", "settings": []}, "InvalidProblem"),
        ({"engine": "manual", "settings": {"rates": [{"name": "x", "rate": 0.5}]}}, "TaxSettings"),
        ({"engine": "manual", "settings": {"nothing": 1}}, "InvalidProblem"),
    ):
        assert (await change(graphql, "setTaxEngine", **given))["__typename"] == typename
    assert (await graphql(query))["taxSettings"]["engine"] == "manual"


async def test_the_revenue_summary_agrees_with_the_invoices(graphql: GraphQL, billed: Shop) -> None:
    query = """
    query($period: PeriodInput!) { revenueSummary(period: $period) {
      currency asOf invoicedRevenue expectedRevenue cogs margin unattributedCogs uncostedEvents
      outstanding mrr arr activeSubscriptions activeCustomers arpu
    } }
    """
    data = await graphql(query, period=OCTOBER)
    [row] = data["revenueSummary"]
    assert (row["currency"], row["asOf"]) == ("USD", "2026-11-20T12:00:00Z")
    figures = {"invoicedRevenue": "18.91", "cogs": "2.01", "outstanding": "15.80", "mrr": "18.00"}
    assert {name: Decimal(row[name]) for name in figures} == {
        name: Decimal(number) for name, number in figures.items()
    }
    assert (row["activeSubscriptions"], row["activeCustomers"]) == (1, 1)


async def test_an_invoice_says_how_many_of_its_events_have_an_unknown_cost(
    graphql: GraphQL,
    runtime: Runtime,
    tenant_id: TenantId,
    send: Send,
    run_jobs: RunJobs,
    clock: MovableClock,
) -> None:
    await open_shop(runtime, tenant_id, unit_cost=None)
    await send(call("5"), call("7"))
    clock.move_to(datetime(2026, 12, 2, tzinfo=UTC))
    await run_jobs()
    document = "{ invoices { edges { node { state cogs uncostedEvents } } } }"
    [edge] = (await graphql(document))["invoices"]["edges"]
    assert edge["node"] == {"state": "FINALIZED", "cogs": "0", "uncostedEvents": 2}
