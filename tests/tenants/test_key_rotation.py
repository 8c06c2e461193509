"""Rotation with an overlap, last use, and keys that end on every process at once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa

from aforo.api.app import create_app
from aforo.plugins import load_registry
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime, open_runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import (
    OVERLAP_MAX,
    IssuedKey,
    NewTenant,
    create_api_key,
    create_tenant,
    revoke_api_key,
    rotate_api_key,
)
from aforo.tenants.permissions import Permission
from aforo.tenants.queries import USE_NOTED_EVERY, api_keys_by_id, authenticate

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def rotate(
    runtime: Runtime, tenant_id: TenantId, api_key_id: UUID, overlap: timedelta = HOUR
) -> IssuedKey:
    async with runtime.scope(tenant_id) as scope:
        return await rotate_api_key(
            scope, api_key_id=api_key_id, overlap=overlap, pepper=runtime.settings.key_pepper
        )


async def is_let_in(runtime: Runtime, *tokens: str) -> list[bool]:
    return [await authenticate(runtime, token) is not None for token in tokens]


async def test_both_tokens_are_good_until_the_overlap_is_over_and_then_only_the_new_one(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId, clock: MovableClock
) -> None:
    old = tenant.key.token
    new = (await rotate(runtime, tenant_id, tenant.key.row.id)).token
    assert new != old
    assert new.split("_")[:3] == old.split("_")[:3]  # The part that may be shown is the same.
    assert await is_let_in(runtime, old, new) == [True, True]
    clock.move_to(clock.now() + HOUR - timedelta(microseconds=1))
    assert await is_let_in(runtime, old, new) == [True, True]
    clock.move_to(clock.now() + timedelta(microseconds=1))
    assert await is_let_in(runtime, old, new) == [False, True]


async def test_both_tokens_speak_for_the_same_key(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    new = await rotate(runtime, tenant_id, tenant.key.row.id)
    assert await authenticate(runtime, tenant.key.token) == await authenticate(runtime, new.token)


async def test_without_an_overlap_the_old_token_ends_at_once(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    new = await rotate(runtime, tenant_id, tenant.key.row.id, timedelta())
    assert await is_let_in(runtime, tenant.key.token, new.token) == [False, True]


async def test_a_second_rotation_leaves_the_last_two_tokens(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    second = await rotate(runtime, tenant_id, tenant.key.row.id)
    third = await rotate(runtime, tenant_id, tenant.key.row.id)
    tokens = (tenant.key.token, second.token, third.token)
    assert await is_let_in(runtime, *tokens) == [False, True, True]


async def test_revocation_ends_both_tokens(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    new = await rotate(runtime, tenant_id, tenant.key.row.id)
    async with runtime.scope(tenant_id) as scope:
        await revoke_api_key(scope, api_key_id=tenant.key.row.id)
    assert await is_let_in(runtime, tenant.key.token, new.token) == [False, False]
    with pytest.raises(Conflict, match="has ended"):
        await rotate(runtime, tenant_id, tenant.key.row.id)


async def test_what_cannot_be_rotated_is_refused_and_keeps_its_token(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    key_id = tenant.key.row.id
    stranger = await create_tenant(runtime, name="Stranger")
    for overlap in (OVERLAP_MAX + timedelta(seconds=1), timedelta(seconds=-1)):
        with pytest.raises(Invalid, match="0 to 604800 seconds"):
            await rotate(runtime, tenant_id, key_id, overlap)
    messages = set()
    for other in (stranger.key.row.id, new_id()):
        with pytest.raises(NotFound) as refused:
            await rotate(runtime, tenant_id, other)
        messages.add(refused.value.message)
    assert len(messages) == 1
    with pytest.raises(Invalid) as lacking:
        async with runtime.scope(tenant_id) as scope:
            await rotate_api_key(
                scope,
                api_key_id=key_id,
                overlap=HOUR,
                pepper=runtime.settings.key_pepper,
                granted_by=[Permission.ACCESS_WRITE],
            )
    assert (lacking.value.code, lacking.value.field) == ("SCOPE_NOT_HELD", "apiKeyId")
    assert await is_let_in(runtime, tenant.key.token, stranger.key.token) == [True, True]
    async with runtime.scope(tenant_id) as scope:
        row = (await api_keys_by_id(scope, [key_id]))[key_id]
    assert (row.previous_secret_hash, row.previous_until) == (None, None)


async def test_an_expired_key_is_not_brought_back(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    async with runtime.scope(tenant_id) as scope:
        key = await create_api_key(
            scope,
            name="short",
            scopes=[Permission.CHECK],
            pepper=runtime.settings.key_pepper,
            expires_at=clock.now() + HOUR,
        )
    new = await rotate(runtime, tenant_id, key.row.id, OVERLAP_MAX)
    clock.move_to(clock.now() + HOUR)
    assert await is_let_in(runtime, key.token, new.token) == [False, False]
    with pytest.raises(Conflict, match="has ended"):
        await rotate(runtime, tenant_id, key.row.id)


# Last use.


async def test_last_use_is_written_beside_the_request_and_at_most_once_a_minute(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId, clock: MovableClock
) -> None:
    first = clock.now()
    written: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("UPDATE api_key"):
            written.append(statement)

    sa.event.listen(runtime.app.sync_engine, "before_cursor_execute", note)
    try:
        for passed in (0, 1, 59, 60, 61):
            clock.move_to(first + timedelta(seconds=passed))
            for _ in range(3):
                assert await authenticate(runtime, tenant.key.token) is not None
                await runtime.background.settle()
    finally:
        sa.event.remove(runtime.app.sync_engine, "before_cursor_execute", note)
    assert timedelta(seconds=60) == USE_NOTED_EVERY
    assert len(written) == 2
    async with runtime.scope(tenant_id) as scope:
        row = (await api_keys_by_id(scope, [tenant.key.row.id]))[tenant.key.row.id]
    assert row.last_used_at == first + timedelta(seconds=60)


async def test_many_uses_at_once_are_written_once(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId, clock: MovableClock
) -> None:
    await asyncio.gather(*(authenticate(runtime, tenant.key.token) for _ in range(50)))
    await runtime.background.settle()
    async with runtime.scope(tenant_id) as scope:
        version = "SELECT xmin::text, last_used_at FROM api_key"
        before = (await scope.db.execute(sa.text(version))).one()
    clock.move_to(clock.now() + timedelta(seconds=59))
    await asyncio.gather(*(authenticate(runtime, tenant.key.token) for _ in range(50)))
    await runtime.background.settle()
    async with runtime.scope(tenant_id) as scope:
        assert (await scope.db.execute(sa.text(version))).one() == before


async def test_a_forged_or_revoked_token_is_no_use(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    other = await create_tenant(runtime, name="Other")
    mine, theirs = tenant.key.row.public_id, other.key.row.public_id
    async with runtime.scope(tenant_id) as scope:
        await revoke_api_key(scope, api_key_id=tenant.key.row.id)
    assert not any(
        await is_let_in(
            runtime,
            tenant.key.token,
            tenant.key.token.replace(mine, theirs),
        )
    )
    await runtime.background.settle()
    async with runtime.scope(tenant_id) as scope:
        row = (await api_keys_by_id(scope, [tenant.key.row.id]))[tenant.key.row.id]
        assert row.last_used_at is None


# Every process.


async def test_a_revoked_key_ends_on_every_process_at_once(
    runtime: Runtime, tenant: NewTenant, tenant_id: TenantId
) -> None:
    second = open_runtime(runtime.settings, load_registry(), runtime.clock)
    apps = [create_app(runtime), create_app(second)]
    clients = [
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://aforo.test",
            headers={"Authorization": f"Bearer {tenant.key.token}"},
        )
        for app in apps
    ]
    asked = {"query": "{ tenant { name } }"}
    statuses = [(await client.post("/graphql", json=asked)).status_code for client in clients]
    assert statuses == [200, 200]
    async with runtime.scope(tenant_id) as scope:
        await revoke_api_key(scope, api_key_id=tenant.key.row.id)
    statuses = [(await client.post("/graphql", json=asked)).status_code for client in clients]
    assert statuses == [401, 401]
    for client in clients:
        await client.aclose()
    await second.close()
