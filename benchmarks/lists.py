"""A deep page of a long list, beside the bare statement that reads it."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import asyncpg
import sqlalchemy as sa

from aforo.plugins import load_registry
from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage.listing import PAGE_MAX, Listing, Position
from aforo.storage.scope import Runtime, open_runtime
from aforo.subscriptions.models import Customer, CustomerOrder
from aforo.subscriptions.queries import customers
from aforo.tenants.commands import create_tenant

CUSTOMERS = 100_000
PAGE = 1_000
ROUNDS = 100

_FILL = sa.text(
    "INSERT INTO customer (id, external_id, name, currency, time_zone) "
    "SELECT uuidv7(), 'c' || n, 'Customer ' || n, 'USD', 'UTC' FROM generate_series(1, :n) AS n"
)
_BARE = (
    "SELECT * FROM customer WHERE tenant_id = $1 AND (sort_name, id) > ($2, $3) "
    "ORDER BY sort_name, id LIMIT $4"
)


@dataclass(frozen=True, slots=True)
class DeepPage:
    """Medians in milliseconds: of a scope that reads the page, and of the statement alone."""

    ours: float
    bare: float


async def measure(settings: Settings) -> DeepPage:
    """Read the thousandth page of 100,000 customers by name."""
    runtime = open_runtime(settings, load_registry())
    try:
        made = await create_tenant(runtime, name="Long lists")
        tenant_id = TenantId(made.tenant.tenant_id)
        listing = customers(order=CustomerOrder.NAME_ASC)
        async with runtime.scope(tenant_id) as scope:
            await scope.db.execute(_FILL, {"n": CUSTOMERS})
        position = await _position(runtime, tenant_id, listing)
        await _page(runtime, tenant_id, listing, position)  # The first one prepares statements.
        ours = [await _page(runtime, tenant_id, listing, position) for _ in range(ROUNDS)]
    finally:
        await runtime.close()
    bare = await _bare(settings, tenant_id, position)
    return DeepPage(statistics.median(ours), statistics.median(bare))


async def _position(runtime: Runtime, tenant_id: TenantId, listing: Listing[Customer]) -> Position:
    async with runtime.scope(tenant_id) as scope:
        row = await scope.db.scalar(
            sa.select(Customer)
            .order_by(sa.text("sort_name, id"))
            .offset((PAGE - 1) * PAGE_MAX - 1)
            .limit(1)
        )
    assert row is not None, "there are as many customers"
    return listing.position(row)


async def _page(
    runtime: Runtime, tenant_id: TenantId, listing: Listing[Any], position: Position
) -> float:
    begun = time.perf_counter()
    async with runtime.scope(tenant_id) as scope:
        rows = await listing.page(scope, after=position, first=PAGE_MAX)
    assert len(rows) == PAGE_MAX
    return 1_000 * (time.perf_counter() - begun)


async def _bare(settings: Settings, tenant_id: TenantId, position: Position) -> list[float]:
    connection = await asyncpg.connect(
        settings.database_url.replace("+asyncpg", ""), server_settings={"role": "aforo_app"}
    )
    taken = []
    try:
        await connection.execute(
            "SELECT set_config('aforo.tenant_id', $1, false), "
            "set_config('aforo.customer_id', 'everyone', false)",
            str(tenant_id),
        )
        for _ in range(ROUNDS + 1):
            begun = time.perf_counter()
            rows = await connection.fetch(_BARE, tenant_id, position.value, position.id, PAGE_MAX)
            taken.append(1_000 * (time.perf_counter() - begun))
            assert len(rows) == PAGE_MAX
    finally:
        await connection.close()
    return taken[1:]
