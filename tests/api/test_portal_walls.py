"""The two walls between the customers of one tenant: each alone leaks nothing.

With both walls, with the session's criterion alone, and with row security alone the scope of one
customer sees exactly the same rows of every table, and none that is a sibling's.
"""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlmodel import SQLModel

from aforo.billing.models import WalletEntry
from aforo.metering import rollups
from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.postgres import _kinds
from aforo.storage.scope import EVERYONE, Runtime
from aforo.storage.tables import new_id
from tests.api.forms import row_id
from tests.api.world import World, make_sibling, make_world
from tests.conftest import NOW

pytestmark = pytest.mark.anyio

MINE, SIBLING = "zzmine", "zzsibling"
SHARED = {"tenant", "meter", "segment", "usage_span"}
OWN = {
    "customer", "team", "agent", "customer_key", "subscription", "subscription_discount", "invoice",
    "invoice_line", "invoice_tax", "wallet", "wallet_grant", "wallet_entry", "offering",
    "offering_entitlement", "entitlement", "discount",
}  # fmt: skip
ALL = sorted(_kinds())


@dataclasses.dataclass(frozen=True)
class House:
    """A tenant with two customers who have one of everything each."""

    runtime: Runtime
    world: World
    sibling: dict[str, str]

    @property
    def tenant_id(self) -> TenantId:
        return TenantId(self.world.tenant.tenant.tenant_id)

    @property
    def mine(self) -> CustomerId:
        return CustomerId(row_id(self.world.ids["Customer"], "Customer"))

    @property
    def siblings(self) -> CustomerId:
        return CustomerId(row_id(self.sibling["Customer"], "Customer"))

    @asynccontextmanager
    async def behind(
        self, *, criterion: UUID | None, security: UUID | None
    ) -> AsyncIterator[AsyncSession]:
        """A transaction behind one of the walls, both or none; each around a customer."""
        setting = EVERYONE if security is None else str(security)
        async with self.runtime.app_sessions.begin() as db:
            db.sync_session.info.update(
                tenant_id=self.tenant_id, customer_id=criterion, now=self.runtime.clock.now()
            )
            await db.execute(
                sa.text(
                    "SELECT set_config('aforo.tenant_id', :tenant, true), "
                    "set_config('aforo.now', '2026-11-20T12:00:00Z', true), "
                    "set_config('aforo.customer_id', :customer, true)"
                ),
                {"tenant": str(self.tenant_id), "customer": setting},
            )
            yield db


@pytest.fixture(scope="module")
async def house(shared_runtime: Runtime) -> AsyncIterator[House]:
    runtime = dataclasses.replace(shared_runtime, clock=MovableClock(NOW))
    world = await make_world(runtime, MINE)
    built = House(runtime, world, await make_sibling(runtime, world, SIBLING))
    async with runtime.scope(built.tenant_id) as scope:
        for ids in (world.ids, built.sibling):  # Their invoices are postpaid, and draw nothing.
            wallet_id = row_id(ids["Wallet"], "Wallet")
            scope.db.add(WalletEntry(wallet_id=wallet_id, amount=Decimal(1)))
        await rollups.roll_up(scope, span_events=1)
    yield built
    await world.client.aclose()


async def keys_by_orm(db: AsyncSession, table: str) -> set[tuple[object, ...]]:
    kind = _kinds()[table]
    columns = [getattr(kind, column.key) for column in kind.__table__.primary_key]  # type: ignore[attr-defined]
    return {tuple(row) for row in await db.execute(sa.select(*columns))}


async def keys_by_hand(db: AsyncSession, table: str) -> set[tuple[object, ...]]:
    columns = ", ".join(column.name for column in SQLModel.metadata.tables[table].primary_key)
    return {tuple(row) for row in await db.execute(sa.text(f"SELECT {columns} FROM {table}"))}


@pytest.mark.parametrize("table", ALL)
async def test_each_wall_alone_shows_the_same_rows_and_none_of_a_siblings(
    house: House, table: str
) -> None:
    seen = {}
    for customer in (house.mine, house.siblings):
        async with house.behind(criterion=customer, security=None) as db:
            by_criterion = await keys_by_orm(db, table)
        async with house.behind(criterion=None, security=customer) as db:
            by_security = await keys_by_orm(db, table)
            assert await keys_by_hand(db, table) == by_security
        async with house.behind(criterion=customer, security=customer) as db:
            assert await keys_by_orm(db, table) == by_criterion
        assert by_criterion == by_security
        seen[customer] = by_security
    async with house.behind(criterion=None, security=None) as db:
        everything = await keys_by_orm(db, table)
    mine, siblings = seen.values()
    if table in SHARED:
        assert mine == siblings == everything != set()
    elif table in OWN:
        assert mine <= everything
        assert mine.isdisjoint(siblings)
        assert everything != mine
    else:
        assert mine == siblings == set()


async def test_the_house_has_rows_of_mine_in_every_table_that_a_portal_sees(house: House) -> None:
    async with house.behind(criterion=house.mine, security=house.mine) as db:
        empty = {table for table in OWN | SHARED if not await keys_by_orm(db, table)}
    assert empty == set()


async def test_the_criterion_holds_in_aliases_joins_and_counts(house: House) -> None:
    customer, subscription = _kinds()["customer"], _kinds()["subscription"]
    async with house.behind(criterion=house.mine, security=None) as db:
        assert await db.scalar(sa.text("SELECT count(*) > 1 FROM customer"))  # No other wall.
        twice = sa.orm.aliased(customer)
        joined = sa.select(twice.id).join(subscription, subscription.customer_id == twice.id)  # type: ignore[attr-defined]
        assert set(await db.scalars(joined)) == {house.mine}
        count = sa.select(sa.func.count(customer.id))  # type: ignore[attr-defined]
        assert await db.scalar(count) == 1
        inner = sa.select(subscription.customer_id)  # type: ignore[attr-defined]
        outer = sa.select(customer.id).where(customer.id.in_(inner))  # type: ignore[attr-defined]
        assert set(await db.scalars(outer)) == {house.mine}
        assert await db.get(customer, (house.tenant_id, house.siblings)) is None


async def test_row_security_keeps_changes_from_siblings_rows(house: House) -> None:
    async with house.behind(criterion=None, security=house.mine) as db:
        changed = await db.execute(
            sa.text("UPDATE subscription SET ends_at = ends_at RETURNING customer_id")
        )
        assert {row.customer_id for row in changed} == {house.mine}
        await db.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO team (id, customer_id, code, name) VALUES (:id, :sibling, 'planted', '')",
        "INSERT INTO product (id, code, name) VALUES (:id, 'planted', '')",
        "UPDATE wallet SET customer_id = :sibling",
    ],
)
async def test_row_security_refuses_what_would_be_a_siblings_or_the_tenants(
    house: House, statement: str
) -> None:
    async with house.behind(criterion=None, security=house.mine) as db:
        with pytest.raises(sa.exc.ProgrammingError, match="violates row-level security"):
            await db.execute(sa.text(statement), {"id": new_id(), "sibling": house.siblings})
        await db.rollback()


async def test_who_does_not_say_for_whom_sees_nothing(house: House) -> None:
    plain = async_sessionmaker(house.runtime.app)
    entering = "SELECT set_config('aforo.tenant_id', :tenant, true)"
    for customer in (None, "", "nobody"):
        async with plain() as db:
            await db.execute(sa.text(entering), {"tenant": str(house.tenant_id)})
            if customer is not None:
                await db.execute(
                    sa.text("SELECT set_config('aforo.customer_id', :customer, true)"),
                    {"customer": customer},
                )
            rows = sa.text("SELECT count(*) FROM customer")
            if customer is None and (await _is_fresh(db)):
                with pytest.raises(sa.exc.DBAPIError, match=r"aforo\.customer_id"):
                    await db.execute(rows)
            else:
                assert await db.scalar(rows) == 0


async def _is_fresh(db: AsyncSession) -> bool:
    """Whether this pooled connection has never been in a scope."""
    told = await db.scalar(sa.text("SELECT current_setting('aforo.customer_id', true)"))
    return told is None


async def test_clickhouse_gives_a_customers_scope_no_siblings_events_whatever_it_asks_for(
    house: House,
) -> None:
    query = (
        "SELECT customer_id, count() AS n "
        "FROM events_of(tenant = {tenant:UUID}, payer = {payer:UUID}, watermark = 99999999) "
        "GROUP BY customer_id ORDER BY n"
    )
    async with house.runtime.scope(house.tenant_id) as scope:
        everyones = {row["customer_id"] for row in await scope.events.query(query)}
    assert everyones == {house.mine, house.siblings}
    async with house.runtime.scope(house.tenant_id, customer_id=house.mine) as scope:
        for forged in ({}, {"payer": str(house.siblings)}):
            found = await scope.events.query(query, **forged)
            assert {row["customer_id"] for row in found} == {house.mine}
