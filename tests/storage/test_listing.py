"""Lists: each row once in order, whatever is added meanwhile, and every order from an index."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from aforo.actions import queries as actions
from aforo.billing import queries as billing
from aforo.billing.models import BillRunState, InvoiceOrder, InvoiceState
from aforo.callers import queries as callers
from aforo.catalog import queries as catalog
from aforo.catalog.models import CodeOrder
from aforo.metering import queries as metering
from aforo.metering.models import QuarantineState
from aforo.sdk import Level
from aforo.sdk.ids import TenantId
from aforo.signals import queries as signals
from aforo.storage.event_types import EventType
from aforo.storage.listing import AgeOrder, Listing
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.subscriptions import queries as subscriptions
from aforo.subscriptions.models import Customer, CustomerOrder, SubscriptionOrder
from aforo.tenants import audit_log, members
from aforo.tenants import queries as tenants
from aforo.tenants.audit_log import AuditOrder
from aforo.webhooks import queries as webhooks
from aforo.webhooks.models import DeliveryState
from tests.conftest import NOW

SOME = UUID(int=1)


def listings() -> Iterator[tuple[str, Listing[Any]]]:
    """Every list in each of its orders, and with each of its conditions."""
    by_age: list[tuple[str, Callable[..., Listing[Any]], dict[str, object]]] = [
        ("cost rates", catalog.cost_rates, {"meter_code": "x"}),
        ("bill runs", billing.bill_runs, {"state": BillRunState.DONE}),
        ("quarantined events", metering.quarantined_events, {"code": "x"}),
        ("quarantined events", metering.quarantined_events, {"event_type": "x"}),
        ("quarantined events", metering.quarantined_events, {"customer": "x"}),
        (
            "quarantined events",
            metering.quarantined_events,
            {"state": QuarantineState.QUARANTINED},
        ),
        ("signals", signals.signals, {"customer_id": SOME}),
        ("signals", signals.signals, {"detector": "x"}),
        ("signals", signals.signals, {"level": Level.ALERT}),
        ("actions", actions.actions, {"customer_id": SOME}),
        ("actions", actions.actions, {"signal_id": SOME}),
        ("actions", actions.actions, {"tier": Level.BLOCK}),
        ("API keys", tenants.api_keys, {}),
        ("members", members.members, {}),
        ("invitations", members.invitations, {}),
        ("portal tokens", tenants.portal_tokens, {"customer_id": SOME}),
        ("persisted documents", callers.persisted_documents, {}),
        ("webhook endpoints", webhooks.endpoints, {}),
        ("webhook deliveries", webhooks.deliveries, {"endpoint_id": SOME}),
        ("webhook deliveries", webhooks.deliveries, {"state": DeliveryState.EXHAUSTED}),
        ("webhook deliveries", webhooks.deliveries, {"kind": EventType.SIGNAL_FIRED}),
    ]
    by_code = [
        (name, getattr(catalog, name), {"code": "x"})
        for name in ("products", "meters", "rate_plans", "entitlements", "offerings", "discounts")
    ]
    bought: list[tuple[str, Callable[..., Listing[Any]], dict[str, object]]] = [
        ("subscriptions", subscriptions.subscriptions, {"customer_id": SOME}),
        ("subscriptions", subscriptions.subscriptions, {"offering_id": SOME}),
    ]
    named = [
        ("customers", subscriptions.customers, {each: "x"})
        for each in ("segment", "country", "currency")
    ]
    billed: list[tuple[str, Callable[..., Listing[Any]], dict[str, object]]] = [
        ("invoices", billing.invoices, {"customer_id": SOME}),
        ("invoices", billing.invoices, {"state": InvoiceState.DRAFT}),
    ]
    logged: list[tuple[str, Callable[..., Listing[Any]], dict[str, object]]] = [
        ("audit entries", audit_log.audit_entries, {"actor_id": SOME}),
        ("audit entries", audit_log.audit_entries, {"action": "x"}),
    ]
    for kinds, orders in (
        (by_age, AgeOrder),
        (logged, AuditOrder),
        (by_code, CodeOrder),
        (named, CustomerOrder),
        (billed, InvoiceOrder),
    ):
        for name, query, condition in kinds:
            for order in orders:
                yield f"{name} {order}", query(order=order)
            yield f"{name} where {list(condition)}", query(**condition)
    for name, query, condition in bought:
        for order in SubscriptionOrder:
            yield f"{name} {order}", query(now=NOW, order=order)
        yield f"{name} where {list(condition)}", query(now=NOW, **condition)
    begins = subscriptions.customers(name_prefix="ac", order=CustomerOrder.NAME_ASC)
    yield "customers where name_prefix", begins


LISTINGS = dict(listings())


def test_no_column_is_hidden_by_what_plain_rows_have_of_their_own() -> None:
    for table in {each.table for each in LISTINGS.values()}:
        columns = {each.key for each in sa.inspect(table).column_attrs}
        assert columns.isdisjoint(dir(sa.Row)), table


@pytest.mark.parametrize("name", LISTINGS)
async def test_every_page_is_cut_from_an_index(
    runtime: Runtime, tenant_id: TenantId, name: str
) -> None:
    listing = LISTINGS[name]
    async with runtime.scope(tenant_id) as scope:
        plan = await planned(scope, listing)
    nodes = list(below(plan))
    kinds = {node["Node Type"] for node in nodes}
    # An incremental sort orders the few rows that are equal but for their ids.
    assert kinds <= {"Limit", "Result", "Index Scan", "Incremental Sort"}, kinds
    (scan,) = (node for node in nodes if "Index Name" in node)
    assert "tenant_id" in scan["Index Cond"]
    if listing.column != "id":
        assert listing.column in scan["Index Cond"], "the page begins where it is asked to"


async def planned(scope: Scope, listing: Listing[Any]) -> dict[str, Any]:
    """How PostgreSQL would read a page in the middle, were the table a large one."""
    # What a large table makes dear is switched off: nobody fills twenty of them here.
    for other in ("seqscan", "bitmapscan", "sort"):
        await scope.db.execute(sa.text(f"SET LOCAL enable_{other} = off"))
    position = listing.table(
        id=new_id(), **({} if listing.column == "id" else {listing.column: a_value(listing)})
    )
    statement: list[str] = []
    connection = await scope.db.connection()

    def keep(_: object, __: object, text: str, values: object, *more: object) -> None:
        statement.append(text)
        keep.values = values  # type: ignore[attr-defined]

    sa.event.listen(connection.sync_connection, "before_cursor_execute", keep)
    await listing.page(scope, after=listing.position(position), first=101)
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    found = await raw.fetchval(f"EXPLAIN (FORMAT JSON) {statement[0]}", *keep.values)  # type: ignore[attr-defined]
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


def a_value(listing: Listing[Any]) -> object:
    return NOW if listing.holds_moments else "m"


def below(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The path of the rows; a subplan belongs to the wall around a portal's customer."""
    yield plan
    for part in plan.get("Plans", ()):
        if part["Parent Relationship"] == "Outer":
            yield from below(part)


PAGES_WITH_ADDITIONS = 5
NAMES = ("acme", "Acme", "ACME", "álvaro", "Ωmega", "zeta 10", "zeta 2", "a b", "A  b", "日本", "x")


@pytest.mark.parametrize("order", CustomerOrder)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
async def test_each_row_comes_once_and_in_order_while_others_are_added(
    runtime: Runtime, tenant_id: TenantId, order: CustomerOrder, size: int
) -> None:
    before = [await customer(runtime, tenant_id, f"{name}-{n}", name) for n, name in twice(NAMES)]
    listing = subscriptions.customers(order=order)
    seen: list[Customer] = []
    position = None
    pages = 0
    while True:
        async with runtime.scope(tenant_id) as scope:
            rows = await listing.page(scope, after=position, first=size)
        if not rows:
            break
        seen += rows
        position = listing.position(rows[-1])
        pages += 1
        if pages <= PAGES_WITH_ADDITIONS:
            for place, name in enumerate(("aardvark", "zzz", rows[-1].name)):
                await customer(runtime, tenant_id, f"late-{pages}-{place}", name)
    keys = [(key(row, listing), row.id) for row in seen]
    assert keys == sorted(set(keys), reverse=listing.descending)
    assert {row.id for row in before} <= {row.id for row in seen}


def twice(names: tuple[str, ...]) -> list[tuple[int, str]]:
    return list(enumerate(names * 2))


def key(row: Customer, listing: Listing[Any]) -> object:
    return "" if listing.column == "id" else getattr(row, listing.column)


async def customer(
    runtime: Runtime, tenant_id: TenantId, external_id: str, name: str, **more: Any
) -> Customer:
    async with runtime.scope(tenant_id) as scope:
        row = Customer(external_id=external_id, name=name, currency="USD", **more)
        scope.db.add(row)
        await scope.db.flush()
    return row


async def test_a_prefix_finds_names_in_either_case_and_in_any_script(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    for number, name in enumerate(NAMES):
        await customer(runtime, tenant_id, f"{number}", name)
    expected = {
        "ac": ["ACME", "Acme", "acme"],
        "AC": ["ACME", "Acme", "acme"],
        "ω": ["Ωmega"],
        "日": ["日本"],
        "%": [],
        "": sorted(NAMES),
    }
    async with runtime.scope(tenant_id) as scope:
        for prefix, names in expected.items():
            listing = subscriptions.customers(name_prefix=prefix)
            rows = await listing.page(scope, first=100)
            assert sorted(row.name for row in rows) == names, prefix
            assert await listing.count(scope) == len(names)
