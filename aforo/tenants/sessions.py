"""Sessions of members: begun, found by their token, and ended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.audit import Thing
from aforo.storage.faults import answered_within
from aforo.storage.scope import AccountScope, Runtime, Scope
from aforo.tenants.models import Member, MemberSession, MemberState, SignInMethod, Tenant
from aforo.tenants.permissions import permissions_of
from aforo.tenants.queries import AUTHENTICATION_TIMEOUT_SECONDS, Caller, CallerKind
from aforo.tenants.tokens import PersonalToken, Purpose

IDLE_MAX = timedelta(hours=12)
"""A session that nobody used for so long is over."""
LIFE_MAX = timedelta(days=7)
"""No session lives longer, used or not."""
SEEN_EVERY = timedelta(minutes=1)
"""How exactly its last use is known: not every request is a write."""
SESSIONS_MAX = 20
"""Of one member; the one used least lately gives way."""
USER_AGENT_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Client:
    """From where somebody signs in."""

    address: str
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A member in a session that is not over."""

    token: PersonalToken = field(repr=False)
    session: MemberSession
    member: Member
    tenant: Tenant

    @property
    def tenant_id(self) -> TenantId:
        return TenantId(self.tenant.tenant_id)

    @property
    def caller(self) -> Caller:
        """What the member may do, by its role of now."""
        return Caller(
            tenant_id=self.tenant_id,
            kind=CallerKind.MEMBER,
            id=self.member.id,
            permissions=permissions_of(self.member.role),
            environment=self.tenant.environment,
            label=self.member.email,
        )


def actor_of_member(member: Member) -> Actor:
    """A member as the audit log names it."""
    return Actor(ActorKind.MEMBER, id=member.id, label=member.email).here()


async def begin_session(
    scope: Scope,
    member: Member,
    *,
    method: SignInMethod,
    client: Client,
    pepper: str,
) -> SignedIn:
    """Let a member in. The token is in nobody's hands but the caller's."""
    await _make_room(scope, member)
    token = PersonalToken.new(Purpose.SESSION, scope.tenant_id)
    session = MemberSession(
        member_id=member.id,
        account_id=member.account_id if method is SignInMethod.PASSWORD else None,
        method=method,
        token_hash=token.hashed(pepper),
        address=client.address,
        user_agent=client.user_agent[:USER_AGENT_CHARACTERS_MAX],
        last_seen_at=scope.now,
        expires_at=scope.now + LIFE_MAX,
    )
    scope.db.add(session)
    await scope.db.flush()
    session_begun = Thing("MemberSession", session.id, after={"method": method})
    await scope.record("signIn", session_begun, by=actor_of_member(member))
    tenant = await scope.db.scalar(sa.select(Tenant))
    assert tenant is not None, "a scope is always of a tenant that exists"
    return SignedIn(token, session, member, tenant)


async def signed_in(runtime: Runtime, text: str) -> SignedIn | None:
    """Whose session this token opens, which is a use of it; None where it is nobody's, ended, or
    its member was removed. Raises `Unavailable`."""
    token = PersonalToken.read(Purpose.SESSION, text)
    if token is None:
        return None
    async with (
        answered_within(AUTHENTICATION_TIMEOUT_SECONDS),
        runtime.scope(TenantId(token.tenant_id)) as scope,
    ):
        found = (await _found(scope, [token], runtime.settings.key_pepper)).get(token)
        if found is not None and found.session.last_seen_at + SEEN_EVERY <= scope.now:
            found.session.last_seen_at = scope.now
    return found


async def callers_of_sessions(runtime: Runtime, texts: Collection[str]) -> dict[str, Caller]:
    """Who is behind each of these tokens, without using the sessions; nobody's are absent.

    Raises `Unavailable`.
    """
    by_tenant: dict[UUID, list[PersonalToken]] = {}
    for text in texts:
        if (token := PersonalToken.read(Purpose.SESSION, text)) is not None:
            by_tenant.setdefault(token.tenant_id, []).append(token)
    callers = {}
    for tenant_id, tokens in by_tenant.items():
        async with (
            answered_within(AUTHENTICATION_TIMEOUT_SECONDS),
            runtime.scope(TenantId(tenant_id)) as scope,
        ):
            found = await _found(scope, tokens, runtime.settings.key_pepper)
        callers.update({str(token): signed.caller for token, signed in found.items()})
    return callers


def is_live(session: MemberSession, now: datetime) -> bool:
    """Whether a session is neither ended, nor idle for too long, nor too old."""
    idle_from = session.last_seen_at + IDLE_MAX
    return session.ended_at is None and now < min(session.expires_at, idle_from)


async def own_sessions(runtime: Runtime, me: SignedIn) -> list[MemberSession]:
    """The live sessions of whoever is signed in, the latest used first: of a password's account in
    every tenant; of one that began by OIDC in this tenant alone."""
    if me.session.account_id is not None:
        async with runtime.account(me.session.account_id) as account:
            rows = await account.db.scalars(
                _latest_first().where(col(MemberSession.account_id) == account.account_id)
            )
            return [row for row in rows if is_live(row, account.now)]
    async with runtime.scope(me.tenant_id) as scope:
        rows = await scope.db.scalars(
            _latest_first().where(col(MemberSession.member_id) == me.member.id)
        )
        return [row for row in rows if is_live(row, scope.now)]


async def end_own_session(runtime: Runtime, me: SignedIn, session_id: UUID) -> None:
    """End one of one's own sessions. Raises `NotFound`."""
    for session in await own_sessions(runtime, me):
        if session.id == session_id:
            # In another tenant the same person is another member.
            actor = replace(actor_of_member(me.member), id=session.member_id)
            async with runtime.scope(TenantId(session.tenant_id), actor) as scope:
                await _end(scope, col(MemberSession.id) == session_id)
                await scope.record("signOut", Thing("MemberSession", session_id))
            return
    raise NotFound("you have no such session", field="id")


async def end_session(runtime: Runtime, me: SignedIn) -> None:
    """Sign out."""
    async with runtime.scope(me.tenant_id, actor_of_member(me.member)) as scope:
        await _end(scope, col(MemberSession.id) == me.session.id)
        await scope.record("signOut", Thing("MemberSession", me.session.id))


async def end_every_session(runtime: Runtime, me: SignedIn) -> None:
    """Sign out everywhere: the member's sessions here, and those of its account in every tenant."""
    if me.session.account_id is not None:
        async with runtime.account(me.session.account_id) as account:
            await end_sessions_of_account(account)
    async with runtime.scope(me.tenant_id, actor_of_member(me.member)) as scope:
        await end_sessions_of_member(scope, me.member.id)
        await scope.record("signOutEverywhere", Thing("Member", me.member.id))


async def end_sessions_of_account(account: AccountScope) -> None:
    """End what a password opened, in every tenant, with the transaction."""
    await account.db.execute(
        sa.update(MemberSession)
        .where(
            col(MemberSession.account_id) == account.account_id,
            col(MemberSession.ended_at).is_(None),
        )
        .values(ended_at=account.now)
    )


async def end_sessions_of_member(scope: Scope, member_id: UUID) -> None:
    """End all sessions of a member of the tenant, with the transaction."""
    await _end(scope, col(MemberSession.member_id) == member_id)


async def end_sessions_by(scope: Scope, method: SignInMethod) -> None:
    """End all sessions of the tenant that began in one way, with the transaction."""
    await _end(scope, col(MemberSession.method) == method)


async def _found(
    scope: Scope, tokens: Sequence[PersonalToken], pepper: str
) -> dict[PersonalToken, SignedIn]:
    by_hash = {token.hashed(pepper): token for token in tokens}
    rows = await scope.db.execute(
        sa.select(MemberSession, Member, Tenant)
        .join(Member, col(Member.id) == col(MemberSession.member_id))
        .join(Tenant, sa.true())
        .where(
            col(MemberSession.token_hash).in_(by_hash),
            col(MemberSession.ended_at).is_(None),
            col(Member.state) == MemberState.ACTIVE,
        )
    )
    return {
        by_hash[session.token_hash]: SignedIn(by_hash[session.token_hash], session, member, tenant)
        for session, member, tenant in rows
        if is_live(session, scope.now)
    }


async def _end(scope: Scope, which: sa.ColumnElement[bool]) -> None:
    await scope.db.execute(
        sa.update(MemberSession)
        .where(which, col(MemberSession.ended_at).is_(None))
        .values(ended_at=scope.now)
    )


async def _make_room(scope: Scope, member: Member) -> None:
    """Forget the member's sessions that are over, and end those beyond the most there may be."""
    mine = col(MemberSession.member_id) == member.id
    await scope.db.execute(
        sa.delete(MemberSession).where(
            mine,
            sa.or_(
                col(MemberSession.ended_at).is_not(None),
                col(MemberSession.expires_at) <= scope.now,
            ),
        )
    )
    rows: Sequence[MemberSession] = (
        await scope.db.scalars(_latest_first().where(mine).with_for_update())
    ).all()
    for row in rows[SESSIONS_MAX - 1 :]:
        row.ended_at = scope.now


def _latest_first() -> sa.Select[MemberSession]:
    return (
        sa.select(MemberSession)
        .where(col(MemberSession.ended_at).is_(None))
        .order_by(col(MemberSession.last_seen_at).desc(), col(MemberSession.id).desc())
        .limit(10 * SESSIONS_MAX)
    )
