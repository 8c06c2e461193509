"""What a tenant chooses of the plugins: how it is paid, who tells of signals, who explains."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from aforo.api.parts.relay import local_id
from aforo.billing import gateways
from aforo.plugins import guard, load_registry
from aforo.sdk import (
    Charge,
    Instruction,
    PaymentGateway,
    PaymentRequest,
    hookimpl,
)
from aforo.sdk.ids import TenantId
from aforo.storage.addresses import Walls
from aforo.storage.egress import Egress
from aforo.storage.scope import Runtime
from tests.api.forms import GraphQL, change, made, problem
from tests.api.shop import Shop
from tests.receivers import Receiver, receiving

RunJobs = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.anyio

BANK = {"payee": "Acme Inc.", "account": "DE89 3704 0044 0532 0130 00", "note": "Within 14 days"}
HOW_TO_PAY = "{ invoices { edges { node { id number paymentInstructions { label text } } } } }"
EXPLAIN = """
query($feature: String!) {
  invoices { edges { node { explanation(feature: $feature) {
    feature answer instructions data
  } } } }
}
"""
SEND = """
mutation($input: SendTestNotificationInput!) {
  sendTestNotification(input: $input) {
    __typename
    ... on TestNotification { contentType body status failure }
    ... on Problem { code message field }
  }
}
"""


async def how_to_pay(graphql: GraphQL) -> Any:
    [edge] = (await graphql(HOW_TO_PAY))["invoices"]["edges"]
    return edge["node"]["paymentInstructions"]


async def test_an_invoice_tells_how_to_pay_what_is_due(graphql: GraphQL, billed: Shop) -> None:
    assert billed.customer_id
    assert await how_to_pay(graphql) is None
    await made(graphql, "setPaymentGateway", gateway="standard.manual", settings=BANK)
    assert [tuple(each.values()) for each in await how_to_pay(graphql)] == [
        ("Payee", "Acme Inc."),
        ("Account", "DE89 3704 0044 0532 0130 00"),
        ("Amount", "15.80 USD"),
        ("Reference", "INV-000001"),
        ("Note", "Within 14 days"),
    ]


async def test_the_gateway_chosen_last_is_in_force(graphql: GraphQL, billed: Shop) -> None:
    assert billed.customer_id
    for payee in ("Before", "After"):
        settings = BANK | {"payee": payee}
        await made(graphql, "setPaymentGateway", gateway="standard.manual", settings=settings)
    assert (await how_to_pay(graphql))[0]["text"] == "After"
    shown = await graphql("{ paymentGatewaySettings { gateway settings } }")
    assert shown["paymentGatewaySettings"] == {
        "gateway": "standard.manual",
        "settings": BANK | {"payee": "After", "bank": None},
    }


@pytest.mark.parametrize(
    ("mutation", "given", "told"),
    [
        (
            "setPaymentGateway",
            {"gateway": "nobody", "settings": {}},
            ("NotFoundProblem", "NOT_FOUND", "gateway"),
        ),
        (
            "setPaymentGateway",
            {"gateway": "standard.manual", "settings": []},
            ("InvalidProblem", "INVALID", "settings"),
        ),
        (
            "setPaymentGateway",
            {"gateway": "standard.manual", "settings": {"payee": "x"}},
            ("InvalidProblem", "INVALID", "settings.account"),
        ),
        (
            "setPaymentGateway",
            {"gateway": "standard.manual", "settings": {"payee": "x", "account": "y\nz"}},
            ("InvalidProblem", "INVALID", "settings.account"),
        ),
        (
            "setNotifier",
            {"notifier": "nobody", "settings": {}},
            ("NotFoundProblem", "NOT_FOUND", "notifier"),
        ),
        (
            "setNotifier",
            {"notifier": "standard.chat", "settings": {"showNumbers": "maybe"}},
            ("InvalidProblem", "INVALID", "settings.showNumbers"),
        ),
    ],
)
async def test_wrong_choices_are_refused_and_change_nothing(
    graphql: GraphQL, mutation: str, given: dict[str, Any], told: tuple[str, str, str]
) -> None:
    assert problem(await change(graphql, mutation, **given)) == told
    query = "{ paymentGatewaySettings { gateway } notifierSettings { edges { cursor } } }"
    empty = {"paymentGatewaySettings": None, "notifierSettings": {"edges": []}}
    assert await graphql(query) == empty


class Odd(PaymentGateway):
    """Tells whatever a test puts in the place of its instructions."""

    key = "acme.odd"
    summary = "For tests"

    async def charge(self, request: PaymentRequest) -> Charge:
        raise NotImplementedError

    async def find(self, request: PaymentRequest) -> Charge | None:
        raise NotImplementedError


class Acme:
    """A plugin, handed over in code."""

    @hookimpl
    def register_payment_gateways(self) -> list[type[PaymentGateway]]:
        return [Odd]


def spin(*_: object) -> Any:
    while True:
        pass


def explode(*_: object) -> Any:
    raise SystemExit("no licence")


@pytest.mark.parametrize(
    "answer",
    [
        explode,
        spin,
        lambda *_: "pay at once",
        lambda *_: ["pay"],
        lambda *_: [Instruction("Pay", "a\nb")],
        lambda *_: [Instruction("", "x")],
        lambda *_: [Instruction("Pay", "here")] * 51,
    ],
    ids=["raises", "spins", "text", "texts", "lines", "empty", "many"],
)
async def test_a_gateway_that_fails_tells_nothing_and_the_invoice_is_read(
    runtime: Runtime,
    tenant_id: TenantId,
    billed: Shop,
    graphql: GraphQL,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[..., Any],
) -> None:
    assert billed.customer_id
    monkeypatch.setattr(Odd, "instructions", answer)
    monkeypatch.setattr(guard, "COMPUTING_SECONDS_MAX", 0.2)
    plugged = dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))
    [edge] = (await graphql("{ invoices { edges { node { id } } } }"))["invoices"]["edges"]
    invoice_id = local_id("Invoice", edge["node"]["id"], field="id")
    async with plugged.scope(tenant_id) as scope:
        await gateways.set_payment_gateway(scope, gateway="acme.odd", settings={})
    async with plugged.scope(tenant_id) as scope:
        assert await gateways.instructions_by_invoice(scope, [invoice_id]) == {}
    # And where the plugin is gone altogether:
    assert await how_to_pay(graphql) is None


async def test_an_invoice_is_explained_from_its_own_numbers(graphql: GraphQL, billed: Shop) -> None:
    assert billed.customer_id
    data = await graphql(EXPLAIN, feature="standard.explain_invoice")
    [edge] = data["invoices"]["edges"]
    said = edge["node"]["explanation"]
    assert said["answer"].startswith(
        "Invoice INV-000001 is for 1 October 2026 to 31 October 2026, for "
    )
    assert said["answer"].endswith(
        "Tax: 1.89 USD. The total is 20.80 USD; the wallet pays 5.00 USD; 15.80 USD is left to pay."
    )
    assert said["data"]["number"] == "INV-000001"
    assert Decimal(said["data"]["amount_due"]) == Decimal("15.80")
    assert said["data"]["customer_name"] not in said["instructions"]


async def test_a_feature_that_is_not_there_is_named_with_those_that_are(
    client: Any, billed: Shop
) -> None:
    assert billed.customer_id
    variables = {"feature": "nobody"}
    answer = await client.post("/graphql", json={"query": EXPLAIN, "variables": variables})
    [error] = answer.json()["errors"]
    assert error["message"] == (
        "there is no AI feature 'nobody' about invoices; there are: standard.explain_invoice"
    )
    assert error["extensions"]["code"] == "NOT_FOUND"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """One whose calls may reach a receiver on loopback."""
    return dataclasses.replace(runtime, egress=Egress(Walls(allow_loopback=True)))


async def test_a_notifier_is_tried_out_at_a_real_receiver(
    graphql: GraphQL, receiver: Receiver
) -> None:
    await change(graphql, "setNotifier", notifier="standard.chat", settings={"prefix": "[ops]"})
    given = {"notifier": "standard.chat", "url": receiver.url("/hook")}
    sent = (await graphql(SEND, input=given))["sendTestNotification"]
    assert (sent["__typename"], sent["status"], sent["failure"]) == ("TestNotification", 200, None)
    [heard] = receiver.heard
    assert (heard.method, heard.target) == ("POST", "/hook")
    assert heard.headers["content-type"] == "application/json"
    assert heard.body.decode() == sent["body"]
    assert '"text": "[ops] ⚠️ *A test of this notifier* — Example &amp; Sons' in sent["body"]


@pytest.mark.parametrize(
    ("notifier", "url", "told"),
    [
        ("standard.chat", "http://10.0.0.1/", ("InvalidProblem", "URL_NOT_ALLOWED", "url")),
        ("standard.chat", "file:///etc/passwd", ("InvalidProblem", "URL_NOT_ALLOWED", "url")),
        ("standard.chat", "https://" + "a" * 2000, ("InvalidProblem", "INVALID", "url")),
        ("nobody", "https://example.com/", ("NotFoundProblem", "NOT_FOUND", "notifier")),
    ],
)
async def test_what_may_not_be_sent_is_refused(
    graphql: GraphQL, notifier: str, url: str, told: tuple[str, str, str]
) -> None:
    await change(graphql, "setNotifier", notifier="standard.chat", settings={})
    sent = (await graphql(SEND, input={"notifier": notifier, "url": url}))["sendTestNotification"]
    assert problem(sent) == told


async def test_a_receiver_that_is_gone_is_told(graphql: GraphQL) -> None:
    await change(graphql, "setNotifier", notifier="standard.chat", settings={})
    async with receiving() as gone:
        url = gone.url("/hook")
    given = {"notifier": "standard.chat", "url": url}
    sent = (await graphql(SEND, input=given))["sendTestNotification"]
    assert sent["status"] is None
    assert sent["failure"]


async def test_the_latest_settings_of_a_notifier_count(graphql: GraphQL) -> None:
    for enabled in (True, False):
        await change(graphql, "setNotifier", notifier="standard.chat", enabled=enabled, settings={})
    query = "{ notifierSettings { edges { node { notifier enabled settings } } } }"
    [edge] = (await graphql(query))["notifierSettings"]["edges"]
    assert edge["node"] == {
        "notifier": "standard.chat",
        "enabled": False,
        "settings": {"showNumbers": True, "prefix": None},
    }


async def test_what_can_be_chosen_is_listed_with_its_form(graphql: GraphQL) -> None:
    listed = await graphql(
        "{ paymentGateways { key settingsForm } notifiers { key } aiFeatures { key } }"
    )
    [manual] = listed["paymentGateways"]
    assert manual["key"] == "standard.manual"
    assert manual["settingsForm"]["examples"][0]["payee"] == "Acme Inc."
    assert listed["notifiers"] == [{"key": "standard.chat"}]
    assert listed["aiFeatures"] == [{"key": "standard.explain_invoice"}]
