"""Reads about tenants and their API keys, the one before there is a scope included."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.audit import Thing
from aforo.storage.faults import answered_within
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Runtime, Scope
from aforo.tenants.keys import Token, parse_token
from aforo.tenants.models import ApiKey, Environment, PortalToken, Sandbox, Tenant
from aforo.tenants.permissions import PORTAL_PERMISSIONS, Permission

AUTHENTICATION_TIMEOUT_SECONDS = 10.0
USE_NOTED_EVERY = timedelta(minutes=1)
_NOBODY = bytes(32)

S = TypeVar("S", ApiKey, PortalToken)


class CallerKind(StrEnum):
    """By what a caller is known."""

    API_KEY = "api_key"
    MEMBER = "member"
    PORTAL = "portal"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: somebody of one tenant, and what that somebody may do."""

    tenant_id: TenantId
    kind: CallerKind
    id: UUID
    """Of the API key, the member, or the portal session."""
    permissions: frozenset[Permission]
    environment: Environment
    label: str = ""
    """Tells a person which one it is: the public id of a key, the address of a member."""
    customer_id: CustomerId | None = None
    """Whose data alone a portal session reaches; None for all other kinds."""

    @property
    def named(self) -> str:
        """The caller in a sentence that is said to it."""
        return _NAMED[self.kind]


_NAMED = {
    CallerKind.API_KEY: "this API key",
    CallerKind.MEMBER: "your role",
    CallerKind.PORTAL: "this portal token",
}


async def authenticate(runtime: Runtime, token: str) -> Caller | None:
    """Whose token this is; None if it is nobody's, revoked or expired.

    Raises `Unavailable` where PostgreSQL cannot be reached or takes too long.
    """
    return (await authenticate_all(runtime, [token])).get(token)


async def authenticate_all(runtime: Runtime, tokens: Collection[str]) -> dict[str, Caller]:
    """Whose tokens these are, as `authenticate` says it of each, by token; nobody's are left out.

    Raises `Unavailable` where PostgreSQL cannot be reached or takes too long.
    """
    parsed = {token: found for token in tokens if (found := parse_token(token))}
    if not parsed:
        return {}
    async with (
        answered_within(AUTHENTICATION_TIMEOUT_SECONDS),
        runtime.system("authenticate") as db,
    ):
        # The system role sees every tenant's keys: no tenant is known before they are found.
        keys = await _known(db, ApiKey, [each for each in parsed.values() if each.environment])
        portals = await _known(
            db, PortalToken, [each for each in parsed.values() if not each.environment]
        )
    now, pepper = runtime.clock.now(), runtime.settings.key_pepper
    callers: dict[str, Caller] = {}
    for text, token in parsed.items():
        if token.environment is None:
            caller = _portal_caller(portals.get(token.public_id), token, pepper=pepper, now=now)
        else:
            key = keys.get(token.public_id)
            caller = _key_caller(key, token, pepper=pepper, now=now)
            if key is not None and caller is not None and _is_news(key.last_used_at, now):
                is_first = key.last_used_at is None
                work = partial(_note_use, runtime, caller, is_first=is_first)
                runtime.background.start(("api key used", key.id), work)
            if key is not None and caller is None:
                _note_misuse(runtime, key, token, now)
        if caller is not None:
            callers[text] = caller
    return callers


def _note_misuse(runtime: Runtime, row: ApiKey, token: Token, now: datetime) -> None:
    """A key that was good once, or whose secret somebody guesses, is the tenant's business."""
    if row.revoked_at is not None:
        reason = "REVOKED"
    elif row.expires_at is not None and row.expires_at <= now:
        reason = "EXPIRED"
    else:
        reason = "WRONG_SECRET"
    actor = Actor(ActorKind.API_KEY, id=row.id, label=token.public_id).here()
    tenant_id = TenantId(row.tenant_id)
    runtime.refusals.note(runtime, tenant_id, actor, action="authenticate", reason=reason)


async def tenant(scope: Scope) -> Tenant:
    """The tenant in scope."""
    row: Tenant | None = await scope.db.scalar(sa.select(Tenant))
    assert row is not None, "a scope is always of a tenant that exists"
    return row


def api_keys(*, order: AgeOrder = AgeOrder.OLDEST_FIRST) -> Listing[ApiKey]:
    """The tenant's keys, also those that are revoked or expired."""
    return Listing(ApiKey, order=order)


async def api_keys_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, ApiKey]:
    return await rows_by_id(scope, ApiKey, ids)


async def sandboxes(scope: Scope) -> list[Sandbox]:
    """The sandboxes of the tenant in scope, oldest first: there are at most so many."""
    return list(await scope.db.scalars(sa.select(Sandbox).order_by(col(Sandbox.id))))


async def sandboxes_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Sandbox]:
    return await rows_by_id(scope, Sandbox, ids)


def portal_tokens(
    *, customer_id: UUID | None = None, order: AgeOrder = AgeOrder.OLDEST_FIRST
) -> Listing[PortalToken]:
    """The tenant's portal tokens, or one customer's, also some that have ended."""
    return Listing(PortalToken, equal(PortalToken.customer_id, customer_id), order)


async def portal_tokens_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, PortalToken]:
    return await rows_by_id(scope, PortalToken, ids)


async def tenants_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Tenant]:
    """The tenant in scope, if it is among these: nobody sees another one."""
    return {scope.tenant_id: await tenant(scope)} if scope.tenant_id in ids else {}


async def _known(db: AsyncSession, table: type[S], tokens: Collection[Token]) -> dict[str, S]:
    """The rows of tokens by public id; without a statement where there are none."""
    if not tokens:
        return {}
    ids = sorted({token.public_id for token in tokens})
    rows = await db.scalars(sa.select(table).where(col(table.public_id).in_(ids)))
    return {row.public_id: row for row in rows}


def _key_caller(row: ApiKey | None, token: Token, *, pepper: str, now: datetime) -> Caller | None:
    # The comparisons are made also where there is no row, so that the time tells nothing.
    matches = token.matches(row.secret_hash if row else _NOBODY, pepper)
    matched = token.matches((row.previous_secret_hash if row else None) or _NOBODY, pepper)
    if row is None or row.revoked_at is not None:
        return None
    if not matches and not (matched and row.previous_until and now < row.previous_until):
        return None
    if row.expires_at is not None and row.expires_at <= now:
        return None
    assert token.environment is not None, "the tokens of API keys have one"
    return Caller(
        tenant_id=TenantId(row.tenant_id),
        kind=CallerKind.API_KEY,
        id=row.id,
        permissions=frozenset(Permission(each) for each in row.scopes),
        environment=token.environment,
        label=row.public_id,
    )


def _portal_caller(
    row: PortalToken | None, token: Token, *, pepper: str, now: datetime
) -> Caller | None:
    matches = token.matches(row.secret_hash if row else _NOBODY, pepper)
    if row is None or not matches or row.revoked_at is not None or row.expires_at <= now:
        return None
    return Caller(
        tenant_id=TenantId(row.tenant_id),
        kind=CallerKind.PORTAL,
        id=row.id,
        permissions=PORTAL_PERMISSIONS,
        environment=row.environment,
        label=row.public_id,
        customer_id=CustomerId(row.customer_id),
    )


def _is_news(last_used_at: datetime | None, now: datetime) -> bool:
    return last_used_at is None or last_used_at + USE_NOTED_EVERY <= now


async def _note_use(runtime: Runtime, caller: Caller, *, is_first: bool) -> None:
    """Write when a key was used, unless another process has just done so."""
    actor = Actor(ActorKind.API_KEY, id=caller.id, label=caller.label).here()
    async with runtime.scope(caller.tenant_id, actor) as scope:
        noted = await scope.db.execute(
            sa.update(ApiKey)
            .where(
                col(ApiKey.id) == caller.id,
                sa.or_(
                    col(ApiKey.last_used_at).is_(None),
                    col(ApiKey.last_used_at) <= scope.now - USE_NOTED_EVERY,
                ),
            )
            .values(last_used_at=scope.now)
            .returning(col(ApiKey.id))
            .execution_options(synchronize_session=False)
        )
        if is_first and noted.first() is not None:
            await scope.record("useApiKeyFirst", Thing("ApiKey", caller.id))
