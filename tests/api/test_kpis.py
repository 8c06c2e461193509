"""Invoices and key figures as they change, through the API."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest

from aforo.api.parts import relay
from aforo.api.types import kpis
from tests.api.forms import GraphQL, change
from tests.api.listening import Frame, listening, wait_for
from tests.api.shop import Shop, call

pytestmark = pytest.mark.anyio

Send = Callable[..., Awaitable[dict[str, Any]]]
RunJobs = Callable[[], Awaitable[None]]

INVOICES = """
subscription($customerId: ID, $state: InvoiceState) {
  invoices(customerId: $customerId, state: $state) {
    id state total customer { id } lines { amount }
  }
}
"""


async def test_invoices_are_followed_from_draft_to_final(
    listener: httpx2.AsyncClient, graphql: GraphQL, shop: Shop, send: Send, run_jobs: RunJobs
) -> None:
    await send(call(1, 100))
    await run_jobs()
    async with (
        listening(listener, INVOICES, customerId=shop.customer_id) as mine,
        listening(listener, INVOICES, state="FINALIZED") as final,
        listening(
            listener, INVOICES, customerId=relay.global_id("Customer", UUID(int=1))
        ) as nobody,
    ):
        for reader in (mine, final, nobody):
            await reader.opened()
        beginning = nobody.cursor
        await change(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
        await run_jobs()
        invoice = (await final.next())["data"]["invoices"]
        assert invoice["state"] == "FINALIZED"
        assert invoice["customer"] == {"id": shop.customer_id}
        assert invoice["lines"]
        while (told := (await mine.next())["data"]["invoices"])["state"] != "FINALIZED":
            pass
        assert told == invoice
        assert nobody.cursor == beginning


KPIS = """
subscription($period: PeriodInput, $after: String) {
  kpis(period: $period, after: $after) {
    asOf periodStart periodEnd revenue { currency asOf invoicedRevenue activeSubscriptions mrr }
  }
}
"""


async def test_key_figures_come_at_once_and_again_when_they_have_changed(
    listener: httpx2.AsyncClient,
    graphql: GraphQL,
    shop: Shop,
    send: Send,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kpis, "PAUSE_SECONDS", 0.1)
    period = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
    async with listening(listener, KPIS, period=period) as reader:
        first = (await reader.next())["data"]["kpis"]
        assert (first["periodStart"], first["periodEnd"]) == (period["start"], period["end"])
        [row] = first["revenue"]
        assert (row["currency"], row["invoicedRevenue"]) == ("USD", "0.00")
        assert first["asOf"] == row["asOf"] == "2026-11-20T12:00:00Z"
        await send(call(1, 100))
        await run_jobs()
        await change(graphql, "startBillRun", until="2026-11-20T12:00:00Z")
        await run_jobs()
        while row["invoicedRevenue"] == "0.00":
            [row] = (await reader.next())["data"]["kpis"]["revenue"]
        cursor = reader.cursor
    query = """query($period: PeriodInput!) { revenueSummary(period: $period) {
        currency asOf invoicedRevenue activeSubscriptions mrr } }"""
    assert (await graphql(query, period=period))["revenueSummary"] == [row]
    async with listening(listener, KPIS, period=period, after=cursor) as reader:
        await reader.opened()
        await send(call(2, 100))
        await run_jobs()
        assert (await reader.next())["data"]["kpis"]["revenue"] == [row]


async def test_key_figures_are_worked_out_once_for_all_who_watch_them(
    listener: httpx2.AsyncClient,
    send: Send,
    shop: Shop,
    run_jobs: RunJobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kpis, "PAUSE_SECONDS", 0.3)
    looks: list[None] = []
    summary = kpis.queries.revenue_summary

    async def counted(*given: Any, **named: Any) -> Any:
        looks.append(None)
        return await summary(*given, **named)

    monkeypatch.setattr(kpis.queries, "revenue_summary", counted)
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(_figures(listener, 2)) for _ in range(30)]
        await wait_for(lambda: bool(looks))
        for number in range(5):
            await send(call(number, 100))
            await run_jobs()
    results = [task.result() for task in watching]
    assert all(len(result) == 2 for result in results)
    assert 2 <= len(looks) < 10


async def _figures(listener: httpx2.AsyncClient, count: int) -> list[Frame]:
    async with listening(listener, KPIS) as reader:
        return [await reader.next() for _ in range(count)]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"period": dict.fromkeys(("start", "end"), "2026-10-01T00:00:00Z")}, "BAD_PERIOD"),
        ({"after": "x"}, "BAD_CURSOR"),
    ],
)
async def test_a_period_or_cursor_that_is_none_is_refused(
    listener: httpx2.AsyncClient, given: dict[str, Any], code: str
) -> None:
    async with listening(listener, KPIS, **given) as reader:
        [error] = (await reader.next())["errors"]
        assert error["extensions"]["code"] == code
