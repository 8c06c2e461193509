"""One person in several tenants: what he may switch to, and what no tenant can do to another's."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aforo.api.parts.relay import global_id
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants.commands import create_tenant
from aforo.tenants.models import Account, Member, MemberSession, Tenant
from aforo.tenants.permissions import Role
from tests.api.forms import no_such
from tests.api.people import PASSWORD, Browser, browser, error_of, invitation, member

pytestmark = pytest.mark.anyio

VIEWER = "{ viewer { role tenant { name } } }"


@dataclass(frozen=True)
class Ann:
    """An owner of the first tenant, an analyst of the second, signed in to the second."""

    browser: Browser
    email: str
    first: TenantId
    second: TenantId

    @property
    def first_global(self) -> str:
        return global_id("Tenant", self.first)


@pytest.fixture
async def ann(runtime: Runtime, tenant_id: TenantId) -> AsyncIterator[Ann]:
    email = f"ann.{uuid4().hex[:12]}@example.com"
    created = await create_tenant(runtime, name="Second tenant")
    second = TenantId(created.tenant.tenant_id)
    async with await member(runtime, tenant_id, email), browser(runtime) as opened:
        token = await invitation(runtime, second, email, Role.ANALYST)
        accepted = await opened.post("/auth/invitation", token=token, name="Ann", password=PASSWORD)
        assert accepted.status_code == 200
        yield Ann(opened, email, tenant_id, second)


async def test_one_password_opens_all_tenants_of_a_person(ann: Ann) -> None:
    session = (await ann.browser.get("/auth/session")).json()
    assert session["tenant"]["name"] == "Second tenant"
    assert [(each["name"], each["role"]) for each in session["tenants"]] == [
        ("Test tenant", "OWNER"),
        ("Second tenant", "ANALYST"),
    ]
    switched = await ann.browser.post("/auth/tenant", tenant=ann.first_global)
    assert switched.json()["member"]["role"] == "OWNER"
    viewer = (await ann.browser.graphql(VIEWER))["data"]["viewer"]
    assert viewer == {"role": "OWNER", "tenant": {"name": "Test tenant"}}
    signed_in = await ann.browser.sign_in(ann.email, tenant=global_id("Tenant", ann.second))
    assert signed_in.json()["tenant"]["name"] == "Second tenant"


async def test_switching_leaves_the_old_session_behind(ann: Ann) -> None:
    old = dict(ann.browser.client.cookies)
    await ann.browser.post("/auth/tenant", tenant=ann.first_global)
    assert dict(ann.browser.client.cookies) != old
    ann.browser.client.cookies.clear()
    ann.browser.client.cookies.update(old)
    assert not await ann.browser.is_signed_in()


async def test_a_foreign_tenant_is_answered_as_one_that_does_not_exist(
    ann: Ann, runtime: Runtime
) -> None:
    strangers = await create_tenant(runtime, name="Strangers")
    foreign, missing = [
        await ann.browser.post("/auth/tenant", tenant=each)
        for each in (global_id("Tenant", strangers.tenant.tenant_id), no_such("Tenant"))
    ]
    assert error_of(foreign) == (403, "FORBIDDEN")
    assert foreign.content == missing.content
    foreign, missing = [
        await ann.browser.sign_in(ann.email, tenant=each)
        for each in (global_id("Tenant", strangers.tenant.tenant_id), no_such("Tenant"))
    ]
    assert error_of(foreign) == (403, "FORBIDDEN")
    assert foreign.content == missing.content


async def test_a_token_of_one_tenant_is_nobodys_in_another(ann: Ann) -> None:
    token = ann.browser.client.cookies["__Host-aforo_session"]
    moved = token.replace(ann.second.hex, ann.first.hex)
    assert moved != token
    ann.browser.client.cookies.clear()
    ann.browser.client.cookies["__Host-aforo_session"] = moved
    refused = await ann.browser.get("/auth/session")
    assert error_of(refused) == (401, "SESSION_OVER")


async def test_sessions_are_listed_and_ended_over_all_tenants(ann: Ann) -> None:
    listed = (await ann.browser.get("/auth/sessions")).json()["sessions"]
    assert {each["tenant"] for each in listed} == {
        ann.first_global,
        global_id("Tenant", ann.second),
    }
    elsewhere = next(each for each in listed if each["tenant"] == ann.first_global)
    ended = await ann.browser.post("/auth/sessions/end", id=elsewhere["id"])
    assert ended.status_code == 204
    listed = (await ann.browser.get("/auth/sessions")).json()["sessions"]
    assert [each["isCurrent"] for each in listed] == [True]


async def test_another_password_ends_the_sessions_in_every_tenant(
    ann: Ann, runtime: Runtime
) -> None:
    async with browser(runtime) as other:
        await other.sign_in(ann.email, tenant=ann.first_global)
        assert await other.is_signed_in()
        new = "quite another password"
        await ann.browser.post("/auth/password", password=PASSWORD, newPassword=new)
        assert not await other.is_signed_in()
    assert await ann.browser.is_signed_in()


async def test_whoever_is_removed_from_one_tenant_stays_in_the_other(
    ann: Ann, runtime: Runtime
) -> None:
    async with await member(runtime, ann.second, f"x{ann.email}") as owner:
        me = (await ann.browser.get("/auth/session")).json()["member"]["id"]
        await owner.graphql(
            "mutation($id: ID!) { removeMember(input: {memberId: $id}) { __typename } }", id=me
        )
    assert not await ann.browser.is_signed_in()
    again = await ann.browser.sign_in(ann.email)
    assert again.json()["tenant"]["name"] == "Test tenant"
    session = (await ann.browser.get("/auth/session")).json()
    assert [each["name"] for each in session["tenants"]] == ["Test tenant"]


async def test_nobody_sees_or_ends_the_sessions_of_others(ann: Ann, runtime: Runtime) -> None:
    mine = (await ann.browser.get("/auth/sessions")).json()["sessions"]
    async with await member(runtime, ann.second, f"x{ann.email}") as stranger:
        theirs = (await stranger.get("/auth/sessions")).json()["sessions"]
        assert not {each["id"] for each in mine} & {each["id"] for each in theirs}
        foreign, missing = [
            await stranger.post("/auth/sessions/end", id=each)
            for each in (mine[0]["id"], no_such("Session"))
        ]
        assert error_of(foreign) == (404, "NOT_FOUND")
        assert foreign.content == missing.content
    assert await ann.browser.is_signed_in()


# The walls, asked of PostgreSQL as the application's role.


async def test_an_account_sees_itself_and_its_own_rows_alone(ann: Ann, runtime: Runtime) -> None:
    other = await member(runtime, ann.first, f"x{ann.email}")
    await other.client.aclose()
    async with runtime.system("test") as db:
        mine = await db.scalar(sa.select(Account).where(Account.email == ann.email))  # type: ignore[arg-type]
    assert mine is not None
    async with runtime.account(mine.id) as scope:
        assert [row.id for row in await scope.db.scalars(sa.select(Account))] == [mine.id]
        members = list(await scope.db.scalars(sa.select(Member)))
        sessions = list(await scope.db.scalars(sa.select(MemberSession)))
        tenants = list(await scope.db.scalars(sa.select(Tenant)))
    assert {row.email for row in members} == {ann.email}
    assert {row.account_id for row in [*members, *sessions]} == {mine.id}
    assert {row.tenant_id for row in tenants} == {ann.first, ann.second}
    async with runtime.account(new_id()) as scope:
        for table in (Account, Member, MemberSession, Tenant):
            assert list(await scope.db.scalars(sa.select(table))) == []


async def test_an_account_cannot_change_its_role(ann: Ann, runtime: Runtime) -> None:
    async with runtime.system("test") as db:
        mine = await db.scalar(sa.select(Account).where(Account.email == ann.email))  # type: ignore[arg-type]
    assert mine is not None
    async with runtime.account(mine.id) as scope:
        changed = await scope.db.execute(sa.text("UPDATE member SET role = 'OWNER'"))
        assert changed.rowcount == 0  # type: ignore[attr-defined]
    async with runtime.scope(ann.second) as scope:
        assert [row.role for row in await scope.db.scalars(sa.select(Member))] == [Role.ANALYST]


async def test_a_tenant_sees_no_account_and_a_scope_without_one_fails(
    ann: Ann, runtime: Runtime
) -> None:
    with pytest.raises(DBAPIError, match=r"aforo\.account_id|invalid input syntax for type uuid"):
        async with runtime.scope(ann.first) as scope:
            await scope.db.scalars(sa.select(Account))
    with pytest.raises(DBAPIError, match="permission denied"):
        async with runtime.scope(ann.first) as scope:
            await scope.db.execute(sa.text("SELECT * FROM sign_in_count"))
