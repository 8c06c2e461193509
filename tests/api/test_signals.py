"""Signals and actions through the API, read and followed live; the components behind them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from aforo.api import ide
from aforo.api.app import create_app
from aforo.api.protocol.documents import Documents, Request
from aforo.api.schema import schema
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import GraphQL
from tests.api.server import Socket, serving, socket_to
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

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


async def test_a_threshold_of_ones_own_decides_for_one_customer(
    graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    document = """
    mutation($input: SetDetectorSettingsInput!) { setDetectorSettings(input: $input) {
      __typename
      ... on DetectorSettings { detector settings }
      ... on Problem { code field }
    } }
    """
    lenient = {
        "detector": "margin_guard",
        "settings": {"l3": "-990", "l2": "-995", "l1": "-1000"},
        "customerId": shop.customer_id,
    }
    chosen = (await graphql(document, input=lenient))["setDetectorSettings"]
    assert chosen["settings"] == lenient["settings"]
    for wrong, problem, field in (
        ({"detector": "nobody"}, "NotFoundProblem", "detector"),
        ({"settings": {"l3": "-2000"}}, "InvalidProblem", "settings.l2"),
        ({"settings": []}, "InvalidProblem", "settings"),
        ({"customerId": shop.meter_id}, "InvalidProblem", "customerId"),
    ):
        refused = (await graphql(document, input=lenient | wrong))["setDetectorSettings"]
        assert (refused["__typename"], refused["field"]) == (problem, field)
    await send(call(1, 10_000, month="2026-11"))
    await run_jobs()
    assert (await graphql(SIGNALS))["signals"]["edges"] == []
