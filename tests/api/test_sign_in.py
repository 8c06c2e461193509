"""Signing in by password: invitations, sessions, their ends, and how often it may be tried."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher

from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants import sessions, throttle
from aforo.tenants.models import Account, MemberSession
from aforo.tenants.permissions import Permission, Role, permissions_of
from tests.api.people import PASSWORD, Browser, browser, error_of, invitation, member

pytestmark = pytest.mark.anyio

VIEWER = "{ viewer { kind email name role permissions tenant { name } } }"


@pytest.fixture
def email() -> str:
    return f"ann.{uuid4().hex[:12]}@example.com"


@pytest.fixture
async def ann(runtime: Runtime, tenant_id: TenantId, email: str) -> AsyncIterator[Browser]:
    """An owner who is signed in."""
    async with await member(runtime, tenant_id, email) as opened:
        yield opened


@pytest.fixture
async def elsewhere(runtime: Runtime) -> AsyncIterator[Browser]:
    """Another browser, in which nobody is signed in."""
    async with browser(runtime) as opened:
        yield opened


async def test_whoever_accepts_an_invitation_is_a_member_and_signed_in(
    ann: Browser, email: str
) -> None:
    answer = await ann.graphql(VIEWER)
    assert answer["data"]["viewer"] == {
        "kind": "MEMBER",
        "email": email,
        "name": email.partition("@")[0],
        "role": "OWNER",
        "permissions": [each.name for each in Permission],
        "tenant": {"name": "Test tenant"},
    }


@pytest.mark.parametrize("role", [Role.ANALYST, Role.DEVELOPER])
async def test_a_session_may_do_what_the_role_may(
    runtime: Runtime, tenant_id: TenantId, email: str, role: Role
) -> None:
    async with await member(runtime, tenant_id, email, role) as opened:
        viewer = (await opened.graphql(VIEWER))["data"]["viewer"]
        assert {Permission[each] for each in viewer["permissions"]} == permissions_of(role)
        asked = await opened.post("/graphql", query="{ invoices { edges { cursor } } }")
        may = Permission.BILLING_READ in permissions_of(role)
        assert asked.status_code == (200 if may else 403)


async def test_signing_in_again_opens_another_session(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    answer = await elsewhere.sign_in(f"  {email.upper()} ")
    assert answer.status_code == 200
    body = answer.json()
    assert body["member"]["email"] == email
    assert body["method"] == "PASSWORD"
    assert await ann.is_signed_in()
    assert await elsewhere.is_signed_in()


async def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_hosts(
    elsewhere: Browser, ann: Browser, email: str
) -> None:
    answer = await elsewhere.sign_in(email)
    session, csrf = answer.headers.get_list("set-cookie")
    assert session.startswith("__Host-aforo_session=afo_session_")
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=lax", "Max-Age=604800"):
        assert attribute in session
    assert "Domain" not in session
    assert "HttpOnly" not in csrf
    assert csrf.startswith(f"__Host-aforo_csrf={answer.json()['csrfToken']};")
    assert answer.headers["cache-control"] == "no-store"
    assert session.partition("=")[2].partition(";")[0] not in answer.text


@pytest.mark.parametrize(
    ("origin", "is_secure"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080", False),
        ("http://[::1]:8080", False),
        ("https://localhost", True),
        ("http://aforo.test", True),
    ],
)
async def test_the_cookie_is_plain_on_plain_loopback_alone(
    runtime: Runtime, ann: Browser, email: str, origin: str, is_secure: bool
) -> None:
    async with browser(runtime) as opened:
        opened.client.base_url = origin
        answer = await opened.sign_in(email)
        session, _ = answer.headers.get_list("set-cookie")
        assert session.startswith("__Host-") is is_secure
        assert ("Secure" in session) is is_secure


async def test_a_wrong_password_and_an_unknown_address_get_one_answer(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    wrong = await elsewhere.sign_in(email, "not the right one")
    unknown = await elsewhere.sign_in(f"x{email}", "not the right one")
    assert error_of(wrong) == (401, "WRONG_CREDENTIALS")
    assert wrong.content == unknown.content
    assert wrong.headers.keys() == unknown.headers.keys()
    assert not await elsewhere.is_signed_in()


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        ("Ann", "short", "PASSWORD_LENGTH"),
        ("Ann", "x" * 129, "PASSWORD_LENGTH"),
        ("Ann", "Password1234", "PASSWORD_COMMON"),
        ("Ann", "aaaaaaaaaaaaaaa", "PASSWORD_COMMON"),
        ("", PASSWORD, "INVALID"),
    ],
)
async def test_what_cannot_be_taken_makes_no_account_and_leaves_the_invitation_open(
    runtime: Runtime, tenant_id: TenantId, email: str, name: str, password: str, code: str
) -> None:
    token = await invitation(runtime, tenant_id, email)
    async with browser(runtime) as opened:
        refused = await opened.post("/auth/invitation", token=token, name=name, password=password)
        assert error_of(refused) == (422, code)
        assert error_of(await opened.sign_in(email, password)) == (401, "WRONG_CREDENTIALS")
        taken = await opened.post("/auth/invitation", token=token, name="Ann", password=PASSWORD)
        assert taken.status_code == 200


async def test_an_invitation_is_good_once_and_for_seven_days(
    runtime: Runtime, tenant_id: TenantId, email: str, clock: MovableClock, elsewhere: Browser
) -> None:
    token = await invitation(runtime, tenant_id, email)
    accepting = {"token": token, "name": "Ann", "password": PASSWORD}
    clock.advance(timedelta(days=7) - timedelta(seconds=1))
    both = await asyncio.gather(
        elsewhere.post("/auth/invitation", **accepting),
        elsewhere.post("/auth/invitation", **accepting),
    )
    statuses = sorted(each.status_code for each in both)
    assert statuses in ([200, 404], [200, 409])
    late = await invitation(runtime, tenant_id, f"x{email}")
    clock.advance(timedelta(days=7))
    refused = await elsewhere.post("/auth/invitation", **{**accepting, "token": late})
    assert error_of(refused) == (404, "INVITATION_OVER")


async def test_nothing_that_opens_a_door_is_stored_as_it_is(
    runtime: Runtime, tenant_id: TenantId, ann: Browser, email: str
) -> None:
    token = ann.client.cookies["__Host-aforo_session"]
    async with runtime.scope(tenant_id) as scope:
        [row] = (await scope.db.scalars(sa.select(MemberSession))).all()
        await scope.enter_account(row.account_id)  # type: ignore[arg-type]
        account = await scope.db.get_one(Account, row.account_id)
    secret = token.rpartition("_")[2]
    assert secret not in repr(row)
    assert bytes.fromhex(secret) not in row.token_hash
    assert account.password_hash.startswith("$argon2id$")
    assert PASSWORD not in account.password_hash


async def test_signing_out_ends_the_session_for_good(ann: Browser) -> None:
    kept = dict(ann.client.cookies)
    answer = await ann.post("/auth/sign-out")
    assert answer.status_code == 204
    assert not ann.client.cookies
    ann.client.cookies.update(kept)
    assert error_of(await ann.get("/auth/session")) == (401, "SESSION_OVER")


async def test_signing_out_everywhere_ends_all_sessions(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    await elsewhere.sign_in(email)
    assert (await elsewhere.post("/auth/sign-out-everywhere")).status_code == 204
    assert not await ann.is_signed_in()


async def test_ones_sessions_are_listed_and_each_can_be_ended(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    await elsewhere.sign_in(email)
    listed = (await ann.get("/auth/sessions")).json()["sessions"]
    assert sorted(each["isCurrent"] for each in listed) == [False, True]
    assert {each["userAgent"] for each in listed} == {"Browser of a test"}
    other = next(each["id"] for each in listed if not each["isCurrent"])
    assert (await ann.post("/auth/sessions/end", id=other)).status_code == 204
    assert not await elsewhere.is_signed_in()
    assert await ann.is_signed_in()
    again = await ann.post("/auth/sessions/end", id=other)
    assert error_of(again) == (404, "NOT_FOUND")


async def test_a_session_that_nobody_uses_is_over_and_none_lives_for_ever(
    ann: Browser, clock: MovableClock
) -> None:
    start = clock.now()
    clock.advance(sessions.IDLE_MAX - timedelta(seconds=1))
    assert await ann.is_signed_in()
    while clock.now() + timedelta(hours=6) < start + sessions.LIFE_MAX:
        clock.advance(timedelta(hours=6))
        assert await ann.is_signed_in()
    clock.move_to(start + sessions.LIFE_MAX)
    assert not await ann.is_signed_in()


async def test_an_idle_session_is_over(ann: Browser, clock: MovableClock) -> None:
    clock.advance(sessions.IDLE_MAX)
    assert not await ann.is_signed_in()


async def test_the_latest_twenty_sessions_are_kept(
    runtime: Runtime, tenant_id: TenantId, ann: Browser, email: str, clock: MovableClock
) -> None:
    async with runtime.scope(tenant_id) as scope:
        [row] = (await scope.db.scalars(sa.select(MemberSession))).all()
        fields = {
            name: getattr(row, name)
            for name in ("member_id", "account_id", "method", "address", "user_agent", "expires_at")
        }
        for number in range(sessions.SESSIONS_MAX - 1):
            seen = scope.now + timedelta(seconds=number + 1)
            hashed = bytes([number]) * 32
            scope.db.add(MemberSession(**fields, token_hash=hashed, last_seen_at=seen))
    assert await ann.is_signed_in()
    clock.advance(timedelta(minutes=2))
    async with browser(runtime) as another:
        await another.sign_in(email)
        listed = (await another.get("/auth/sessions")).json()["sessions"]
        assert len(listed) == sessions.SESSIONS_MAX
        assert listed[0]["isCurrent"]
    assert not await ann.is_signed_in()


# Passwords.


async def test_another_password_ends_all_sessions_but_the_new_one(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    await elsewhere.sign_in(email)
    before = dict(ann.client.cookies)
    wrong = await ann.post("/auth/password", password="wrong password", newPassword="x" * 20)
    assert error_of(wrong) == (401, "WRONG_CREDENTIALS")
    same = await ann.post("/auth/password", password=PASSWORD, newPassword=PASSWORD)
    assert error_of(same) == (422, "INVALID")
    new = "a wholly different one"
    assert (await ann.post("/auth/password", password=PASSWORD, newPassword=new)).status_code == 200
    assert dict(ann.client.cookies) != before
    assert await ann.is_signed_in()
    assert not await elsewhere.is_signed_in()
    assert error_of(await elsewhere.sign_in(email)) == (401, "WRONG_CREDENTIALS")
    assert (await elsewhere.sign_in(email, new)).status_code == 200


async def test_a_password_is_the_same_however_a_keyboard_composes_it(
    runtime: Runtime, tenant_id: TenantId, email: str, elsewhere: Browser
) -> None:
    token = await invitation(runtime, tenant_id, email)
    decomposed, composed = "Zu\u0308rich is far away", "Z\u00fcrich is far away"
    await elsewhere.post("/auth/invitation", token=token, name="A", password=decomposed)
    assert (await elsewhere.sign_in(email, composed)).status_code == 200


async def test_a_hash_of_other_parameters_is_made_anew_at_the_next_sign_in(
    runtime: Runtime, ann: Browser, elsewhere: Browser, email: str
) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

    async def stored(new: str | None = None) -> str:
        async with runtime.system("test") as db:
            row = await db.scalar(sa.select(Account).where(Account.email == email))  # type: ignore[arg-type]
        assert row is not None
        async with runtime.account(row.id) as scope:
            account = await scope.db.get_one(Account, row.id)
            account.password_hash = new or account.password_hash
            return account.password_hash

    await stored(weak)
    assert (await elsewhere.sign_in(email)).status_code == 200
    renewed = await stored()
    assert "m=65536,t=2,p=1" in renewed
    assert (await elsewhere.sign_in(email)).status_code == 200


# How often.


async def test_an_address_is_tried_ten_times_in_a_quarter_of_an_hour(
    ann: Browser, elsewhere: Browser, email: str, clock: MovableClock, runtime: Runtime
) -> None:
    for name in (email, f"x{email}"):  # With and without an account.
        for _ in range(throttle.TRIES_MAX[throttle.Counted.ACCOUNT]):
            assert (await elsewhere.sign_in(name, "not the right one")).status_code == 401
        refused = await elsewhere.sign_in(name)
        assert error_of(refused) == (429, "TOO_MANY_TRIES")
        assert refused.headers["retry-after"] == "900"
    assert await ann.is_signed_in()
    clock.advance(timedelta(minutes=14, seconds=59))
    assert (await elsewhere.sign_in(email)).headers["retry-after"] == "1"
    clock.advance(timedelta(seconds=1))
    assert (await elsewhere.sign_in(email)).status_code == 200


async def test_tries_at_the_same_time_are_all_counted(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    tries = [elsewhere.sign_in(email, f"guess number {number}") for number in range(15)]
    statuses = sorted([each.status_code for each in await asyncio.gather(*tries)])
    assert statuses == [401] * 10 + [429] * 5


async def test_a_network_address_is_tried_a_hundred_times_in_a_quarter_of_an_hour(
    runtime: Runtime, ann: Browser, email: str, clock: MovableClock
) -> None:
    network = f"2001:db8:1:{uuid4().hex[:4]}"
    async with (
        browser(runtime, address=f"{network}::1") as noisy,
        browser(runtime, address=f"{network}:1:2:3:4") as next_door,
        browser(runtime) as quiet,
    ):
        for _ in range(throttle.TRIES_MAX[throttle.Counted.ADDRESS]):
            unknown = await noisy.post("/auth/invitation", token="x", name="x", password="x")
            assert error_of(unknown) == (404, "INVITATION_OVER")
        for same in (noisy, next_door):
            assert error_of(await same.sign_in(email)) == (429, "TOO_MANY_TRIES")
        assert (await quiet.sign_in(email)).status_code == 200
        clock.advance(timedelta(minutes=15))
        assert (await noisy.sign_in(email)).status_code == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_a_subscribers_network_counts_as_one(address: str, network: str) -> None:
    assert throttle.network_of(address) == network


async def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(
    runtime: Runtime, ann: Browser, email: str
) -> None:
    settings = dataclasses.replace(runtime.settings, proxies=1)
    behind = dataclasses.replace(runtime, settings=settings)
    async with browser(behind) as opened:
        opened.client.headers["X-Forwarded-For"] = "203.0.113.9, 198.51.100.7"
        await opened.sign_in(email)
        listed = (await opened.get("/auth/sessions")).json()["sessions"]
        [here] = [each for each in listed if each["isCurrent"]]
        assert here["address"] == "198.51.100.7"
        del opened.client.headers["X-Forwarded-For"]
        await opened.sign_in(email)
        listed = (await opened.get("/auth/sessions")).json()["sessions"]
        assert next(each for each in listed if each["isCurrent"])["address"].startswith("2001:db8")


async def test_a_sign_in_that_succeeds_is_not_held_against_anybody(
    ann: Browser, elsewhere: Browser, email: str
) -> None:
    for _ in range(12):
        assert (await elsewhere.sign_in(email)).status_code == 200
