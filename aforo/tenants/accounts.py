"""Accounts: proving who one is by password and code, and changing either."""

import hmac
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import AforoError, Conflict, Forbidden, Invalid
from aforo.sdk.ids import TenantId
from aforo.storage.audit import Thing
from aforo.storage.scope import AccountScope, Runtime
from aforo.storage.secrets import Place
from aforo.storage.threads import FewThreads
from aforo.tenants import passwords, totp
from aforo.tenants.addresses import email_of
from aforo.tenants.models import Account, Member, MemberState, SignInMethod, Tenant
from aforo.tenants.sessions import (
    Client,
    SignedIn,
    actor_of_member,
    begin_session,
    end_session,
    end_sessions_of_account,
)
from aforo.tenants.throttle import Tried, count_try
from aforo.tenants.tokens import Purpose, SignedToken

CHALLENGE_LIFE = timedelta(minutes=5)
MEMBERSHIPS_MAX = 100
_ANY_TENANT = "0"

# Each of them holds 64 MiB for some 200 ms: two at a time leave room for everything else.
_hashing = FewThreads("the check of passwords", threads=2, waiting_max=30)


class WrongCredentials(AforoError):
    """Nobody was proven to be anybody. It is never said what of it was wrong."""

    code = "WRONG_CREDENTIALS"


@dataclass(frozen=True, slots=True)
class Challenge:
    """The password was right; a code is still needed, before the token expires."""

    token: str = field(repr=False)
    seconds: int = int(CHALLENGE_LIFE.total_seconds())


@dataclass(frozen=True, slots=True)
class Membership:
    """A tenant that an account may enter."""

    tenant: Tenant
    member: Member


async def sign_in(
    runtime: Runtime, *, email: str, password: str, tenant_id: UUID | None, client: Client
) -> SignedIn | Challenge:
    """Let somebody in by password, into a tenant of his or the one he entered first.

    Raises: `WrongCredentials`, `TooManyTries`, `Forbidden` without a membership.
    """
    account = await proven(runtime, email=email_of(email), password=password, client=client)
    if account.totp_confirmed_at is not None:
        token = SignedToken(
            Purpose.CHALLENGE,
            account.id,
            runtime.clock.now() + CHALLENGE_LIFE,
            tenant_id.hex if tenant_id else _ANY_TENANT,
        )
        return Challenge(token.signed(state=state_of(account), pepper=runtime.settings.key_pepper))
    return await enter(runtime, account, tenant_id, client)


async def answer_challenge(
    runtime: Runtime, *, challenge: str, code: str, client: Client
) -> SignedIn:
    """Let somebody in by the code that follows the password: of the device, or for recovery.

    Raises: `WrongCredentials`, `TooManyTries`, `Forbidden` without a membership.
    """
    token = SignedToken.read(Purpose.CHALLENGE, challenge)
    if token is None:
        raise _start_over()
    async with runtime.account(token.account_id) as scope:
        account = await scope.db.get(Account, token.account_id)
    if account is None or not token.is_genuine(
        state=state_of(account), pepper=runtime.settings.key_pepper, now=runtime.clock.now()
    ):
        raise _start_over()
    await prove_code(runtime, account, code, client)
    wanted = None if token.note == _ANY_TENANT else UUID(token.note)
    return await enter(runtime, account, wanted, client)


async def switch_tenant(
    runtime: Runtime, me: SignedIn, tenant_id: UUID, client: Client
) -> SignedIn:
    """Go on as the same person in another tenant, in a session of its own; this one ends.

    Raises: `Forbidden` where he is no member there, or came by OIDC, which opens one tenant.
    """
    account_id = account_id_of(me)
    async with runtime.account(account_id) as scope:
        account = await scope.db.get_one(Account, account_id)
        memberships = await memberships_in(scope)
    if tenant_id not in {each.tenant.tenant_id for each in memberships}:
        raise _no_member()
    entered = await enter(runtime, account, tenant_id, client)
    await end_session(runtime, me)
    return entered


async def memberships_of(runtime: Runtime, me: SignedIn) -> list[Membership]:
    """The tenants that whoever is signed in may switch to, this one among them."""
    if me.session.account_id is None:
        return [Membership(me.tenant, me.member)]
    async with runtime.account(me.session.account_id) as scope:
        return await memberships_in(scope)


async def change_password(
    runtime: Runtime, me: SignedIn, *, current: str, new: str, client: Client
) -> SignedIn:
    """Take another password; every session of the account ends, and a new one begins here.

    Raises: `WrongCredentials`, `TooManyTries`, `Invalid`, `Forbidden` for whoever came by OIDC.
    """
    account = await reproven(runtime, me, current, client)
    chosen = passwords.checked(new, email=account.email, field="newPassword")
    if hmac.compare_digest(chosen.encode(), passwords.normalised(current).encode()):
        raise Invalid("the new password is the old one", field="newPassword")
    password_hash = await hashed(chosen)
    async with runtime.account(account.id) as scope:
        row = await locked(scope)
        if row.password_version != account.password_version:
            raise Conflict("the password was changed meanwhile; sign in again")
        row.password_hash = password_hash
        row.password_version += 1
        await end_sessions_of_account(scope)
    return await enter(runtime, account, me.tenant_id, client, having="changePassword")


async def proven(runtime: Runtime, *, email: str, password: str, client: Client) -> Account:
    """The account behind an e-mail address and its password; the address in its one form.

    An address without an account takes as long, and gets the same answer.
    Raises: `WrongCredentials`, `TooManyTries`, `Unavailable`.
    """
    tried = await count_try(runtime, account=email, address=client.address)
    account = await account_of_email(runtime, email)
    stored = account.password_hash if account else None
    given = passwords.normalised(password)
    is_right = await _hashing.run(lambda: passwords.matches(stored, given))
    if account is not None and not is_right:
        note_failure(runtime, account, reason="WRONG_PASSWORD")
    if account is None or not is_right:
        raise WrongCredentials("the e-mail address or the password is wrong")
    await tried.forgive()
    if passwords.is_outdated(account.password_hash):
        await _rehash(runtime, account, given)
    return account


async def account_of_email(runtime: Runtime, email: str) -> Account | None:
    """The account with an address in its one form."""
    async with runtime.system("find an account") as db:
        # No account is known before this one is found, so no door but this one leads to it.
        row: Account | None = await db.scalar(sa.select(Account).where(col(Account.email) == email))
    return row


async def prove_code(runtime: Runtime, account: Account, code: str, client: Client) -> None:
    """Take a code of the account's device, or one for recovery; either is used up by it.

    Raises: `WrongCredentials`, `TooManyTries`.
    """
    tried: Tried = await count_try(runtime, code=account.id.hex, address=client.address)
    async with runtime.account(account.id) as scope:
        is_right = _uses_up(runtime, await locked(scope), code)
    if not is_right:
        note_failure(runtime, account, reason="WRONG_CODE")
        raise WrongCredentials("the code is wrong, or was used already", code="WRONG_CODE")
    await tried.forgive()


def note_failure(runtime: Runtime, account: Account, *, reason: str) -> None:
    """Tell the audit log of every tenant that the account could have entered, beside the answer:
    its time must not show whether there is an account."""

    async def tell() -> None:
        async with runtime.account(account.id) as scope:
            memberships = await memberships_in(scope)
        for each in memberships:
            actor = actor_of_member(each.member)
            tenant_id = TenantId(each.tenant.tenant_id)
            runtime.refusals.note(runtime, tenant_id, actor, action="signIn", reason=reason)

    runtime.background.start(("failed sign-in", account.id), tell)


def hashed(password: str) -> Awaitable[str]:
    """What to store of a normalised password."""
    return _hashing.run(lambda: passwords.hashed(password))


def totp_place(account: Account) -> Place:
    """Where the secret of an account's codes is stored."""
    return Place("account", "totp_secret", account.id)


async def reproven(runtime: Runtime, me: SignedIn, password: str, client: Client) -> Account:
    """The account of whoever is signed in, who gives his password once more.

    Raises: `WrongCredentials`, `TooManyTries`, `Forbidden` for whoever came by OIDC.
    """
    account_id = account_id_of(me)
    async with runtime.account(account_id) as scope:
        email = (await scope.db.get_one(Account, account_id)).email
    return await proven(runtime, email=email, password=password, client=client)


def account_id_of(me: SignedIn) -> UUID:
    """The account of whoever is signed in. Raises `Forbidden` for whoever came by OIDC."""
    if me.session.account_id is None:
        raise Forbidden(
            "this session began at an identity provider, which speaks for one tenant alone and "
            "has no password here: sign in by password for this"
        )
    return me.session.account_id


async def enter(
    runtime: Runtime,
    account: Account,
    tenant_id: UUID | None,
    client: Client,
    *,
    having: str | None = None,
) -> SignedIn:
    """Begin a session of an account that was proven. `having` names what was done to the account
    before, for the audit log of the tenant. Raises `Forbidden` without a membership."""
    async with runtime.account(account.id) as scope:
        memberships = await memberships_in(scope)
    wanted = [each for each in memberships if tenant_id in {None, each.tenant.tenant_id}]
    if not wanted:
        raise _no_member()
    async with runtime.scope(TenantId(wanted[0].tenant.tenant_id)) as tenant:
        # Locked: whoever is removed at this moment is either seen here, or finds this session.
        member = await tenant.db.scalar(
            sa.select(Member).where(col(Member.id) == wanted[0].member.id).with_for_update()
        )
        if member is None or member.state is not MemberState.ACTIVE:
            raise _no_member()
        if having is not None:
            await tenant.record(having, Thing("Member", member.id), by=actor_of_member(member))
        return await begin_session(
            tenant,
            member,
            method=SignInMethod.PASSWORD,
            client=client,
            pepper=runtime.settings.key_pepper,
        )


async def memberships_in(scope: AccountScope) -> list[Membership]:
    """The tenants of the account in scope, in the order in which it joined them."""
    rows = await scope.db.execute(
        sa.select(Tenant, Member)
        .join(Member, col(Member.tenant_id) == col(Tenant.tenant_id))
        .where(
            col(Member.account_id) == scope.account_id,
            col(Member.state) == MemberState.ACTIVE,
        )
        .order_by(col(Member.id))
        .limit(MEMBERSHIPS_MAX)
    )
    return [Membership(tenant, member) for tenant, member in rows]


async def locked(scope: AccountScope) -> Account:
    """The account in scope, which nobody else changes until the transaction ends."""
    row: Account | None = await scope.db.scalar(
        sa.select(Account).where(col(Account.id) == scope.account_id).with_for_update()
    )
    assert row is not None, "accounts are never deleted"
    return row


def _uses_up(runtime: Runtime, account: Account, code: str) -> bool:
    """Whether a code is right; the row then knows that it was used. Its lock makes it once."""
    if account.totp_secret is None or account.totp_confirmed_at is None:
        return False
    key = runtime.master_key.unwrap(account.data_key, account.id)
    secret = key.unseal(account.totp_secret, totp_place(account))
    step = totp.step_of_code(secret, code, now=runtime.clock.now(), after=account.totp_step)
    if step is not None:
        account.totp_step = step
        return True
    given = totp.hashed_recovery_code(code, runtime.settings.key_pepper)
    left = [each for each in account.recovery_hashes if not hmac.compare_digest(each, given)]
    is_known = len(left) < len(account.recovery_hashes)
    account.recovery_hashes = left
    return is_known


async def _rehash(runtime: Runtime, account: Account, password: str) -> None:
    password_hash = await hashed(password)
    async with runtime.account(account.id) as scope:
        row = await locked(scope)
        if row.password_version == account.password_version:
            row.password_hash = password_hash


def state_of(account: Account) -> str:
    """What signed tokens are bound to: it changes with the password and the second factor."""
    return f"{account.password_version}|{account.totp_confirmed_at}"


def _start_over() -> WrongCredentials:
    return WrongCredentials(
        "this sign-in took too long or is none: begin again with the password",
        code="CHALLENGE_OVER",
    )


def _no_member() -> Forbidden:
    return Forbidden("you are a member of no such tenant; ask for an invitation")
