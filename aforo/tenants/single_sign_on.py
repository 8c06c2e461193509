"""Signing in at the tenant's identity provider: sent there, come back, and known as a member."""

from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import Conflict, Forbidden, Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.audit import Thing
from aforo.storage.rows import add_unique
from aforo.storage.scope import Runtime, Scope
from aforo.tenants.addresses import email_of
from aforo.tenants.members import NAME_CHARACTERS_MAX, join, open_invitation
from aforo.tenants.models import (
    ExternalLogin,
    IdentityProvider,
    Member,
    MemberState,
    SignInMethod,
    UsedState,
)
from aforo.tenants.oidc import (
    FLOW_LIFE,
    Flow,
    NotSignedIn,
    Person,
    authorization_url,
    id_token_of,
    person_of,
    token_request,
)
from aforo.tenants.providers import Providers, client_secret_of, identity_provider
from aforo.tenants.sessions import Client, SignedIn, actor_of_member, begin_session
from aforo.tenants.throttle import count_try


@dataclass(frozen=True, slots=True)
class Departure:
    """A browser on its way to the provider."""

    url: str
    flow: Flow = field(repr=False)


async def issuer_of(runtime: Runtime, tenant_id: UUID) -> str:
    """The provider of a tenant.

    Raises: `NotFound` where the tenant has none, or there is no such tenant.
    """
    return (await _provider(runtime, tenant_id)).issuer


async def depart(
    runtime: Runtime,
    providers: Providers,
    *,
    tenant_id: UUID,
    return_to: str,
    redirect_uri: str,
    here: SignedIn | None,
) -> Departure:
    """Where to send a browser, and what it is to remember: also who is signed in `here`, and
    agreed to leave that session.

    Raises: `NotFound` where the tenant has no provider, or there is no such tenant; `NotSignedIn`.
    """
    row = await _provider(runtime, tenant_id)
    metadata = await providers.metadata(TenantId(tenant_id), row.issuer)
    leaves = here.session.id if here else None
    flow = Flow(tenant_id, runtime.clock.now() + FLOW_LIFE, return_to, leaves)
    url = authorization_url(metadata, flow, client_id=row.client_id, redirect_uri=redirect_uri)
    return Departure(url, flow)


async def arrive(
    runtime: Runtime,
    providers: Providers,
    flow: Flow,
    *,
    code: str,
    issuer: str | None,
    redirect_uri: str,
    client: Client,
    here: SignedIn | None,
) -> SignedIn:
    """Let somebody in whom the provider sent back with a code, to a browser in which whoever is
    `here` is signed in.

    Raises: `NotSignedIn`, `Forbidden` for whoever is no member, `TooManyTries`, `Conflict` where
    that is somebody else whose session nobody agreed to leave.
    """
    tried = await count_try(runtime, address=client.address)
    try:
        row, person = await _person(
            runtime, providers, flow, code=code, issuer=issuer, redirect_uri=redirect_uri
        )
        signed_in = await _let_in(
            runtime, flow, provider=row, person=person, client=client, here=here
        )
    except (NotSignedIn, Forbidden) as error:
        stranger = Actor(ActorKind.MEMBER, label="somebody at the identity provider").here()
        tenant_id = TenantId(flow.tenant_id)
        runtime.refusals.note(runtime, tenant_id, stranger, action="signIn", reason=error.code)
        raise
    await tried.forgive()
    return signed_in


async def _person(
    runtime: Runtime,
    providers: Providers,
    flow: Flow,
    *,
    code: str,
    issuer: str | None,
    redirect_uri: str,
) -> tuple[IdentityProvider, Person]:
    tenant_id = TenantId(flow.tenant_id)
    async with runtime.scope(tenant_id) as scope:
        row = await identity_provider(scope)
        secret = await client_secret_of(scope, row) if row else ""
    if row is None or issuer not in {None, row.issuer}:
        raise NotSignedIn("the answer is of another identity provider than the tenant's")
    metadata = await providers.metadata(tenant_id, row.issuer)
    headers, body = token_request(
        metadata,
        flow,
        code=code,
        client_id=row.client_id,
        client_secret=secret,
        redirect_uri=redirect_uri,
    )
    token = id_token_of(*await providers.tokens(tenant_id, metadata, headers, body))
    person = person_of(
        token,
        await providers.key(tenant_id, metadata, token),
        issuer=row.issuer,
        client_id=row.client_id,
        nonce=flow.nonce,
        now=runtime.clock.now(),
    )
    return row, person


async def _let_in(
    runtime: Runtime,
    flow: Flow,
    *,
    provider: IdentityProvider,
    person: Person,
    client: Client,
    here: SignedIn | None,
) -> SignedIn:
    pepper = runtime.settings.key_pepper
    async with runtime.scope(TenantId(flow.tenant_id)) as scope:
        await _use_up(scope, flow)
        member = await _member_of(scope, provider, person, pepper)
        if here is not None and here.member.id != member.id and here.session.id != flow.leaves:
            raise Conflict(
                f"{here.member.email} of {here.tenant.name} has signed in in this browser: begin "
                "again, and you are asked whether to leave that session",
                code="SIGNED_IN_MEANWHILE",
            )
        return await begin_session(
            scope, member, method=SignInMethod.OIDC, client=client, pepper=pepper
        )


async def _provider(runtime: Runtime, tenant_id: UUID) -> IdentityProvider:
    async with runtime.scope(TenantId(tenant_id)) as scope:
        row = await identity_provider(scope)
    if row is None:
        raise NotFound("this tenant has no identity provider: sign in by password", field="tenant")
    return row


async def _use_up(scope: Scope, flow: Flow) -> None:
    await scope.db.execute(sa.delete(UsedState).where(col(UsedState.expires_at) <= scope.now))
    used = UsedState(state_hash=sha256(flow.state.encode()).digest(), expires_at=flow.expires_at)
    taken = Conflict("this sign-in was finished already: begin again", code="STATE_USED")
    await add_unique(scope, used, taken=taken)


async def _member_of(
    scope: Scope, provider: IdentityProvider, person: Person, pepper: str
) -> Member:
    """The member whom a person is: by the provider's own name of the person, else by a verified
    address of a domain that the provider speaks for. Raises `Forbidden`."""
    known = await scope.db.scalar(
        sa.select(ExternalLogin).where(
            col(ExternalLogin.issuer) == person.issuer,
            col(ExternalLogin.subject) == person.subject,
        )
    )
    if known is not None:
        member = await scope.db.scalar(
            sa.select(Member).where(col(Member.id) == known.member_id).with_for_update()
        )
        if member is not None and member.state is MemberState.ACTIVE:
            return member
    email = _trusted_email(provider, person)
    member = await scope.db.scalar(
        sa.select(Member).where(col(Member.email) == email).with_for_update()
    )
    if member is None or member.state is not MemberState.ACTIVE:
        member = await _joined(scope, provider, person, email, is_new=member is None, pepper=pepper)
    if known is None:
        await _link(scope, member, person)
    elif known.member_id != member.id:
        raise _another_person()
    return member


async def _joined(
    scope: Scope,
    provider: IdentityProvider,
    person: Person,
    email: str,
    *,
    is_new: bool,
    pepper: str,
) -> Member:
    invitation = await open_invitation(scope, email=email, pepper=pepper)
    # Whoever was removed comes back by invitation alone.
    role = invitation.role if invitation else provider.default_role if is_new else None
    if role is None:
        raise Forbidden("you are no member of this tenant; ask for an invitation")
    if invitation is not None:
        invitation.accepted_at = scope.now
    member = await join(scope, email=email, name=_name(person, email), role=role, account_id=None)
    joined = Thing("Member", member.id, after={"email": email, "role": role})
    await scope.record("joinByIdentityProvider", joined, by=actor_of_member(member))
    return member


async def _link(scope: Scope, member: Member, person: Person) -> None:
    others = sa.select(ExternalLogin).where(
        col(ExternalLogin.member_id) == member.id, col(ExternalLogin.issuer) == person.issuer
    )
    if await scope.db.scalar(others) is not None:
        # An address that was given to somebody else: not the same person any more.
        raise _another_person()
    login = ExternalLogin(member_id=member.id, issuer=person.issuer, subject=person.subject)
    taken = Conflict("this sign-in runs twice at the same time: try again")
    await add_unique(scope, login, taken=taken)
    linked = Thing("ExternalLogin", login.id, after={"issuer": person.issuer})
    await scope.record("linkIdentity", linked, by=actor_of_member(member))


def _trusted_email(provider: IdentityProvider, person: Person) -> str:
    try:
        email = email_of(person.email or "")
    except Invalid as error:
        raise Forbidden("the identity provider vouches for no e-mail address of yours") from error
    if email.rpartition("@")[2] not in provider.domains:
        raise Forbidden("the tenant's identity provider does not speak for your e-mail address")
    return email


def _name(person: Person, email: str) -> str:
    shown = "".join(each for each in person.name or "" if each.isprintable())
    return shown.strip()[:NAME_CHARACTERS_MAX].strip() or email.partition("@")[0]


def _another_person() -> Forbidden:
    return Forbidden(
        "a member has your e-mail address, but is another person at the identity provider; an "
        "owner has to remove that member first"
    )
