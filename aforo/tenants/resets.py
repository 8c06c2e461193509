"""A password is reset by a token: of an owner or admin, or of whoever runs the installation."""

from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.audit import Thing
from aforo.storage.scope import Runtime, Scope
from aforo.tenants import passwords
from aforo.tenants.accounts import account_of_email, hashed, locked, memberships_in, state_of
from aforo.tenants.addresses import email_of
from aforo.tenants.grants import Granter
from aforo.tenants.models import Account, Member, MemberState
from aforo.tenants.permissions import Role
from aforo.tenants.sessions import Client, actor_of_member, end_sessions_of_account
from aforo.tenants.throttle import count_try
from aforo.tenants.tokens import Purpose, SignedToken

RESET_LIFE = timedelta(hours=24)
_OTHERS = sa.text(
    "SELECT count(*) FROM member "
    "WHERE account_id = :account_id AND tenant_id <> :tenant_id AND state = 'ACTIVE'"
)
_KEEPS, _REMOVES = "0", "1"
"""The first letter of a token's note: what becomes of the second factor."""


async def reset_by_member(
    runtime: Runtime,
    scope: Scope,
    *,
    granter: Granter,
    granter_id: UUID,
    member_id: UUID,
    removes_second_factor: bool,
) -> str:
    """A token with which a member of the tenant takes a new password, good once.

    Only for a person of this tenant alone: else it would be the key to the other ones.
    Raises: `NotFound`, `Invalid`, `Conflict`.
    """
    if granter.role not in {Role.OWNER, Role.ADMIN}:
        raise Invalid("only an owner or an admin resets a password", code="ROLE_NOT_HELD")
    member = await scope.db.scalar(sa.select(Member).where(col(Member.id) == member_id))
    if member is None or member.state is not MemberState.ACTIVE:
        raise NotFound("there is no such member", field="memberId")
    granter.check_may_change(member.role)
    if member.id == granter_id:
        # Else whoever found a browser open would need no password to keep the account.
        raise Invalid("your own password you change with POST /auth/password", field="memberId")
    if member.account_id is None:
        raise Conflict(
            "this member signs in at the identity provider and has no password here",
            code="NO_PASSWORD",
            field="memberId",
        )
    await scope.enter_account(member.account_id)
    place = {"account_id": member.account_id, "tenant_id": scope.tenant_id}
    if await scope.db.scalar(_OTHERS, place):
        raise _of_several_tenants()
    account = await scope.db.get_one(Account, member.account_id)
    note = f"{_REMOVES if removes_second_factor else _KEEPS}{scope.tenant_id.hex}"
    about = {"email": member.email, "removesSecondFactor": removes_second_factor}
    await scope.record("createPasswordReset", Thing("Member", member.id, after=about))
    return _token(runtime, account, note)


async def reset_by_operator(runtime: Runtime, *, email: str, removes_second_factor: bool) -> str:
    """A token for any account, of whoever runs the installation. Raises: `Invalid`, `NotFound`."""
    account = await account_of_email(runtime, email_of(email))
    if account is None:
        raise NotFound("no account has this address")
    return _token(runtime, account, _REMOVES if removes_second_factor else _KEEPS)


async def redeem(runtime: Runtime, *, token: str, password: str, client: Client) -> None:
    """Take a new password for a token; every session of the account ends.

    Raises: `NotFound` for a token that is none or over, `Invalid`, `Conflict`, `TooManyTries`.
    """
    tried = await count_try(runtime, address=client.address)
    read = SignedToken.read(Purpose.RESET, token)
    if read is None:
        raise _over()
    async with runtime.account(read.account_id) as scope:
        account = await scope.db.get(Account, read.account_id)
        _check(runtime, read, account)
    assert account is not None, "a genuine token is about an account"
    await tried.forgive()
    chosen = passwords.checked(password, email=account.email)
    password_hash = await hashed(chosen)
    async with runtime.account(account.id) as scope:
        row = await locked(scope)
        _check(runtime, read, row)
        if len(read.note) > 1:
            tenants = {each.tenant.tenant_id for each in await memberships_in(scope)}
            if not tenants <= {UUID(read.note[1:])}:
                raise _of_several_tenants()
        row.password_hash = password_hash
        row.password_version += 1
        if read.note.startswith(_REMOVES):
            row.totp_secret = None
            row.totp_confirmed_at = None
            row.recovery_hashes = []
        await end_sessions_of_account(scope)
        memberships = await memberships_in(scope)
    for each in memberships:
        async with runtime.scope(TenantId(each.tenant.tenant_id)) as tenant:
            about, by = Thing("Member", each.member.id), actor_of_member(each.member)
            await tenant.record("resetPassword", about, by=by)


def _check(runtime: Runtime, token: SignedToken, account: Account | None) -> None:
    now, pepper = runtime.clock.now(), runtime.settings.key_pepper
    if account is None or not token.is_genuine(state=state_of(account), pepper=pepper, now=now):
        raise _over()


def _token(runtime: Runtime, account: Account, note: str) -> str:
    token = SignedToken(Purpose.RESET, account.id, runtime.clock.now() + RESET_LIFE, note)
    return token.signed(state=state_of(account), pepper=runtime.settings.key_pepper)


def _over() -> NotFound:
    return NotFound(
        "this token is none, was used, or has expired: ask for a new one",
        code="RESET_OVER",
        field="token",
    )


def _of_several_tenants() -> Conflict:
    return Conflict(
        "this person is a member of other tenants too, so no single one resets the password: "
        "whoever runs the installation does, with `aforo reset-password`",
        code="SEVERAL_TENANTS",
    )
