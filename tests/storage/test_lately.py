"""What is remembered for a moment, and what ends that moment early."""

import dataclasses
import time
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.api.auth.requests import Refused, identify
from aforo.sdk.ids import TenantId
from aforo.storage import lately
from aforo.storage.clock import MovableClock
from aforo.storage.lately import KEPT_SECONDS, Lately
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, revoke_api_key
from aforo.tenants.models import ApiKey
from tests.conftest import NOW

pytestmark = pytest.mark.anyio


@pytest.fixture
def runtime(runtime: Runtime) -> Runtime:
    """With a memory of its own."""
    return dataclasses.replace(runtime, lately=Lately())


async def _passes(runtime: Runtime, token: str) -> bool:
    try:
        await identify(runtime, token)
    except Refused:
        return False
    return True


def test_what_was_read_is_good_for_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    memory, tenant = Lately(), uuid4()
    memory.keep("key", "value", tenant_id=tenant, mark=memory.mark(NOW))
    assert memory.find("key", NOW) == "value"
    seconds += KEPT_SECONDS - 0.01
    assert memory.find("key", NOW) == "value"
    seconds += 0.01
    assert memory.find("key", NOW) is None
    assert KEPT_SECONDS < 1


def test_it_is_not_good_once_the_clock_has_moved() -> None:
    memory, tenant = Lately(), uuid4()
    for moved in (timedelta(seconds=KEPT_SECONDS), timedelta(days=-1)):
        memory.keep("key", "value", tenant_id=tenant, mark=memory.mark(NOW))
        assert memory.find("key", NOW + moved) is None


def test_a_change_ends_what_was_read_before_it_and_of_this_tenant_alone() -> None:
    memory, tenant, other = Lately(), uuid4(), uuid4()
    before = memory.mark(NOW)
    lately.CHANGES.note(tenant)
    memory.keep("early", 1, tenant_id=tenant, mark=before)  # It may be from before the change.
    memory.keep("other", 2, tenant_id=other, mark=before)
    memory.keep("late", 3, tenant_id=tenant, mark=memory.mark(NOW))
    found = [memory.find(key, NOW) for key in ("early", "other", "late")]
    assert found == [None, 2, 3]


def test_so_many_entries_are_kept_and_no_more() -> None:
    memory, tenant = Lately(entries_max=100), uuid4()
    for number in range(105):
        memory.keep(number, number + 1, tenant_id=tenant, mark=memory.mark(NOW))
    assert memory.find(4, NOW) is None
    assert memory.find(5, NOW) == 6
    assert len(memory._entries) == 100


async def test_a_key_is_looked_up_once_in_a_moment(
    runtime: Runtime, tenant: NewTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _passes(runtime, tenant.key.token)
    monkeypatch.setattr("aforo.api.auth.requests.authenticate", None)
    assert await _passes(runtime, tenant.key.token)


async def test_a_revoked_key_is_refused_at_once(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    assert await _passes(runtime, tenant.key.token)
    async with runtime.scope(tenant_id) as scope:
        await revoke_api_key(scope, api_key_id=tenant.key.row.id)
        assert await _passes(runtime, tenant.key.token)  # Not before it is committed.
    assert not await _passes(runtime, tenant.key.token)


async def test_a_change_by_a_statement_counts_too(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    assert await _passes(runtime, tenant.key.token)
    async with runtime.scope(tenant_id) as scope:
        statement = sa.update(ApiKey).where(col(ApiKey.id) == tenant.key.row.id)
        await scope.db.execute(statement.values(revoked_at=scope.now))
    assert not await _passes(runtime, tenant.key.token)


async def test_what_another_process_changed_counts_after_the_moment(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId, clock: MovableClock
) -> None:
    assert await _passes(runtime, tenant.key.token)
    async with runtime.scope(tenant_id) as scope:
        await scope.db.execute(
            sa.text("UPDATE api_key SET revoked_at = :now"), {"now": scope.now}
        )  # Past the session's rows, as if it were another process's.
    clock.advance(timedelta(seconds=KEPT_SECONDS))
    assert not await _passes(runtime, tenant.key.token)


async def test_a_key_that_expires_is_refused_from_then_on(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId, clock: MovableClock
) -> None:
    async with runtime.scope(tenant_id) as scope:
        statement = sa.update(ApiKey).where(col(ApiKey.id) == tenant.key.row.id)
        await scope.db.execute(statement.values(expires_at=scope.now + timedelta(minutes=1)))
    assert await _passes(runtime, tenant.key.token)
    clock.advance(timedelta(minutes=1))
    assert not await _passes(runtime, tenant.key.token)
