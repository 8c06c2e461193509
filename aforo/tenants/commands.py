"""Writes about tenants and their API keys."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.actors import INSTALLATION, Actor
from aforo.storage.event_types import EventType
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.tenants.keys import make_token
from aforo.tenants.members import OPERATOR, IssuedInvitation, invite
from aforo.tenants.models import ApiKey, Environment, PortalToken, Sandbox, Tenant
from aforo.tenants.permissions import (
    EVERY_PERMISSION,
    PORTAL_PERMISSIONS,
    Permission,
    Role,
)
from aforo.tenants.queries import sandboxes
from aforo.tenants.queries import tenant as tenant_in_scope
from aforo.tenants.standing import alone_with_grants

NAME_CHARACTERS_MAX = 200
SANDBOXES_MAX = 20
OVERLAP_MAX = timedelta(days=7)
"""Of the tokens before and after a rotation."""
PORTAL_LIFETIME_MIN = timedelta(minutes=1)
PORTAL_LIFETIME_MAX = timedelta(hours=1)
PORTAL_TOKENS_MAX = 1_000
"""Of one customer that are good at the same time."""
PORTAL_KEPT = timedelta(days=1)
"""How long what is left of an expired token can be looked at."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. The token is in nobody's hands but the caller's: it is shown once."""

    row: ApiKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuedPortalToken:
    """A new portal token, shown this once."""

    row: PortalToken
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """A new sandbox with its first key."""

    row: Sandbox
    key: IssuedKey


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant with the key that it starts with, and the invitation of its first owner."""

    tenant: Tenant
    key: IssuedKey
    invitation: IssuedInvitation | None = None


async def create_tenant(
    runtime: Runtime,
    *,
    name: str,
    environment: Environment = Environment.LIVE,
    owner_email: str | None = None,
    by: Actor = INSTALLATION,
) -> NewTenant:
    """Create a tenant and its first key, which may do everything, and ask its first owner in.

    Takes the runtime, not a scope: there is no tenant to be in the scope of yet. Raises `Invalid`.
    """
    pepper = runtime.settings.key_pepper
    tenant_id = TenantId(new_id())
    async with runtime.scope(tenant_id, by.doing("createTenant")) as scope:
        tenant = Tenant(
            tenant_id=tenant_id,
            name=_checked_name(name),
            environment=environment,
            created_at=scope.now,
        )
        scope.db.add(tenant)
        await scope.db.flush()
        key = await create_api_key(scope, name="First key", scopes=EVERY_PERMISSION, pepper=pepper)
        invitation = None
        if owner_email is not None:
            invitation = await invite(
                scope, granter=OPERATOR, email=owner_email, role=Role.OWNER, pepper=pepper
            )
    return NewTenant(tenant, key, invitation)


async def create_sandbox(runtime: Runtime, scope: Scope, *, name: str) -> NewSandbox:
    """Make an empty tenant for trying things out, linked to the one in scope, with its first key.

    Both in the transaction of the scope. Raises `Invalid`; `Conflict` where the name is taken,
    there are as many as there may be, or the scope is a sandbox's own.
    """
    name = _checked_name(name)
    if (await tenant_in_scope(scope)).environment is not Environment.LIVE:
        raise Conflict("a sandbox has no sandboxes of its own", code="IN_SANDBOX")
    # Whoever makes another one at the same time waits here, and then counts this one as well.
    await scope.db.execute(
        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"sandbox {scope.tenant_id}")))
    )
    known = await sandboxes(scope)
    if any(each.name == name for each in known):
        raise Conflict("there is a sandbox of this name", code="NAME_TAKEN", field="name")
    if len(known) >= SANDBOXES_MAX:
        raise Conflict(
            f"a tenant has at most {SANDBOXES_MAX} sandboxes: use one of them",
            code="TOO_MANY_SANDBOXES",
        )
    sandbox_id = TenantId(new_id())
    row = Sandbox(name=name, sandbox_tenant_id=sandbox_id)
    scope.db.add(row)
    async with runtime.founded(scope, sandbox_id) as inside:
        inside.db.add(
            Tenant(
                tenant_id=sandbox_id,
                name=name,
                environment=Environment.TEST,
                created_at=scope.now,
                live_tenant_id=scope.tenant_id,
            )
        )
        await inside.db.flush()
        key = await create_api_key(
            inside,
            name="First key",
            scopes=EVERY_PERMISSION,  # Of an empty place: there is nothing to be held back.
            pepper=runtime.settings.key_pepper,
        )
    return NewSandbox(row, key)


async def create_api_key(
    scope: Scope,
    *,
    name: str,
    scopes: Collection[Permission],
    pepper: str,
    expires_at: datetime | None = None,
    granted_by: Collection[Permission] = EVERY_PERMISSION,
) -> IssuedKey:
    """Create a key of the tenant in scope, with scopes among those that `granted_by` lists.

    Raises `Invalid`.
    """
    if not scopes:
        raise Invalid("a key needs at least one scope, such as USAGE_READ", field="scopes")
    _check_held(scopes, by=granted_by, field="scopes")
    if expires_at is not None and expires_at <= scope.now:
        raise Invalid("a key cannot expire before it exists", field="expiresAt")
    token = make_token((await tenant_in_scope(scope)).environment)
    row = ApiKey(
        public_id=token.public_id,
        secret_hash=token.hashed(pepper),
        name=_checked_name(name),
        scopes=[each.value for each in Permission if each in scopes],
        expires_at=expires_at,
    )
    scope.db.add(row)
    await scope.db.flush()
    await _publish(scope, EventType.API_KEY_CREATED, row)
    return IssuedKey(row, str(token))


async def rotate_api_key(
    scope: Scope,
    *,
    api_key_id: UUID,
    overlap: timedelta,
    pepper: str,
    granted_by: Collection[Permission] = EVERY_PERMISSION,
) -> IssuedKey:
    """Give a key a new token; the one before it stays good for the overlap, and no other does.

    Raises `Invalid`, `NotFound`, `Conflict`.
    """
    if not timedelta() <= overlap <= OVERLAP_MAX:
        raise Invalid(
            f"an overlap is 0 to {OVERLAP_MAX.total_seconds():.0f} seconds", field="overlapSeconds"
        )
    row = await _locked_key(scope, api_key_id)
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= scope.now):
        raise Conflict("the key has ended: make a new one", code="API_KEY_ENDED", field="apiKeyId")
    # Who gets the token can do what the key can.
    _check_held([Permission(each) for each in row.scopes], by=granted_by, field="apiKeyId")
    environment = (await tenant_in_scope(scope)).environment
    token = make_token(environment, public_id=row.public_id)
    row.previous_secret_hash, row.previous_until = row.secret_hash, scope.now + overlap
    row.secret_hash = token.hashed(pepper)
    await scope.db.flush()
    await _publish(scope, EventType.API_KEY_ROTATED, row)
    return IssuedKey(row, str(token))


async def revoke_api_key(scope: Scope, *, api_key_id: UUID) -> ApiKey:
    """End a key at once and for good; a key that is revoked already stays as it is.

    Raises `NotFound`.
    """
    await alone_with_grants(scope)
    row = await _locked_key(scope, api_key_id)
    if row.revoked_at is None:
        row.revoked_at = scope.now
        await scope.db.flush()
        await _publish(scope, EventType.API_KEY_REVOKED, row)
    return row


async def create_portal_token(
    scope: Scope,
    *,
    customer_id: UUID,
    lifetime: timedelta,
    pepper: str,
    granted_by: Collection[Permission] = EVERY_PERMISSION,
) -> IssuedPortalToken:
    """Let a customer's users in for a short time, to that customer's data alone.

    Raises `Invalid`; `Conflict` where 1,000 tokens of the customer are good at once. Whether there
    is such a customer is for the caller to say.
    """
    if not PORTAL_LIFETIME_MIN <= lifetime <= PORTAL_LIFETIME_MAX:
        least, most = (each.total_seconds() for each in (PORTAL_LIFETIME_MIN, PORTAL_LIFETIME_MAX))
        raise Invalid(
            f"a portal token lives {least:.0f} to {most:.0f} seconds", field="lifetimeSeconds"
        )
    # Who may not read what a portal reads must not get at it by way of a token.
    _check_held(PORTAL_PERMISSIONS, by=granted_by, field=None)
    own = col(PortalToken.customer_id) == customer_id
    await scope.db.execute(
        sa.delete(PortalToken).where(own, col(PortalToken.expires_at) < scope.now - PORTAL_KEPT)
    )
    good = sa.select(sa.func.count(col(PortalToken.id))).where(
        own, col(PortalToken.expires_at) > scope.now, col(PortalToken.revoked_at).is_(None)
    )
    if (await scope.db.scalar(good) or 0) >= PORTAL_TOKENS_MAX:
        raise Conflict(
            f"{PORTAL_TOKENS_MAX} tokens of this customer are good now: use one for longer, or "
            "revoke some",
            code="TOO_MANY_PORTAL_TOKENS",
            field="customerId",
        )
    token = make_token(None)
    row = PortalToken(
        customer_id=customer_id,
        environment=(await tenant_in_scope(scope)).environment,
        public_id=token.public_id,
        secret_hash=token.hashed(pepper),
        expires_at=scope.now + lifetime,
    )
    scope.db.add(row)
    await scope.db.flush()
    return IssuedPortalToken(row, str(token))


async def revoke_portal_token(scope: Scope, *, portal_token_id: UUID) -> PortalToken:
    """End a portal token at once; one that has ended already stays as it is. Raises `NotFound`."""
    row: PortalToken | None = await scope.db.scalar(
        sa.select(PortalToken).where(col(PortalToken.id) == portal_token_id).with_for_update()
    )
    if row is None:
        raise NotFound("there is no such portal token", field="portalTokenId")
    if row.revoked_at is None:
        row.revoked_at = scope.now
        await scope.db.flush()
    return row


async def _publish(scope: Scope, kind: EventType, key: ApiKey) -> None:
    await scope.publish(
        kind,
        object_id=key.id,
        data={"apiKey": key.id, "publicId": key.public_id, "name": key.name},
    )


async def _locked_key(scope: Scope, api_key_id: UUID) -> ApiKey:
    row: ApiKey | None = await scope.db.scalar(
        sa.select(ApiKey).where(col(ApiKey.id) == api_key_id).with_for_update()
    )
    if row is None:
        raise NotFound("there is no such API key", field="apiKeyId")
    return row


def _check_held(
    scopes: Collection[Permission], *, by: Collection[Permission], field: str | None
) -> None:
    if lacking := [each.name for each in Permission if each in scopes and each not in by]:
        # Else whoever may write could make himself a key that may do everything.
        raise Invalid(
            f"you lack {' and '.join(lacking)} yourself: you hand on only what you may do",
            code="SCOPE_NOT_HELD",
            field=field,
        )


def _checked_name(name: str) -> str:
    cleaned = name.strip()
    if not 1 <= len(cleaned) <= NAME_CHARACTERS_MAX:
        raise Invalid(f"a name has 1 to {NAME_CHARACTERS_MAX} characters", field="name")
    return cleaned
