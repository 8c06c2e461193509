"""What the ladder records about a signal while it runs in shadow, on real engines."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from pydantic import StrictBool
from sqlalchemy.exc import ProgrammingError

from aforo import worker
from aforo.actions import queries
from aforo.actions.commands import act_on_signal, set_notifier
from aforo.actions.models import ActionMode, ActionState, OrchestrationAction
from aforo.metering.queries import watermark
from aforo.plugins import load_registry
from aforo.sdk import Level, Message, NotFound, Notification, Notifier, hookimpl
from aforo.sdk.ids import TenantId
from aforo.signals import queries as signals
from aforo.signals.commands import detect
from aforo.signals.models import Signal
from aforo.storage.clock import MovableClock
from aforo.storage.live_log import START
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import end_subscription
from aforo.tenants.commands import create_tenant
from tests.shop import call, open_shop

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
Run = Callable[[], Awaitable[None]]


async def actions_of(runtime: Runtime, tenant_id: TenantId) -> list[OrchestrationAction]:
    """All actions, the oldest first."""
    async with runtime.scope(tenant_id) as scope:
        return (await queries.actions().page(scope, first=100))[::-1]


async def fire(runtime: Runtime, tenant_id: TenantId, customer_ids: Sequence[UUID]) -> list[Signal]:
    """Seal and look, without running the jobs that act."""
    await worker.seal_all(runtime)
    async with runtime.scope(tenant_id) as scope:
        return await detect(scope, customer_ids, await watermark(scope))


async def act(runtime: Runtime, tenant_id: TenantId, signal: Signal) -> list[OrchestrationAction]:
    """Run the ladder in a transaction of its own."""
    async with runtime.scope(tenant_id) as scope:
        return await act_on_signal(scope, signal.id)


async def test_a_block_leaves_three_rows_that_say_who_what_and_why(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    await run_jobs()

    async with runtime.scope(tenant_id) as scope:
        (signal,) = await signals.signals().page(scope, first=10)
    rows = await actions_of(runtime, tenant_id)
    assert [row.tier for row in rows] == [Level.ALERT, Level.THROTTLE, Level.BLOCK]
    assert {row.signal_id for row in rows} == {signal.id}
    assert {row.customer_id for row in rows} == {shop.customers["acme"]}
    assert {(row.mode, row.state, row.actor) for row in rows} == {
        (ActionMode.SHADOW, ActionState.STANDBY, "ladder")
    }
    assert {row.reason for row in rows} == {f"L1 of margin_guard: {signal.explanation}"}
    assert all(row.event_ids == signal.event_ids for row in rows)
    assert all(row.result.startswith("shadow: would have ") for row in rows)

    subscription = str(shop.subscriptions["acme"])
    assert [(row.before, row.after) for row in rows] == [
        ({"alerted": []}, {"alerted": ["portal"], "messages": []}),
        (
            {"throttle": None},
            {"throttle": {"percent": 50, "until": "2026-12-01T00:00:00+00:00"}},
        ),
        (
            {"subscriptions": {subscription: "ACTIVE"}},
            {"subscriptions": {subscription: "SUSPENDED"}},
        ),
    ]
    assert rows[0].configuration == {
        "detector": "margin_guard",
        "settings": signal.settings,
        "modes": {"ALERT": "SHADOW", "THROTTLE": "SHADOW", "BLOCK": "SHADOW"},
        "stalenessLimitSeconds": 900,
        "blocksPerHourMax": 10,
        "throttlePercent": 50,
        "dataAgeSeconds": 0,
        "blocksLastHour": 0,
        "watermark": signal.watermark,
    }


class Postcard(Notifier):
    """By mail, and in bad weather not at all."""

    key = "acme.postcard"
    summary = "For tests"

    fails: StrictBool = False

    def compose(self, notification: Notification) -> Message:
        if self.fails:
            raise RuntimeError("the post office is closed")
        numbers = f"{notification.numbers['cogs']} of {notification.numbers['revenue']}"
        text = f"{notification.title}: {notification.customer_name} {numbers}"
        return Message(content_type="text/plain", body=text)


class Split(Postcard):
    """Would break a header in two."""

    key = "acme.split"

    def compose(self, notification: Notification) -> Message:  # noqa: ARG002
        return Message(content_type="text/plain\r\nX-Own: 1", body="x")


class Acme:
    """A plugin, handed over in code."""

    @hookimpl
    def register_notifiers(self) -> list[type[Notifier]]:
        return [Postcard, Split]


async def test_an_alert_holds_what_each_notifier_would_have_sent_and_who_failed(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    runtime = dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))
    shop = await open_shop(runtime, tenant_id)
    async with runtime.scope(tenant_id) as scope:
        await set_notifier(scope, notifier="standard.chat", enabled=True, settings={})
        await set_notifier(scope, notifier="acme.postcard", enabled=True, settings={})
        await set_notifier(scope, notifier="acme.split", enabled=True, settings={})
    await send(call(70))
    (signal,) = await fire(runtime, tenant_id, list(shop.customers.values()))
    alert, *others = await act(runtime, tenant_id, signal)
    assert alert.after["alerted"] == ["portal", "acme.postcard", "standard.chat"]
    assert alert.result == (
        "shadow: would have alerted in the portal and by acme.postcard, standard.chat"
    )
    postcard, split, chat = alert.after["messages"]
    assert postcard == {
        "notifier": "acme.postcard",
        "contentType": "text/plain",
        "body": f"L1 of margin_guard: acme {signal.numbers['cogs']} of {signal.numbers['revenue']}",
    }
    assert split == {
        "notifier": "acme.split",
        "failure": "the notifier 'acme.split' gave no content type of printable ASCII, such as "
        "application/json",
    }
    assert chat["contentType"] == "application/json"
    assert json.loads(chat["body"])["text"].startswith("⛔ *L1 of margin_\u200bguard* — acme")
    assert all("messages" not in other.after for other in others)


async def test_a_notifier_that_is_off_or_gone_or_fails_holds_nobody_up(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    plugged = dataclasses.replace(runtime, plugins=load_registry(extra=[Acme()]))
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill"))
    async with plugged.scope(tenant_id) as scope:
        await set_notifier(scope, notifier="standard.chat", enabled=True, settings={})
        await set_notifier(scope, notifier="standard.chat", enabled=False, settings={})
        await set_notifier(scope, notifier="acme.postcard", enabled=True, settings={"fails": True})
    await send(call(70), call(70, customer="brill"))
    fired = await fire(runtime, tenant_id, list(shop.customers.values()))
    failures = {
        "RuntimeError: the post office is closed": await act(plugged, tenant_id, fired[0]),
        "no installed plugin brings the notifier 'acme.postcard'": await act(
            runtime, tenant_id, fired[1]
        ),
    }
    for told, (alert, *_) in failures.items():
        assert alert.after["alerted"] == ["portal"]
        [message] = alert.after["messages"]
        assert told in message["failure"]


async def test_a_milder_signal_reaches_only_the_milder_rungs(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    for units in (55, 5):
        await send(call(units))
        await run_jobs()
    assert [row.tier for row in await actions_of(runtime, tenant_id)] == [
        Level.ALERT,
        Level.ALERT,
        Level.THROTTLE,
    ]


async def test_workers_who_act_at_once_record_each_decision_once(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    (signal,) = await fire(runtime, tenant_id, list(shop.customers.values()))

    recorded = await asyncio.gather(*(act(runtime, tenant_id, signal) for _ in range(6)))
    assert sorted(len(rows) for rows in recorded) == [0, 0, 0, 0, 0, 3]
    assert await act(runtime, tenant_id, signal) == []
    assert len(await actions_of(runtime, tenant_id)) == 3


async def test_data_that_has_grown_old_permits_an_alert_only_and_that_is_recorded(
    runtime: Runtime, tenant_id: TenantId, send: Send, clock: MovableClock
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    (signal,) = await fire(runtime, tenant_id, list(shop.customers.values()))
    clock.advance(timedelta(minutes=15, seconds=1))
    rows = await act(runtime, tenant_id, signal)
    assert [row.after == row.before for row in rows] == [False, True, True]
    assert rows[2].result == (
        "shadow: would not have suspended 1 subscription and notified the customer: the data is "
        "901 s old, more than the limit of 900 s, which permits ALERT only"
    )
    assert rows[2].configuration["dataAgeSeconds"] == 901


async def test_the_blast_radius_stops_the_eleventh_block_within_an_hour(
    runtime: Runtime, tenant_id: TenantId, send: Send, clock: MovableClock
) -> None:
    names = [f"customer-{number}" for number in range(13)]
    shop = await open_shop(runtime, tenant_id, customers=names)
    await send(*(call(70, customer=name) for name in names[:12]))
    fired = await fire(runtime, tenant_id, list(shop.customers.values()))
    assert len(fired) == 12
    await asyncio.gather(*(act(runtime, tenant_id, signal) for signal in fired))

    blocks = [one for one in await actions_of(runtime, tenant_id) if one.tier is Level.BLOCK]
    refused = [one for one in blocks if one.after == one.before]
    assert (len(blocks), len(refused)) == (12, 2)
    assert all(
        one.result.endswith(": 10 blocks in the last hour reach the limit of 10") for one in refused
    )

    clock.advance(timedelta(hours=1))
    await send(call(80, customer=names[12]))
    (later,) = await fire(runtime, tenant_id, [shop.customers[names[12]]])
    rows = await act(runtime, tenant_id, later)
    assert rows[2].after != rows[2].before


async def test_a_customer_without_an_active_subscription_is_alerted_about_only(
    runtime: Runtime, tenant_id: TenantId, send: Send
) -> None:
    shop = await open_shop(runtime, tenant_id)
    await send(call(70))
    (signal,) = await fire(runtime, tenant_id, list(shop.customers.values()))
    async with runtime.scope(tenant_id) as scope:
        await end_subscription(scope, subscription_id=shop.subscriptions["acme"])
    rows = await act(runtime, tenant_id, signal)
    assert [row.after != row.before for row in rows] == [True, False, False]
    assert rows[2].result.endswith(": the customer has no active subscription")


async def test_a_signal_that_is_not_there_is_refused(runtime: Runtime, tenant_id: TenantId) -> None:
    with pytest.raises(NotFound):
        async with runtime.scope(tenant_id) as scope:
            await act_on_signal(scope, UUID(int=1))


async def test_every_decision_is_announced(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    await open_shop(runtime, tenant_id)
    await send(call(70))
    await run_jobs()
    rows = await actions_of(runtime, tenant_id)
    followed = await runtime.live.of(tenant_id).follow("actions", after=START)
    told = [(await anext(followed)).data["id"] for _ in rows]
    followed.close()
    assert sorted(told) == sorted(str(row.id) for row in rows)


@pytest.mark.parametrize(
    "table", ["orchestration_actions", "signal", "detector_settings", "notifier_settings"]
)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET created_at = now()",
        "DELETE FROM {table}",
        "TRUNCATE {table} CASCADE",
        "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        "DROP TABLE {table} CASCADE",
    ],
)
async def test_the_application_cannot_change_or_delete_what_was_recorded(
    runtime: Runtime, tenant_id: TenantId, table: str, statement: str
) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        async with runtime.scope(tenant_id) as scope:
            await scope.db.execute(sa.text(statement.format(table=table)))


async def test_actions_are_read_by_page_by_signal_and_by_id_within_the_tenant(
    runtime: Runtime, tenant_id: TenantId, send: Send, run_jobs: Run
) -> None:
    shop = await open_shop(runtime, tenant_id, customers=("acme", "brill"))
    await send(call(70), call(55, customer="brill"))
    await run_jobs()
    async with runtime.scope(tenant_id) as scope:
        whole = await queries.actions().page(scope, first=100)
        first = await queries.actions().page(scope, first=3)
        rest = await queries.actions().page(scope, first=3, after=first[-1].id)
        of_brill = await queries.actions(customer_id=shop.customers["brill"]).page(scope, first=9)
        of_signal = await queries.actions(signal_id=of_brill[0].signal_id).page(scope, first=9)
        by_signal = {
            each: await queries.actions(signal_id=each).page(scope, first=9)
            for each in {one.signal_id for one in whole}
        }
        by_id = await queries.actions_by_id(scope, [one.id for one in whole])
    assert len(whole) == 4
    assert [one.id for one in first + rest] == [one.id for one in whole]
    assert [one.tier for one in of_brill] == [Level.ALERT]
    assert [one.id for one in of_signal] == [one.id for one in of_brill]
    assert sorted(len(rows) for rows in by_signal.values()) == [1, 3]
    assert set(by_id) == {one.id for one in whole}

    other = await create_tenant(runtime, name="Other")
    async with runtime.scope(TenantId(other.tenant.tenant_id)) as scope:
        assert await queries.actions().page(scope, first=9) == []
        for each in by_signal:
            assert await queries.actions(signal_id=each).page(scope, first=9) == []
        assert await queries.actions_by_id(scope, set(by_id)) == {}
        assert await queries.blocks_since(scope, datetime.min.replace(tzinfo=scope.now.tzinfo)) == 0
        assert await queries.data_age(scope, whole[0].configuration["watermark"]) is None
        with pytest.raises(NotFound):
            await act_on_signal(scope, whole[0].signal_id)
