"""From a catalogue to invoices, signals and actions, all of it through the API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from aforo.api import ide, relay
from aforo.api.app import create_app
from aforo.api.documents import Documents, Request
from aforo.api.schema import schema
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL, change, line, made, meter, plan
from tests.api.server import Socket, serving, socket_to

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]


class Shop:
    """What the tenant sells, and to whom."""

    def __init__(self, graphql: GraphQL) -> None:
        self._graphql = graphql
        self.meter_id = self.customer_id = self.wallet_id = self.subscription_id = ""

    async def open(self) -> "Shop":
        graphql = self._graphql
        self.meter_id = await made(graphql, "createMeter", **meter(unit="token"))
        await made(
            graphql,
            "createCostRate",
            meterId=self.meter_id,
            unitCost="0.02",
            currency="USD",
            effectiveFrom="2026-10-01T00:00:00Z",
        )
        fee = {"code": "fee", "name": "Fee", "model": "FLAT", "settings": {"fee": "20"}}
        plan_id = await made(graphql, "createRatePlan", **plan(fee, line(self.meter_id)))
        product_id = await made(graphql, "createProduct", code="llm", name="LLM")
        offering_id = await made(
            graphql,
            "createOffering",
            code="pro",
            name="Pro",
            productId=product_id,
            ratePlanId=plan_id,
        )
        discount_id = await made(
            graphql, "createDiscount", code="ten", name="Ten", kind="PERCENTAGE", rate="0.1"
        )
        rates = [{"name": "Sales tax", "rate": "0.10"}]
        await made(graphql, "setTaxEngine", engine="manual", settings={"rates": rates})
        self.customer_id = await made(
            graphql, "createCustomer", externalId="acme", name="Acme", currency="USD"
        )
        self.wallet_id = await made(
            graphql, "createWallet", customerId=self.customer_id, currency="USD"
        )
        await made(graphql, "grantCredit", walletId=self.wallet_id, amount="5.00")
        self.subscription_id = await made(
            graphql,
            "createSubscription",
            customerId=self.customer_id,
            offeringId=offering_id,
            startsAt="2026-10-01T00:00:00Z",
            anchorDay=1,
            graceSeconds=0,
            billingMode="HYBRID",
            discountIds=[discount_id],
        )
        return self


def call(number: int, tokens: object, *, month: str = "2026-10", **more: Any) -> dict[str, Any]:
    return {
        "idempotencyKey": f"{month}-{number}",
        "type": "llm.request",
        "customer": "acme",
        "occurredAt": f"{month}-{10 + number % 10:02}T{number % 24:02}:00:00.000001Z",
        "properties": {"tokens": tokens, "model": "small", **more},
    }


@pytest.fixture
async def shop(graphql: GraphQL) -> Shop:
    return await Shop(graphql).open()


@pytest.fixture
async def billed(graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs) -> Shop:
    """October is billed: five calls of 100.5 tokens in all."""
    sizes = ["0.1", 0.4, 50, "25", 25.0]
    answer = await send(*(call(number, tokens) for number, tokens in enumerate(sizes)))
    assert answer["accepted"] == 5, answer
    await run_jobs()
    run = await change(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
    assert run["__typename"] == "BillRun"
    await run_jobs()
    query = "query($id: ID!) { node(id: $id) { ... on BillRun { state invoices parked failure } } }"
    done = await graphql(query, id=run["id"])
    assert done["node"] == {"state": "DONE", "invoices": 1, "parked": 0, "failure": None}
    return shop


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
    asked = {"query": query, "variables": {"after": relay.cursor_at(*place)}}
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


USAGE = """
query($meterId: ID, $meterCode: String, $customerId: ID, $period: PeriodInput,
      $bucket: Bucket! = DAY, $zone: String! = "UTC") {
  usage(meterId: $meterId, meterCode: $meterCode, customerId: $customerId, period: $period,
        bucket: $bucket, timeZone: $zone) { start quantity events }
}
"""
OCTOBER = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}


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


SIGNALS = """
query($customerId: ID, $detector: String) {
  signals(customerId: $customerId, detector: $detector) { edges { node {
    id detector level threshold value limit numbers explanation eventIds eventCount settings
    periodStart periodEnd customer { id }
  } } }
}
"""
ACTIONS = """
query($customerId: ID, $signalId: ID) {
  actions(customerId: $customerId, signalId: $signalId) { edges { node {
    id tier mode state actor reason eventIds configuration before after result
    signal { id } customer { id }
  } } }
}
"""


async def test_a_loss_becomes_a_signal_and_shadow_actions(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send(call(1, 10_000, month="2026-11"))
    await run_jobs()
    [signal] = [edge["node"] for edge in (await graphql(SIGNALS))["signals"]["edges"]]
    assert (signal["detector"], signal["level"]) == ("margin_guard", "BLOCK")
    assert Decimal(signal["value"]) < 0
    assert signal["customer"] == {"id": shop.customer_id}
    assert (len(signal["eventIds"]), signal["eventCount"]) == (1, 1)
    actions = [edge["node"] for edge in (await graphql(ACTIONS))["actions"]["edges"]]
    assert {action["tier"] for action in actions} == {"ALERT", "THROTTLE", "BLOCK"}
    for action in actions:
        assert action["mode"] == "SHADOW"
        assert action["signal"] == {"id": signal["id"]}
        assert action["customer"] == {"id": shop.customer_id}
        assert action["eventIds"] == signal["eventIds"]
    for wanted, count in (
        ({"customerId": shop.customer_id}, 1),
        ({"detector": "margin_guard"}, 1),
        ({"detector": "other"}, 0),
    ):
        assert len((await graphql(SIGNALS, **wanted))["signals"]["edges"]) == count
    of_signal = await graphql(ACTIONS, signalId=signal["id"], customerId=shop.customer_id)
    assert len(of_signal["actions"]["edges"]) == 3


async def test_the_revenue_summary_agrees_with_the_invoices(graphql: GraphQL, billed: Shop) -> None:
    query = """
    query($from: DateTime!, $to: DateTime!) { revenueSummary(from: $from, to: $to) {
      currency asOf invoicedRevenue expectedRevenue cogs margin unattributedCogs uncostedEvents
      outstanding mrr arr activeSubscriptions activeCustomers arpu
    } }
    """
    data = await graphql(query, **{"from": OCTOBER["start"], "to": OCTOBER["end"]})
    [row] = data["revenueSummary"]
    assert (row["currency"], row["asOf"]) == ("USD", "2026-11-20T12:00:00Z")
    figures = {"invoicedRevenue": "18.91", "cogs": "2.01", "outstanding": "15.80", "mrr": "18.00"}
    assert {name: Decimal(row[name]) for name in figures} == {
        name: Decimal(number) for name, number in figures.items()
    }
    assert (row["activeSubscriptions"], row["activeCustomers"]) == (1, 1)


async def test_the_components_are_listed_with_their_forms(graphql: GraphQL) -> None:
    data = await graphql(
        "{ pricingModels { key summary settingsForm distribution needsMeter } "
        "taxEngines { key settingsForm } detectors { key settingsForm } }"
    )
    models = {model["key"]: model for model in data["pricingModels"]}
    assert models.keys() >= {"FLAT", "PER_UNIT", "GRADUATED", "VOLUME", "PERCENTAGE", "QUOTA"}
    assert models["FLAT"]["needsMeter"] is False
    assert models["PER_UNIT"]["settingsForm"]["properties"]["unitPrice"]["type"] == "string"
    assert models["PER_UNIT"]["distribution"] == "aforo-standard"
    assert [engine["key"] for engine in data["taxEngines"]] == ["manual"]
    assert "margin_guard" in [detector["key"] for detector in data["detectors"]]


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


@pytest.mark.parametrize("number", range(len(ide.TABS)))
async def test_a_ready_query_of_the_page_is_valid(number: int) -> None:
    Documents(schema, introspection=True).prepare(Request(ide.ready_queries()[number], {}, None))


@pytest.fixture
async def socket(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[Socket]:
    async with (
        serving(create_app(runtime)) as port,
        socket_to(port, token=tenant.key.token) as opened,
    ):
        yield await opened.initialise()


async def test_events_signals_and_actions_are_followed_live(
    socket: Socket, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await socket.subscribe("subscription { events { idempotencyKey properties } }", id_="events")
    await socket.subscribe(
        "subscription($id: ID) { signals(customerId: $id) { level customer { name } } }",
        id_="signals",
        id=shop.customer_id,
    )
    await socket.subscribe("subscription { actions { tier signal { level } } }", id_="actions")
    # Nothing tells when a stream has begun, so events are sent until the first is seen.
    seen: dict[str, list[Any]] = {"events": [], "signals": [], "actions": []}
    for number in range(1, 100):
        await send(call(number, 10_000, month="2026-11"))
        await run_jobs()
        try:
            async with asyncio.timeout(0.3):
                while not all(seen.values()):
                    message = await socket.receive()
                    assert message["type"] == "next", message
                    assert "errors" not in message["payload"], message
                    seen[message["id"]].append(message["payload"]["data"][message["id"]])
                break
        except TimeoutError:
            continue
    assert seen["events"][0]["properties"] == {"tokens": 10_000, "model": "small"}
    assert seen["signals"][0]["customer"] == {"name": "Acme"}
    assert seen["actions"][0]["signal"]["level"] in {"ALERT", "THROTTLE", "BLOCK"}
