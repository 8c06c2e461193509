"""The walls between tenants: the session's criterion and row security, each of them alone."""

import dataclasses
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from clickhouse_connect.driver.exceptions import DatabaseError
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool
from sqlmodel import col

from aforo.billing.models import InvoiceSeries
from aforo.catalog.models import Product
from aforo.catalog.queries import products
from aforo.sdk.ids import TenantId
from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.jobs import Job, JobName
from aforo.storage.listing import Children
from aforo.storage.live_log import START
from aforo.storage.migrate import migrate
from aforo.storage.postgres import APP_ROLE
from aforo.storage.scope import Runtime, open_runtime
from aforo.storage.tables import new_id
from aforo.storage.tallies import Tally

SECRET = "what only its owner may see"


@pytest.fixture
def ours() -> TenantId:
    return TenantId(new_id())


@pytest.fixture
def theirs() -> TenantId:
    return TenantId(new_id())


@pytest.fixture
async def unwalled(runtime: Runtime, engines: EmbeddedEngines) -> AsyncIterator[Runtime]:
    """A runtime on a database of its own, in which the application may change and delete products,
    and row security does not keep it from anyone's."""
    name = f"unwalled_{uuid4().hex[:12]}"
    owner = make_url(engines.owner_database_url)
    login = make_url(engines.database_url)
    url = login.set(database=name).render_as_string(hide_password=False)
    server = create_async_engine(owner, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(sa.text(f"CREATE DATABASE {name}"))
    inside = create_async_engine(owner.set(database=name), poolclass=NullPool)
    await migrate(
        owner_database_url=inside.url.render_as_string(hide_password=False),
        database_url=url,
        clickhouse_url=engines.clickhouse_url,
    )
    async with inside.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE product DISABLE ROW LEVEL SECURITY"))
        await connection.execute(sa.text(f"GRANT UPDATE, DELETE ON product TO {APP_ROLE}"))
    settings = dataclasses.replace(runtime.settings, database_url=url)
    opened = open_runtime(settings, runtime.plugins, runtime.clock)
    yield opened
    await opened.close()
    async with server.connect() as connection:
        await connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    await inside.dispose()
    await server.dispose()


@pytest.fixture
def plain_sessions(runtime: Runtime) -> async_sessionmaker[AsyncSession]:
    """Sessions of the application's role that add no criterion and check no row."""
    return async_sessionmaker(runtime.app)


async def add_product(runtime: Runtime, tenant_id: TenantId, code: str = "theirs") -> UUID:
    async with runtime.scope(tenant_id) as scope:
        product = Product(code=code, name=SECRET)
        scope.db.add(product)
        await scope.db.flush()
        return product.id


async def enter(db: AsyncSession, tenant_id: TenantId) -> None:
    await db.execute(
        sa.text(
            "SELECT set_config('aforo.tenant_id', :tenant_id, true), "
            "set_config('aforo.now', '2026-11-20T12:00:00Z', true), "
            "set_config('aforo.customer_id', 'everyone', true)"
        ),
        {"tenant_id": str(tenant_id)},
    )


# Row security alone.


async def test_row_security_hides_what_a_session_without_the_criterion_asks_for(
    runtime: Runtime,
    plain_sessions: async_sessionmaker[AsyncSession],
    ours: TenantId,
    theirs: TenantId,
) -> None:
    product_id = await add_product(runtime, theirs)
    everything = sa.text("SELECT count(*) FROM product")
    async with plain_sessions.begin() as db:
        await enter(db, theirs)
        assert await db.scalar(everything) == 1
        assert await db.get(Product, (theirs, product_id)) is not None
    async with plain_sessions.begin() as db:
        await enter(db, ours)
        assert await db.scalar(everything) == 0
        assert await db.get(Product, (theirs, product_id)) is None


async def test_row_security_keeps_changes_from_another_tenants_rows(
    runtime: Runtime,
    plain_sessions: async_sessionmaker[AsyncSession],
    ours: TenantId,
    theirs: TenantId,
) -> None:
    async with runtime.scope(theirs) as scope:
        scope.db.add(InvoiceSeries(prefix="INV"))
    for tenant_id, reached in ((ours, 0), (theirs, 1)):
        async with plain_sessions.begin() as db:
            await enter(db, tenant_id)
            changed = await db.execute(
                sa.text("UPDATE invoice_series SET next_number = 9 RETURNING id")
            )
            assert len(changed.all()) == reached


async def test_row_security_refuses_a_row_that_is_written_for_another_tenant(
    plain_sessions: async_sessionmaker[AsyncSession], ours: TenantId, theirs: TenantId
) -> None:
    insert = sa.text(
        "INSERT INTO product (tenant_id, id, code, name) VALUES (:tenant_id, :id, 'planted', '')"
    )
    async with plain_sessions.begin() as db:
        await enter(db, ours)
        await db.execute(insert, {"tenant_id": ours, "id": new_id()})
        with pytest.raises(sa.exc.ProgrammingError, match="violates row-level security"):
            await db.execute(insert, {"tenant_id": theirs, "id": new_id()})
        await db.rollback()


async def test_row_security_refuses_to_move_a_row_to_another_tenant(
    runtime: Runtime,
    plain_sessions: async_sessionmaker[AsyncSession],
    ours: TenantId,
    theirs: TenantId,
) -> None:
    move = sa.text("UPDATE invoice_series SET tenant_id = :theirs")
    async with runtime.scope(ours) as scope:
        scope.db.add(InvoiceSeries(prefix="INV"))
    async with plain_sessions.begin() as db:
        await enter(db, ours)
        with pytest.raises(sa.exc.ProgrammingError, match="violates row-level security"):
            await db.execute(move, {"theirs": theirs})
        await db.rollback()


async def test_a_reference_to_another_tenants_row_does_not_hold(
    runtime: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    """PostgreSQL checks foreign keys past row security, so the tenant is part of them."""
    product_id = await add_product(runtime, theirs)
    with pytest.raises(sa.exc.IntegrityError, match="product_id_fkey"):
        async with runtime.scope(ours) as scope:
            await scope.db.execute(
                sa.text(
                    "INSERT INTO offering (id, code, version, name, product_id, rate_plan_id) "
                    "VALUES (:id, 'planted', 1, '', :product_id, :id)"
                ),
                {"id": new_id(), "product_id": product_id},
            )


# The session's criterion alone.


async def test_the_criterion_hides_what_row_security_would_show(
    unwalled: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    product_id = await add_product(unwalled, theirs)
    async with unwalled.scope(ours) as scope:
        bare = await scope.db.scalar(sa.text("SELECT count(*) FROM product"))
        assert bare == 1  # Row security is off indeed: raw SQL sees the row.
        assert list(await scope.db.scalars(sa.select(Product))) == []
        assert await scope.db.get(Product, (theirs, product_id)) is None
        assert await scope.db.scalar(sa.select(sa.func.count(col(Product.id)))) == 0
        twice = sa.orm.aliased(Product)
        joined = sa.select(twice).join(Product, col(Product.id) == twice.id)
        assert list(await scope.db.scalars(joined)) == []


async def test_the_criterion_keeps_changes_to_the_tenants_own_rows(
    unwalled: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    await add_product(unwalled, theirs)
    await add_product(unwalled, ours)
    async with unwalled.scope(ours) as scope:
        changed = await scope.db.execute(
            sa.update(Product).values(name="changed").returning(col(Product.tenant_id))
        )
        assert list(changed.scalars()) == [ours]
        deleted = await scope.db.execute(sa.delete(Product).returning(col(Product.tenant_id)))
        assert list(deleted.scalars()) == [ours]
    async with unwalled.scope(theirs) as scope:
        assert list(await scope.db.scalars(sa.select(col(Product.name)))) == [SECRET]


async def test_a_row_of_another_tenant_that_got_past_both_walls_is_a_bug(
    unwalled: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    await add_product(unwalled, theirs)
    past_the_criterion = sa.select(Product).from_statement(sa.text("SELECT * FROM product"))
    with pytest.raises(AssertionError, match="a Product of another tenant in this tenant's scope"):
        async with unwalled.scope(ours) as scope:
            await scope.db.scalars(past_the_criterion)


async def test_a_row_of_another_tenant_on_a_page_of_a_list_is_a_bug(
    runtime: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    product_id = await add_product(runtime, theirs)
    below = Children(Product, "id")
    async with runtime.scope(theirs) as scope:
        assert [row.id for row in await products().page(scope, first=9)] == [product_id]
        assert len((await below.pages(scope, [product_id], first=9))[product_id]) == 1
        astray = dataclasses.replace(scope, tenant_id=ours)
        with pytest.raises(AssertionError, match="a Product of another tenant in a tenant's list"):
            await products().page(astray, first=9)
        with pytest.raises(AssertionError, match="a Product of another tenant in a tenant's list"):
            await below.pages(astray, [product_id], first=9)


async def test_a_row_that_is_made_for_another_tenant_is_a_bug(
    runtime: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    async with runtime.scope(ours) as scope:
        scope.db.add(Product(tenant_id=theirs, code="planted", name=""))
        with pytest.raises(AssertionError, match="a Product of another tenant"):
            await scope.db.flush()
        scope.db.expunge_all()
    async with runtime.scope(theirs) as scope:
        assert list(await scope.db.scalars(sa.select(Product))) == []


# The door.


async def test_without_a_scope_every_statement_fails(
    runtime: Runtime, plain_sessions: async_sessionmaker[AsyncSession], theirs: TenantId
) -> None:
    await add_product(runtime, theirs)
    for statement in (
        "SELECT * FROM product",
        "UPDATE invoice_series SET next_number = 9",
        "INSERT INTO product (id, code, name) VALUES (gen_random_uuid(), 'planted', '')",
    ):
        async with plain_sessions() as db:
            with pytest.raises(sa.exc.DBAPIError, match=r"aforo\.|invalid input syntax"):
                await db.execute(sa.text(statement))


async def test_a_scope_stamps_its_tenant_and_its_moment_also_on_rows_written_past_the_session(
    runtime: Runtime, ours: TenantId
) -> None:
    async with runtime.scope(ours) as scope:
        scope.db.add(Product(code="by the session", name=""))
        await scope.db.flush()
        await scope.db.execute(
            sa.text("INSERT INTO product (id, code, name) VALUES (:id, 'by hand', '')"),
            {"id": new_id()},
        )
        rows = list(await scope.db.scalars(sa.select(Product)))
        assert [(row.tenant_id, row.created_at) for row in rows] == [(ours, scope.now)] * 2


async def test_a_scope_that_raises_leaves_nothing_behind(runtime: Runtime, ours: TenantId) -> None:
    async def fail() -> None:
        async with runtime.scope(ours) as scope:
            scope.db.add(Product(code="half", name=""))
            await scope.db.flush()
            await scope.enqueue(JobName.BILL_DUE, until="2026-12-01T00:00:00+00:00")
            scope.live.announce("signals", {"id": "never"})
            raise RuntimeError("the work went wrong")

    with pytest.raises(RuntimeError, match="the work went wrong"):
        await fail()
    async with runtime.scope(ours) as scope:
        assert list(await scope.db.scalars(sa.select(Product))) == []
        assert list(await scope.db.scalars(sa.select(Job))) == []
    async with Redis.from_url(runtime.settings.redis_url) as redis:
        assert await redis.exists(f"aforo:{ours}:signals") == 0


async def test_the_system_role_sees_the_work_queues_and_no_tenants_data(
    runtime: Runtime, theirs: TenantId
) -> None:
    await add_product(runtime, theirs)
    async with runtime.scope(theirs) as scope:
        await scope.enqueue(JobName.BILL_DUE, until="2026-12-01T00:00:00+00:00")
    async with runtime.system("a test") as db:
        waiting = await db.scalars(sa.select(Job).where(col(Job.tenant_id) == theirs))
        assert len(list(waiting)) == 1
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied for table product"):
        async with runtime.system("a test") as db:
            await db.execute(sa.text("SELECT * FROM product"))


# The other two engines.


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("events_of", "UNKNOWN_IDENTIFIER"),  # Without its parameters a view has no column.
        ("events_of(watermark = 1)", "tenant"),
        (f"events_of(tenant = '{UUID(int=1)}', watermark = 1)", "payer"),
        ("log_of(watermark = 1)", "tenant"),
        (f"log_of(tenant = '{UUID(int=1)}', watermark = 1)", "payer"),
        ("corrections_of(watermark = 1)", "tenant"),
        (f"corrections_of(tenant = '{UUID(int=1)}', watermark = 1)", "payer"),
        ("bill_run_event_index_of", "UNKNOWN_IDENTIFIER"),
        ("bill_run_event_index_of()", "tenant"),
    ],
)
async def test_clickhouse_gives_nothing_to_a_reader_who_names_no_tenant(
    runtime: Runtime, source: str, told: str
) -> None:
    with pytest.raises(DatabaseError, match=told):
        await runtime.events.query(f"SELECT event_id FROM {source}")


async def test_clickhouse_gives_a_scope_only_its_tenants_events_whatever_it_asks_for(
    runtime: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    await runtime.events.command(
        "INSERT INTO events (tenant_id, segment_id, event_id, type, customer_id, occurred_at) "
        "VALUES ({tenant:UUID}, 1, generateUUIDv4(), 'llm.request', generateUUIDv4(), "
        "'2026-11-20 00:00:00')",
        {"tenant": str(theirs)},
    )
    query = (
        "SELECT count() AS n "
        "FROM events_of(tenant = {tenant:UUID}, payer = {payer:UUID}, watermark = 9)"
    )
    for tenant_id, expected in ((theirs, 1), (ours, 0)):
        async with runtime.scope(tenant_id) as scope:
            assert await scope.events.query(query) == [{"n": expected}]
            # The parameter is the scope's, also where the caller brings one of that name.
            assert await scope.events.query(query, tenant=str(theirs)) == [{"n": expected}]


async def test_redis_keys_of_a_scope_start_with_its_tenant(
    runtime: Runtime, ours: TenantId, theirs: TenantId
) -> None:
    async with runtime.scope(theirs) as scope:
        tallies = {"units": Tally(Decimal(7), Decimal(0), 1)}
        await scope.live.tallies.settle("acme", scope.now, used=tallies)
        scope.live.announce("signals", {"id": "first"})
    async with runtime.scope(ours) as scope:
        assert await scope.live.tallies.tallies([("acme", "units")]) == [None]
    async with runtime.scope(theirs) as scope:
        [tally] = await scope.live.tallies.tallies([("acme", "units")])
        assert tally == tallies["units"]
        follower = await scope.live.follow("signals", after=START)
        assert (await anext(aiter(follower))).data == {"id": "first"}
        follower.close()
    async with Redis.from_url(runtime.settings.redis_url, decode_responses=True) as redis:
        keys = {key async for key in redis.scan_iter(f"*{theirs}*")}
        assert keys == {f"aforo:{theirs}:tally:acme:units", f"aforo:{theirs}:signals"}
        ((_, entry),) = await redis.xrange(f"aforo:{theirs}:signals")
        assert json.loads(entry["m"]) == {"id": "first"}
