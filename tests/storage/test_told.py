"""What PostgreSQL is told of a transaction, over connections that are used again."""

import dataclasses
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from aforo.sdk.ids import TenantId
from aforo.storage import postgres
from aforo.storage.scope import EVERYONE, Runtime
from aforo.storage.tables import new_id


@pytest.fixture
async def one(runtime: Runtime) -> AsyncIterator[Runtime]:
    """A runtime with one connection."""
    engine = postgres.connect(
        runtime.settings.database_url, role=postgres.APP_ROLE, connections_max=1
    )
    yield dataclasses.replace(runtime, app=engine, app_sessions=postgres.sessions(engine))
    await engine.dispose()


async def test_a_pooled_connection_keeps_nothing_of_the_scope_before(
    one: Runtime,
) -> None:
    theirs = TenantId(new_id())
    backends = set()
    async with one.scope(theirs) as scope:
        backends.add(await scope.db.scalar(sa.text("SELECT pg_backend_pid()")))
        told = await scope.db.scalar(sa.text("SELECT current_setting('aforo.tenant_id')"))
        assert told == str(theirs)
    with pytest.raises(RuntimeError, match="the work went wrong"):
        async with one.scope(theirs):
            raise RuntimeError("the work went wrong")
    async with one.app.connect() as connection:
        backends.add(await connection.scalar(sa.text("SELECT pg_backend_pid()")))
        left = await connection.scalar(sa.text("SELECT current_setting('aforo.tenant_id', true)"))
        assert not left
    assert len(backends) == 1  # The same connection, used again.


async def test_a_transaction_is_told_of_its_own_tenant_whatever_the_connection_did_before(
    one: Runtime,
) -> None:
    ours, other, account = TenantId(new_id()), TenantId(new_id()), new_id()
    async with one.scope(other) as scope, scope.db.begin_nested():
        assert await _told(scope.db) == [str(other), EVERYONE, ""]
    async with one.scope(other):
        pass  # Without a statement nothing is begun.
    async with one.account(account) as mine:
        assert await _told(mine.db) == [str(UUID(int=0)), EVERYONE, str(account)]
    async with one.scope(ours) as scope:
        assert await _told(scope.db) == [str(ours), EVERYONE, ""]
        async with scope.db.begin_nested():
            await scope.enter_account(account)
        assert await _told(scope.db) == [str(ours), EVERYONE, str(account)]
    async with one.app.connect() as nobody:
        assert await _told(nobody) == ["", "", ""]


async def _told(db: AsyncSession | AsyncConnection) -> list[str]:
    settings = ("aforo.tenant_id", "aforo.customer_id", "aforo.account_id")
    calls = [sa.func.coalesce(sa.func.current_setting(name, True), "") for name in settings]
    return list((await db.execute(sa.select(*calls))).one())
