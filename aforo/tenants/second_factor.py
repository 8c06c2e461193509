"""The second factor of an account: a device that shows codes is enrolled, confirmed, removed."""

from dataclasses import dataclass, field

from aforo.sdk.errors import Conflict
from aforo.storage.scope import Runtime
from aforo.tenants import totp
from aforo.tenants.accounts import (
    WrongCredentials,
    account_id_of,
    enter,
    locked,
    prove_code,
    reproven,
    totp_place,
)
from aforo.tenants.sessions import Client, SignedIn, end_sessions_of_account
from aforo.tenants.throttle import count_try

ISSUER = "Aforo"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a device is told, this once; it counts from the first code on that confirms it."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A device that counts, the codes for its loss, and the session that goes on."""

    recovery_codes: list[str] = field(repr=False)
    signed_in: SignedIn


async def enrol(runtime: Runtime, me: SignedIn, *, password: str, client: Client) -> Enrolment:
    """Make a new secret for a device. One that was made before and not confirmed is forgotten.

    Raises: `WrongCredentials`, `TooManyTries`, `Conflict` where a device counts already.
    """
    account = await reproven(runtime, me, password, client)
    secret = totp.new_secret()
    async with runtime.account(account.id) as scope:
        row = await locked(scope)
        if row.totp_confirmed_at is not None:
            raise Conflict("a device is enrolled already; remove it first", code="TOTP_ENROLLED")
        key = runtime.master_key.unwrap(row.data_key, row.id)
        row.totp_secret = key.seal(secret, totp_place(row))
    uri = totp.enrolment_uri(
        secret, email=account.email, issuer=f"{ISSUER} {me.tenant.name}".replace(":", " ")
    )
    return Enrolment(totp.spelled(secret), uri)


async def confirm(runtime: Runtime, me: SignedIn, *, code: str, client: Client) -> Confirmed:
    """Let the device count from now on: its first code shows that it has the secret.

    Every session of the account ends, and a new one begins here.
    Raises: `WrongCredentials`, `TooManyTries`, `Conflict` where nothing is to be confirmed.
    """
    account_id = account_id_of(me)
    tried = await count_try(runtime, code=account_id.hex, address=client.address)
    codes = totp.new_recovery_codes()
    pepper = runtime.settings.key_pepper
    async with runtime.account(account_id) as scope:
        row = await locked(scope)
        if row.totp_secret is None or row.totp_confirmed_at is not None:
            raise Conflict("no device waits for its first code", code="TOTP_NOT_WAITING")
        key = runtime.master_key.unwrap(row.data_key, row.id)
        secret = key.unseal(row.totp_secret, totp_place(row))
        step = totp.step_of_code(secret, code, now=scope.now, after=0)
        if step is None:
            raise WrongCredentials("the code is not the one of this moment", code="WRONG_CODE")
        row.totp_step = step
        row.totp_confirmed_at = scope.now
        row.recovery_hashes = [totp.hashed_recovery_code(each, pepper) for each in codes]
        await end_sessions_of_account(scope)
    await tried.forgive()
    entered = await enter(runtime, row, me.tenant_id, client, having="confirmSecondFactor")
    return Confirmed(codes, entered)


async def remove(
    runtime: Runtime, me: SignedIn, *, password: str, code: str, client: Client
) -> SignedIn:
    """Do without codes again; every session of the account ends, and a new one begins here.

    Raises: `WrongCredentials`, `TooManyTries`, `Conflict` where no device counts.
    """
    account = await reproven(runtime, me, password, client)
    if account.totp_confirmed_at is None:
        raise Conflict("no device is enrolled", code="TOTP_NOT_ENROLLED")
    await prove_code(runtime, account, code, client)
    async with runtime.account(account.id) as scope:
        row = await locked(scope)
        row.totp_secret = None
        row.totp_confirmed_at = None
        row.recovery_hashes = []
        await end_sessions_of_account(scope)
    return await enter(runtime, row, me.tenant_id, client, having="removeSecondFactor")
