"""Tenants and API keys on the real database."""

from datetime import timedelta

import pytest

from aforo.sdk.errors import Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import NewTenant, create_api_key, create_tenant, revoke_api_key
from aforo.tenants.models import Environment
from aforo.tenants.permissions import EVERY_PERMISSION, Permission
from aforo.tenants.queries import CallerKind, api_keys, authenticate
from aforo.tenants.queries import tenant as tenant_in_scope

pytestmark = pytest.mark.anyio


async def test_the_first_key_speaks_for_its_tenant(runtime: Runtime, tenant: NewTenant) -> None:
    caller = await authenticate(runtime, tenant.key.token)
    assert caller is not None
    assert caller.tenant_id == tenant.tenant.tenant_id
    assert (caller.kind, caller.id) == (CallerKind.API_KEY, tenant.key.row.id)
    assert caller.permissions == EVERY_PERMISSION
    assert caller.customer_id is None
    assert caller.environment is Environment.LIVE


async def test_a_sandbox_has_keys_that_say_so(runtime: Runtime) -> None:
    sandbox = await create_tenant(runtime, name="Sandbox", environment=Environment.TEST)
    assert sandbox.key.token.startswith("afo_test_")
    caller = await authenticate(runtime, sandbox.key.token)
    assert caller is not None
    assert caller.environment is Environment.TEST


async def test_a_key_with_a_forged_secret_is_nobody(runtime: Runtime, tenant: NewTenant) -> None:
    stranger = await create_tenant(runtime, name="Stranger")
    ours, theirs = tenant.key.row, stranger.key.row
    async with runtime.scope(TenantId(tenant.tenant.tenant_id)) as scope:
        key = await create_api_key(
            scope, name="second", scopes=[Permission.USAGE_READ], pepper=runtime.settings.key_pepper
        )
    assert ours.public_id != theirs.public_id
    forged = key.token.replace(key.row.public_id, theirs.public_id)
    assert await authenticate(runtime, forged) is None
    assert await authenticate(runtime, key.token) is not None


async def test_a_revoked_key_is_nobody(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        first = await revoke_api_key(scope, api_key_id=tenant.key.row.id)
    async with runtime.scope(tenant_id) as scope:
        again = await revoke_api_key(scope, api_key_id=tenant.key.row.id)
    assert again.revoked_at == first.revoked_at
    assert await authenticate(runtime, tenant.key.token) is None


async def test_a_key_is_nobody_from_the_moment_on_at_which_it_expires(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    end = clock.now() + timedelta(hours=1)
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="short",
            scopes=[Permission.USAGE_READ],
            pepper=runtime.settings.key_pepper,
            expires_at=end,
        )
    clock.move_to(end - timedelta(microseconds=1))
    assert await authenticate(runtime, key.token) is not None
    clock.move_to(end)
    assert await authenticate(runtime, key.token) is None


async def test_the_secret_is_stored_nowhere(runtime: Runtime, tenant: NewTenant) -> None:
    secret = tenant.key.token.split("_")[3]
    async with runtime.scope(TenantId(tenant.tenant.tenant_id)) as scope:
        [row] = await api_keys().page(scope, after=None, first=2)
    assert secret not in repr(row)
    assert secret.encode() not in row.secret_hash


async def test_a_key_without_a_scope_or_name_is_refused_and_not_written(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    pepper = runtime.settings.key_pepper
    for name, scopes, field in (("x", [], "scopes"), ("  ", [Permission.USAGE_READ], "name")):
        with pytest.raises(Invalid) as refused:
            async with runtime.scope(tenant_id) as scope:
                await create_api_key(scope, name=name, scopes=scopes, pepper=pepper)
        assert refused.value.field == field
    async with runtime.scope(tenant_id) as scope:
        assert len(await api_keys().page(scope, after=None, first=10)) == 1


async def test_another_tenants_key_cannot_be_revoked(runtime: Runtime, tenant_id: TenantId) -> None:
    stranger = await create_tenant(runtime, name="Stranger")
    messages = set()
    for api_key_id in (stranger.key.row.id, new_id()):
        with pytest.raises(NotFound) as refused:
            async with runtime.scope(tenant_id) as scope:
                await revoke_api_key(scope, api_key_id=api_key_id)
        messages.add(refused.value.message)
    assert len(messages) == 1
    assert await authenticate(runtime, stranger.key.token) is not None


async def test_a_scope_sees_its_own_tenant_alone(runtime: Runtime, tenant_id: TenantId) -> None:
    await create_tenant(runtime, name="Stranger")
    async with runtime.scope(tenant_id) as scope:
        assert (await tenant_in_scope(scope)).tenant_id == tenant_id
