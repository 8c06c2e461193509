"""Codes of a device: enrolled, confirmed, asked for, used once; and the codes for its loss."""

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from aforo.tenants.models import Account
from tests.api.people import PASSWORD, Browser, Device, browser, error_of, invitation, member

pytestmark = pytest.mark.anyio


@pytest.fixture
def email() -> str:
    return f"ann.{uuid4().hex[:12]}@example.com"


@pytest.fixture
async def ann(runtime: Runtime, tenant_id: TenantId, email: str) -> AsyncIterator[Browser]:
    async with await member(runtime, tenant_id, email) as opened:
        yield opened


@pytest.fixture
async def elsewhere(runtime: Runtime) -> AsyncIterator[Browser]:
    async with browser(runtime) as opened:
        yield opened


@pytest.fixture
async def device(ann: Browser, clock: MovableClock) -> Device:
    """Of Ann, confirmed; its next code is another one."""
    enrolled = (await ann.post("/auth/totp/enrol", password=PASSWORD)).json()
    assert enrolled["uri"].startswith("otpauth://totp/Aforo%20Test%20tenant:ann.")
    made = Device(enrolled["secret"], clock)
    confirmed = await ann.post("/auth/totp/confirm", code=made.code())
    assert confirmed.status_code == 200, confirmed.text
    made.recovery_codes = confirmed.json()["recoveryCodes"]
    clock.advance(timedelta(seconds=30))
    return made


async def challenge(person: Browser, email: str) -> str:
    answer = await person.sign_in(email)
    body = answer.json()
    assert answer.status_code == 200
    assert body["expiresInSeconds"] == 300
    assert "set-cookie" not in answer.headers
    token: str = body["challenge"]
    return token


async def test_a_device_counts_once_its_first_code_was_right(
    ann: Browser, elsewhere: Browser, email: str, clock: MovableClock
) -> None:
    enrolled = (await ann.post("/auth/totp/enrol", password=PASSWORD)).json()
    device = Device(enrolled["secret"], clock)
    wrong = await ann.post("/auth/totp/confirm", code=device.wrong_code())
    assert error_of(wrong) == (401, "WRONG_CODE")
    assert "member" in (await elsewhere.sign_in(email)).json()
    before = dict(ann.client.cookies)
    confirmed = await ann.post("/auth/totp/confirm", code=device.code())
    assert len(confirmed.json()["recoveryCodes"]) == 10
    assert dict(ann.client.cookies) != before
    assert await ann.is_signed_in()
    assert not await elsewhere.is_signed_in()
    again = await ann.post("/auth/totp/confirm", code=device.code())
    assert error_of(again) == (409, "TOTP_NOT_WAITING")
    twice = await ann.post("/auth/totp/enrol", password=PASSWORD)
    assert error_of(twice) == (409, "TOTP_ENROLLED")


async def test_the_password_alone_lets_nobody_in_any_more(
    elsewhere: Browser, device: Device, email: str
) -> None:
    token = await challenge(elsewhere, email)
    assert not await elsewhere.is_signed_in()
    wrong = await elsewhere.post("/auth/totp", challenge=token, code=device.wrong_code())
    assert error_of(wrong) == (401, "WRONG_CODE")
    right = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert right.json()["member"]["email"] == email
    assert await elsewhere.is_signed_in()


async def test_a_code_is_used_once(
    elsewhere: Browser, device: Device, email: str, clock: MovableClock
) -> None:
    code = device.code()
    for expected in (200, 401):
        token = await challenge(elsewhere, email)
        answer = await elsewhere.post("/auth/totp", challenge=token, code=code)
        assert answer.status_code == expected
    clock.advance(timedelta(seconds=30))
    fresh = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert fresh.status_code == 200


async def test_a_challenge_lasts_five_minutes_and_is_for_its_own_account(
    elsewhere: Browser, device: Device, email: str, clock: MovableClock
) -> None:
    token = await challenge(elsewhere, email)
    account = token.split("_")[2]
    for forged in ("", "x", token[:-1], token.replace(account, uuid4().hex)):
        refused = await elsewhere.post("/auth/totp", challenge=forged, code=device.code())
        assert error_of(refused) == (401, "CHALLENGE_OVER")
    clock.advance(timedelta(minutes=5))
    late = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert error_of(late) == (401, "CHALLENGE_OVER")


async def test_another_password_ends_the_challenges_of_the_old_one(
    ann: Browser, elsewhere: Browser, device: Device, email: str
) -> None:
    token = await challenge(elsewhere, email)
    await ann.post("/auth/password", password=PASSWORD, newPassword="another fine one")
    refused = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert error_of(refused) == (401, "CHALLENGE_OVER")


async def test_each_recovery_code_stands_in_for_the_device_once(
    elsewhere: Browser, device: Device, email: str
) -> None:
    for code in device.recovery_codes[:2]:
        for expected in (200, 401):
            token = await challenge(elsewhere, email)
            answer = await elsewhere.post("/auth/totp", challenge=token, code=code.upper())
            assert answer.status_code == expected


async def test_five_wrong_codes_are_followed_by_a_wait(
    elsewhere: Browser, device: Device, email: str, clock: MovableClock
) -> None:
    token = await challenge(elsewhere, email)
    for _ in range(5):
        wrong = await elsewhere.post("/auth/totp", challenge=token, code=device.wrong_code())
        assert wrong.status_code == 401
    refused = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert error_of(refused) == (429, "TOO_MANY_TRIES")
    assert refused.headers["retry-after"] == "870"  # The device's first code was tried, too.
    clock.advance(timedelta(minutes=15))
    token = await challenge(elsewhere, email)
    right = await elsewhere.post("/auth/totp", challenge=token, code=device.code())
    assert right.status_code == 200


async def test_a_device_is_removed_with_password_and_code(
    ann: Browser, elsewhere: Browser, device: Device, email: str
) -> None:
    for body in (
        {"password": "not the right one", "code": device.code()},
        {"password": PASSWORD, "code": device.wrong_code()},
    ):
        assert (await ann.post("/auth/totp/remove", **body)).status_code == 401
    done = await ann.post("/auth/totp/remove", password=PASSWORD, code=device.code())
    assert done.status_code == 200
    assert "member" in (await elsewhere.sign_in(email)).json()
    again = await ann.post("/auth/totp/remove", password=PASSWORD, code=device.code())
    assert error_of(again) == (409, "TOTP_NOT_ENROLLED")


async def test_an_invitation_to_an_account_with_a_device_asks_for_its_code_too(
    runtime: Runtime, elsewhere: Browser, device: Device, email: str
) -> None:
    second = await create_tenant(runtime, name="Second")
    token = await invitation(runtime, TenantId(second.tenant.tenant_id), email)
    body = {"token": token, "name": "Ann", "password": PASSWORD}
    assert error_of(await elsewhere.post("/auth/invitation", **body)) == (401, "CODE_NEEDED")
    wrong = await elsewhere.post("/auth/invitation", **body, code=device.wrong_code())
    assert error_of(wrong) == (401, "WRONG_CODE")
    right = await elsewhere.post("/auth/invitation", **body, code=device.code())
    assert right.json()["tenant"]["name"] == "Second"


async def test_the_secret_is_stored_sealed_and_the_recovery_codes_hashed(
    runtime: Runtime, ann: Browser, email: str, clock: MovableClock
) -> None:
    secret = (await ann.post("/auth/totp/enrol", password=PASSWORD)).json()["secret"]
    device = Device(secret, clock)
    codes = (await ann.post("/auth/totp/confirm", code=device.code())).json()["recoveryCodes"]
    async with runtime.system("test") as db:
        row = await db.scalar(sa.select(Account).where(col(Account.email) == email))
    assert row is not None
    assert row.totp_secret is not None
    stored = row.totp_secret + b"".join(row.recovery_hashes)
    for plain in (secret.encode(), base64.b32decode(secret), *(each.encode() for each in codes)):
        assert plain not in stored
