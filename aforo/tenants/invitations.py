"""An invitation is accepted with a password: a new account's, or that of the one there is."""

from dataclasses import dataclass
from uuid import UUID

from aforo.sdk.errors import Conflict, NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.rows import add_unique
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.tenants import passwords
from aforo.tenants.accounts import (
    WrongCredentials,
    account_of_email,
    hashed,
    prove_code,
    proven,
)
from aforo.tenants.members import join, open_invitation
from aforo.tenants.models import Account, Invitation, SignInMethod
from aforo.tenants.sessions import Client, SignedIn, begin_session
from aforo.tenants.throttle import count_try
from aforo.tenants.tokens import PersonalToken, Purpose


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What somebody says who accepts an invitation."""

    token: str
    name: str
    password: str
    code: str | None = None
    """Needed where the address has an account with a second factor."""


async def accept_invitation(
    runtime: Runtime, acceptance: Acceptance, *, client: Client
) -> SignedIn:
    """Become a member, and be signed in as one.

    Where the invited address has an account already, of another tenant, its own password is what
    proves the person: whoever merely holds the token does not get at it.
    Raises: `NotFound`, `WrongCredentials`, `TooManyTries`, `Invalid`, `Conflict`.
    """
    tried = await count_try(runtime, address=client.address)
    token = PersonalToken.read(Purpose.INVITATION, acceptance.token)
    if token is None:
        raise _no_invitation()
    pepper = runtime.settings.key_pepper
    async with runtime.scope(TenantId(token.tenant_id)) as scope:
        invitation = await open_invitation(scope, token=token, pepper=pepper)
    if invitation is None:
        raise _no_invitation()
    await tried.forgive()
    known = await account_of_email(runtime, invitation.email)
    if known is None:
        account_id = new_id()
        chosen = passwords.checked(acceptance.password, email=invitation.email)
        password_hash = await hashed(chosen)
    else:
        account_id = await _prove(runtime, invitation, acceptance, client)
        password_hash = None
    actor = Actor(ActorKind.MEMBER, label=invitation.email, operation="acceptInvitation").here()
    async with runtime.scope(TenantId(token.tenant_id), actor) as scope:
        invitation = await open_invitation(scope, token=token, pepper=pepper)
        if invitation is None:
            raise _no_invitation()
        if password_hash is not None:
            await _open_account(runtime, scope, account_id, invitation.email, password_hash)
        member = await join(
            scope,
            email=invitation.email,
            name=acceptance.name,
            role=invitation.role,
            account_id=account_id,
        )
        invitation.accepted_at = scope.now
        return await begin_session(
            scope, member, method=SignInMethod.PASSWORD, client=client, pepper=pepper
        )


async def _prove(
    runtime: Runtime, invitation: Invitation, acceptance: Acceptance, client: Client
) -> UUID:
    account = await proven(
        runtime, email=invitation.email, password=acceptance.password, client=client
    )
    if account.totp_confirmed_at is not None:
        if acceptance.code is None:
            raise WrongCredentials(
                "your account has a second factor: send its `code` too", code="CODE_NEEDED"
            )
        await prove_code(runtime, account, acceptance.code, client)
    return account.id


async def _open_account(
    runtime: Runtime, scope: Scope, account_id: UUID, email: str, password_hash: str
) -> None:
    await scope.enter_account(account_id)
    account = Account(
        id=account_id,
        created_at=scope.now,
        email=email,
        password_hash=password_hash,
        password_version=1,
        data_key=runtime.master_key.new_wrapped(account_id),
    )
    taken = Conflict(
        "an account was made for this address at this very moment; accept again with its password",
        code="ACCOUNT_EXISTS",
    )
    await add_unique(scope, account, taken=taken)


def _no_invitation() -> NotFound:
    return NotFound(
        "this invitation is none, was used or revoked, or has expired: ask for a new one",
        code="INVITATION_OVER",
        field="token",
    )
