"""Conservation of units: whatever is sent, billed and sent late, all that is counted is known."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from aforo.billing import units
from aforo.billing.commands import start_bill_run
from aforo.billing.units import UnitBalance
from aforo.catalog import commands as catalog_commands
from aforo.catalog.models import Aggregation, EntitlementKind, Meter, QuotaPolicy
from aforo.catalog.quota_terms import QuotaTerms
from aforo.metering.commands import ingest
from aforo.sdk import Invalid, Period, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.subscriptions.commands import create_customer, create_subscription
from aforo.tenants.commands import create_tenant
from aforo.worker import drain, seal_all
from tests.api.forms import GraphQL
from tests.billing.trade import NOVEMBER, OCTOBER
from tests.conftest import NOW

MONTH = Period(OCTOBER, NOVEMBER)
METERS: Mapping[str, tuple[Aggregation, str | None]] = {
    "tokens": (Aggregation.SUM, "tokens"),
    "calls": (Aggregation.COUNT, None),
    "peak": (Aggregation.MAX, "tokens"),
    "models": (Aggregation.UNIQUE, "model"),
    "last": (Aggregation.LATEST, "tokens"),
    "unsold": (Aggregation.COUNT, None),
}
_KEYS = count()


class Store:
    """A tenant that sells five meters: to `a` with final invoices from the first of the month on,
    to `b` from the 10th on, to `slow` with drafts for 30 days."""

    def __init__(
        self, runtime: Runtime, tenant_id: TenantId, *, quota: Decimal | None = None
    ) -> None:
        self.runtime, self.tenant_id = runtime, tenant_id
        self.quota = quota
        """Of tokens, which blocks what is beyond it."""
        self.meters: dict[str, Meter] = {}
        self.keys: list[str] = []
        """Of the events that were sent."""

    async def open(self) -> "Store":
        async with self.runtime.scope(self.tenant_id) as scope:
            for code, (aggregation, name) in METERS.items():
                self.meters[code] = await catalog_commands.create_meter(
                    scope,
                    code=code,
                    name=code,
                    event_type="call",
                    aggregation=aggregation,
                    property_name=name,
                )
            lines = [self._line(code) for code in METERS if code != "unsold"]
            plan = await catalog_commands.create_rate_plan(
                scope, code="plan", name="Plan", currency="USD", lines=lines
            )
            product = await catalog_commands.create_product(scope, code="p", name="P")
            granted = []
            if self.quota is not None:
                cap = await catalog_commands.create_entitlement(
                    scope,
                    code="cap",
                    name="Cap",
                    kind=EntitlementKind.QUOTA,
                    meter_id=self.meters["tokens"].id,
                    quota=self.quota,
                    terms=QuotaTerms(policy=QuotaPolicy.BLOCK),
                )
                granted.append(cap.id)
            offering = await catalog_commands.create_offering(
                scope,
                code="o",
                name="O",
                product_id=product.id,
                rate_plan_id=plan.id,
                entitlement_ids=granted,
            )
            for name, anchor, grace in (("a", 1, 0), ("b", 10, 0), ("slow", 1, 30 * 86_400)):
                customer = await create_customer(scope, external_id=name, name=name, currency="USD")
                await create_subscription(
                    scope,
                    customer_id=customer.id,
                    offering_id=offering.id,
                    starts_at=OCTOBER,
                    anchor_day=anchor,
                    grace_seconds=grace,
                )
        return self

    def _line(self, code: str) -> catalog_commands.NewLine:
        quota = {"included": "10", "overageUnitPrice": "0.01"}
        model, prices = ("QUOTA", quota) if code == "tokens" else ("PER_UNIT", {"unitPrice": "1"})
        return catalog_commands.NewLine(
            code=code, name=code, model=model, settings=prices, meter_id=self.meters[code].id
        )

    async def send(self, *sent: tuple[str, int, int]) -> None:
        """Events of a customer, a day of October and November, and a number of tokens."""
        events: list[dict[str, Any]] = [
            {
                "idempotencyKey": f"k{next(_KEYS)}",
                "type": "call",
                "customer": customer,
                "occurredAt": (OCTOBER + timedelta(days=day - 1, hours=1)).isoformat(),
                "properties": {"tokens": tokens, "model": f"m{tokens % 3}"},
            }
            for customer, day, tokens in sent
        ]
        self.keys += [event["idempotencyKey"] for event in events]
        await self._take(*events)

    async def void(self, key: str) -> None:
        """Void an event."""
        void = {"idempotencyKey": f"void-{key}", "voids": key, "reason": "a test"}
        await self._take(void)

    async def _take(self, *events: dict[str, Any]) -> None:
        answer = await ingest(self.runtime, self.tenant_id, events)
        assert answer.accepted == len(events), answer
        await seal_all(self.runtime)

    async def bill(self, until: datetime = NOVEMBER) -> None:
        async with self.runtime.scope(self.tenant_id) as scope:
            await start_bill_run(scope, until=until)
        await drain(self.runtime, self.tenant_id)

    async def balances(self, period: Period = MONTH) -> dict[str, UnitBalance]:
        async with self.runtime.scope(self.tenant_id) as scope:
            found = await units.unit_balances(scope, period, list(self.meters.values()))
        return {code: found[meter.id] for code, meter in self.meters.items()}


@pytest.fixture
async def store(runtime: Runtime, tenant_id: TenantId) -> Store:
    return await Store(runtime, tenant_id).open()


def numbers(balance: UnitBalance) -> tuple[int, ...]:
    """Counted, billed, included, not yet billed, unaccounted."""
    return tuple(
        int(each)
        for each in (
            balance.counted,
            balance.billed,
            balance.included,
            balance.not_yet_billed,
            balance.unaccounted,
        )
    )


async def test_before_a_bill_run_nothing_is_billed(store: Store) -> None:
    await store.send(("a", 3, 7), ("a", 4, 8), ("b", 5, 9))
    found = await store.balances()
    assert numbers(found["tokens"]) == (24, 0, 0, 24, 0)
    assert numbers(found["calls"]) == (3, 0, 0, 3, 0)
    assert numbers(found["peak"]) == (17, 0, 0, 17, 0)
    assert numbers(found["models"]) == (3, 0, 0, 3, 0)


async def test_final_lines_bill_and_include_and_drafts_do_neither(store: Store) -> None:
    await store.send(("a", 3, 7), ("a", 4, 8), ("slow", 5, 9), ("b", 5, 1), ("b", 20, 2))
    await store.bill()
    found = await store.balances()
    # b's first period ends on the 10th: what came after it is in none that is final.
    assert numbers(found["tokens"]) == (27, 5, 11, 11, 0)
    assert numbers(found["calls"]) == (5, 3, 0, 2, 0)
    assert numbers(found["unsold"]) == (5, 0, 0, 5, 0)


async def test_what_comes_late_is_not_billed_yet(store: Store) -> None:
    await store.send(("a", 3, 7), ("a", 4, 8))
    await store.bill()
    await store.send(("a", 5, 20), ("b", 2, 3))
    found = await store.balances()
    assert numbers(found["tokens"]) == (38, 5, 10, 23, 0)
    assert numbers(found["peak"]) == (23, 8, 0, 15, 0)
    assert numbers(found["models"]) == (3, 2, 0, 1, 0)


async def test_what_is_voided_is_told_apart_before_and_after_it_was_billed(store: Store) -> None:
    await store.send(("a", 3, 7), ("a", 4, 8), ("a", 5, 9))
    first, second, _ = store.keys
    await store.void(first)
    assert numbers((await store.balances())["tokens"]) == (24, 0, 0, 17, 0)
    await store.bill()
    found = await store.balances()
    assert (numbers(found["tokens"]), found["tokens"].voided) == ((24, 7, 10, 0, 0), 7)
    await store.void(second)
    found = await store.balances()
    assert (numbers(found["tokens"]), found["tokens"].voided) == ((24, 7, 10, -8, 0), 15)
    assert (numbers(found["calls"]), found["calls"].voided) == ((3, 2, 0, -1, 0), 2)
    assert (numbers(found["peak"]), found["peak"].voided) == ((9, 9, 0, 0, 0), 0)


async def test_what_a_quota_blocks_is_told_apart_and_never_billed(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    store = await Store(runtime, tenant_id, quota=Decimal(20)).open()
    await store.send(("a", 3, 8), ("a", 4, 15), ("a", 5, 12), ("slow", 3, 30))
    found = await store.balances()
    assert (numbers(found["tokens"]), found["tokens"].blocked) == ((65, 0, 0, 20, 0), 45)
    await store.bill()
    await store.void(store.keys[0])
    found = await store.balances()
    # Without the first event the second one fits, and the third does not.
    assert numbers(found["tokens"])[:3] == (65, 10, 10)
    assert (found["tokens"].voided, found["tokens"].unaccounted) == (8, 0)
    async with store.runtime.scope(store.tenant_id) as scope:
        assert await units.check(scope, OCTOBER, NOVEMBER) == {}


async def test_a_period_is_widened_to_whole_final_ones(store: Store) -> None:
    await store.send(("a", 3, 7), ("b", 5, 1), ("b", 20, 2))
    await store.bill()
    middle = Period(OCTOBER + timedelta(days=8), OCTOBER + timedelta(days=25))
    found = await store.balances(middle)
    assert numbers(found["tokens"]) == (10, 0, 8, 2, 0)
    november = Period(NOVEMBER, NOVEMBER + timedelta(days=20))
    assert numbers((await store.balances(november))["tokens"]) == (0, 0, 0, 0, 0)


async def test_a_log_that_differs_from_the_stored_lines_is_told(store: Store) -> None:
    await store.send(("a", 3, 7), ("a", 4, 7))
    await store.bill()
    before = REGISTRY.get_sample_value("aforo_unbalanced_meters_total") or 0
    with capture_logs() as told:
        async with store.runtime.scope(store.tenant_id) as scope:
            assert await units.check(scope, OCTOBER, NOVEMBER) == {}
            # An event that nobody sent, in a segment that was billed.
            await scope.events.command(
                "INSERT INTO events SELECT * REPLACE (toFixedString('x', 32) AS key_hash) FROM "
                "(SELECT * FROM events WHERE tenant_id = {tenant:UUID} AND position = 0)"
            )
            wrong = await units.check(scope, OCTOBER, NOVEMBER)
    found = {code: wrong[meter.id] for code, meter in store.meters.items() if meter.id in wrong}
    assert {code: each.unaccounted for code, each in found.items()} == {"tokens": 7, "calls": 1}
    assert [each["event"] for each in told] == ["units are not accounted for"] * 2
    assert REGISTRY.get_sample_value("aforo_unbalanced_meters_total") == before + 2


async def test_no_more_than_31_days_are_looked_at(store: Store) -> None:
    with pytest.raises(Invalid) as caught:
        await store.balances(Period(OCTOBER, NOVEMBER + timedelta(microseconds=1)))
    assert caught.value.field == "period"


sending = st.lists(
    st.tuples(st.sampled_from(("a", "b", "slow")), st.integers(1, 50), st.integers(0, 30)),
    min_size=1,
    max_size=6,
)
steps = st.one_of(
    st.tuples(st.just("send"), sending),
    st.tuples(st.just("bill"), st.sampled_from((10, 20, 32, 40, 50))),
    st.tuples(st.just("void"), st.none()),
)


@settings(max_examples=4)
@given(st.lists(steps, min_size=1, max_size=5))
async def test_whatever_is_sent_and_billed_the_identity_holds(
    shared_runtime: Runtime, steps: Sequence[tuple[str, Any]]
) -> None:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    tenant = await create_tenant(runtime, name="units")
    store = await Store(runtime, TenantId(tenant.tenant.tenant_id)).open()
    sent: list[tuple[str, int, int]] = []
    for what, said in steps:
        if what == "send":
            await store.send(*said)
            sent += said
        elif what == "void":
            if store.keys:
                await store.void(store.keys.pop(0))
        else:
            await store.bill(OCTOBER + timedelta(days=said))
        everything = Period(OCTOBER, OCTOBER + timedelta(days=31))
        found = await store.balances(everything)
        assert all(each.balanced for each in found.values()), found
        in_period = [each for each in sent if each[1] <= 31]
        assert found["unsold"].counted == len(in_period)
        assert found["calls"].counted >= len(in_period)
        async with runtime.scope(store.tenant_id) as scope:
            assert await units.check(scope, OCTOBER, OCTOBER + timedelta(days=60)) == {}


async def test_the_api_shows_it_by_meter(store: Store, graphql: GraphQL) -> None:
    await store.send(("a", 3, 7), ("a", 4, 8))
    await store.bill()
    query = """
    query($period: PeriodInput) {
      unitBalances(period: $period) {
        meterId meterCode counted billed included blocked voided notYetBilled unaccounted balanced
      }
    }
    """
    period = {"start": "2026-10-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}
    found = (await graphql(query, period=period))["unitBalances"]
    assert [each["meterCode"] for each in found] == list(METERS)
    meter_id = found[0].pop("meterId")
    assert found[0] == {
        "meterCode": "tokens",
        "counted": "15",
        "billed": "5",
        "included": "10",
        "blocked": "0",
        "voided": "0",
        "notYetBilled": "0",
        "unaccounted": "0",
        "balanced": True,
    }
    one = await graphql("query($id: ID) { unitBalances(meterId: $id) { meterCode } }", id=meter_id)
    assert one["unitBalances"] == [{"meterCode": "tokens"}]
