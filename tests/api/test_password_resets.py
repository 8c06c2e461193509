"""Passwords that are reset by a token: by whom, for whom, once, and never across tenants."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from aforo.sdk.errors import NotFound
from aforo.sdk.ids import TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from aforo.tenants.permissions import Role
from aforo.tenants.resets import reset_by_operator
from tests.api.forms import GraphQL, no_such, problem
from tests.api.people import PASSWORD, Browser, Device, browser, error_of, invitation, member

pytestmark = pytest.mark.anyio

NEW = "the password of later"
CREATE = """
mutation($id: ID!) {
  createPasswordReset(input: {memberId: $id}) {
    __typename ... on PasswordReset { token } ... on Problem { code message field }
  }
}
"""


@dataclass(frozen=True)
class People:
    """An owner, and an admin who forgot his password."""

    owner: Browser
    admin: Browser
    email: str
    admin_id: str

    async def reset(self) -> str:
        token: str = (await asked(self.owner, self.admin_id))["token"]
        return token


@pytest.fixture
async def people(runtime: Runtime, tenant_id: TenantId) -> AsyncIterator[People]:
    mark = uuid4().hex[:12]
    email = f"admin@{mark}.example"
    async with (
        await member(runtime, tenant_id, f"owner@{mark}.example") as owner,
        await member(runtime, tenant_id, email, Role.ADMIN) as admin,
    ):
        yield People(owner, admin, email, await id_of(admin))


async def id_of(person: Browser) -> str:
    member_id: str = (await person.get("/auth/session")).json()["member"]["id"]
    return member_id


async def asked(person: Browser, member_id: str) -> dict[str, Any]:
    answer = await person.graphql(CREATE, id=member_id)
    result: dict[str, Any] = answer["data"]["createPasswordReset"]
    return result


async def redeem(runtime: Runtime, token: str, password: str = NEW) -> tuple[int, str]:
    async with browser(runtime) as opened:
        response = await opened.post("/auth/password/reset", token=token, password=password)
    return (204, "") if response.status_code == 204 else error_of(response)


async def test_a_token_gives_a_new_password_and_ends_all_sessions(
    people: People, runtime: Runtime
) -> None:
    token = await people.reset()
    assert await redeem(runtime, token, "too short") == (422, "PASSWORD_LENGTH")
    assert await people.admin.is_signed_in()
    assert await redeem(runtime, token) == (204, "")
    assert not await people.admin.is_signed_in()
    assert error_of(await people.admin.sign_in(people.email)) == (401, "WRONG_CREDENTIALS")
    assert (await people.admin.sign_in(people.email, NEW)).status_code == 200


async def test_a_token_is_good_once_for_a_day_and_until_another_password(
    people: People, runtime: Runtime, clock: MovableClock
) -> None:
    first, second = await people.reset(), await people.reset()
    assert await redeem(runtime, first) == (204, "")
    for over in (first, second, first.replace("_reset_", "_challenge_"), "x"):
        assert await redeem(runtime, over, "yet another password") == (404, "RESET_OVER")
    third = await people.reset()
    clock.advance(timedelta(hours=24))
    assert await redeem(runtime, third) == (404, "RESET_OVER")


async def test_only_owners_and_admins_reset_and_nobody_above_or_himself(
    people: People, runtime: Runtime, tenant_id: TenantId, graphql: GraphQL
) -> None:
    owner_id = await id_of(people.owner)
    above = await asked(people.admin, owner_id)
    assert problem(above) == ("InvalidProblem", "ROLE_NOT_HELD", "memberId")
    himself = await asked(people.admin, people.admin_id)
    assert problem(himself) == ("InvalidProblem", "INVALID", "memberId")
    by_key = (await graphql(CREATE, id=people.admin_id))["createPasswordReset"]
    assert problem(by_key) == ("InvalidProblem", "ROLE_NOT_HELD", None)
    missing = await asked(people.owner, no_such("Member"))
    assert problem(missing) == ("NotFoundProblem", "NOT_FOUND", "memberId")


async def test_a_member_of_another_tenant_is_answered_as_none(
    people: People, runtime: Runtime
) -> None:
    elsewhere = TenantId((await create_tenant(runtime, name="Elsewhere")).tenant.tenant_id)
    async with await member(runtime, elsewhere, f"x{people.email}") as stranger:
        stranger_id = await id_of(stranger)
    foreign, missing = [
        await asked(people.owner, each) for each in (stranger_id, no_such("Member"))
    ]
    assert foreign == missing
    assert problem(foreign) == ("NotFoundProblem", "NOT_FOUND", "memberId")


async def test_no_tenant_resets_the_password_of_a_person_of_two(
    people: People, runtime: Runtime
) -> None:
    early = await people.reset()
    elsewhere = TenantId((await create_tenant(runtime, name="Elsewhere")).tenant.tenant_id)
    token = await invitation(runtime, elsewhere, people.email)
    async with browser(runtime) as opened:
        body = {"token": token, "name": "A", "password": PASSWORD}
        assert (await opened.post("/auth/invitation", **body)).status_code == 200
        refused = await asked(people.owner, people.admin_id)
        assert problem(refused) == ("ConflictProblem", "SEVERAL_TENANTS", None)
        assert await redeem(runtime, early) == (409, "SEVERAL_TENANTS")
        assert await opened.is_signed_in()
        by_operator = await reset_by_operator(
            runtime, email=people.email, removes_second_factor=False
        )
        assert await redeem(runtime, by_operator) == (204, "")
        assert not await opened.is_signed_in()


async def test_the_operator_resets_the_second_factor_where_told_to(
    people: People, runtime: Runtime
) -> None:
    enrolled = (await people.admin.post("/auth/totp/enrol", password=PASSWORD)).json()
    device = Device(enrolled["secret"], runtime.clock)
    done = await people.admin.post("/auth/totp/confirm", code=device.code())
    assert done.status_code == 200
    for removes, key in ((False, "challenge"), (True, "member")):
        token = await reset_by_operator(runtime, email=people.email, removes_second_factor=removes)
        password = f"{NEW}, {removes}"
        assert await redeem(runtime, token, password) == (204, "")
        assert key in (await people.admin.sign_in(people.email, password)).json()


async def test_an_address_without_an_account_is_told_to_the_operator(runtime: Runtime) -> None:
    with pytest.raises(NotFound):
        await reset_by_operator(
            runtime, email=f"{uuid4().hex}@x.example", removes_second_factor=False
        )
