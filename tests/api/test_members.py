"""Members: who asks whom in, who changes whom, and that an owner is always left."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from aforo.api.app import create_app
from aforo.api.parts.relay import global_id
from aforo.api.protocol import streams
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.permissions import Role
from tests.api.forms import GraphQL, change, no_such, problem
from tests.api.people import PASSWORD, Browser, browser, error_of, member
from tests.api.server import serving, socket_to

pytestmark = pytest.mark.anyio

MEMBERS = "{ members { edges { node { id email role state } } } }"
INVITE = """
mutation($email: String!, $role: Role!) {
  inviteMember(input: {email: $email, role: $role}) {
    __typename ... on NewInvitation { token invitation { id email role expiresAt } }
    ... on Problem { code message field }
  }
}
"""


class Person:
    """A member with a browser."""

    def __init__(self, opened: Browser, email: str) -> None:
        self.browser = opened
        self.email = email
        self.id = ""

    async def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = await self.browser.graphql(query, **variables)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def change(self, name: str, /, **given: Any) -> dict[str, Any]:
        return await change(self.graphql, name, **given)


@pytest.fixture
def mark() -> str:
    return uuid4().hex[:12]


@pytest.fixture
async def people(
    runtime: Runtime, tenant_id: TenantId, mark: str
) -> AsyncIterator[dict[str, Person]]:
    """An owner, an admin, a developer; by role."""
    made = {}
    for role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER):
        email = f"{role.value}@{mark}.example"
        person = Person(await member(runtime, tenant_id, email, role), email)
        person.id = (await person.browser.get("/auth/session")).json()["member"]["id"]
        made[role.value] = person
    yield made
    for person in made.values():
        await person.browser.client.aclose()


async def test_an_invitation_by_graphql_makes_a_member(
    people: dict[str, Person], runtime: Runtime, mark: str
) -> None:
    email = f"new@{mark}.example"
    made = (await people["admin"].graphql(INVITE, email=f" NEW@{mark}.example", role="SUPPORT"))[
        "inviteMember"
    ]
    assert made["invitation"]["email"] == email
    async with browser(runtime) as opened:
        accepted = await opened.post(
            "/auth/invitation", token=made["token"], name="New", password=PASSWORD
        )
        assert accepted.json()["member"]["role"] == "SUPPORT"
    edges = (await people["admin"].graphql(MEMBERS))["members"]["edges"]
    assert [(each["node"]["email"], each["node"]["role"]) for each in edges] == [
        (f"owner@{mark}.example", "OWNER"),
        (f"admin@{mark}.example", "ADMIN"),
        (f"developer@{mark}.example", "DEVELOPER"),
        (email, "SUPPORT"),
    ]
    again = await people["admin"].graphql(INVITE, email=email, role="SUPPORT")
    assert problem(again["inviteMember"]) == ("ConflictProblem", "MEMBER_EXISTS", "email")
    owners = "{ members(role: OWNER) { edges { node { email } } } }"
    assert len((await people["admin"].graphql(owners))["members"]["edges"]) == 1


async def test_a_later_invitation_revokes_the_earlier_one(
    people: dict[str, Person], runtime: Runtime, mark: str
) -> None:
    invited = {"email": f"new@{mark}.example", "role": "SUPPORT"}
    tokens = [
        (await people["owner"].graphql(INVITE, **invited))["inviteMember"]["token"]
        for _ in range(2)
    ]
    async with browser(runtime) as opened:
        accepting = {"name": "New", "password": PASSWORD}
        first = await opened.post("/auth/invitation", token=tokens[0], **accepting)
        assert error_of(first) == (404, "INVITATION_OVER")
        second = await opened.post("/auth/invitation", token=tokens[1], **accepting)
        assert second.status_code == 200


async def test_an_invitation_that_is_revoked_lets_nobody_in(
    people: dict[str, Person], runtime: Runtime, mark: str
) -> None:
    made = (await people["owner"].graphql(INVITE, email=f"new@{mark}.example", role="SUPPORT"))[
        "inviteMember"
    ]
    revoke = {"invitationId": made["invitation"]["id"]}
    for _ in range(2):
        done = await people["owner"].change("revokeInvitation", **revoke)
        assert done["__typename"] == "Invitation"
    async with browser(runtime) as opened:
        refused = await opened.post(
            "/auth/invitation", token=made["token"], name="New", password=PASSWORD
        )
        assert error_of(refused) == (404, "INVITATION_OVER")


async def test_only_an_owner_makes_or_removes_owners(
    people: dict[str, Person], graphql: GraphQL, mark: str
) -> None:
    not_held = ("InvalidProblem", "ROLE_NOT_HELD", "role")
    for asking in (people["admin"].graphql, graphql):
        made = await asking(INVITE, email=f"new@{mark}.example", role="OWNER")
        assert problem(made["inviteMember"]) == not_held
        raised = await change(
            asking, "changeMemberRole", memberId=people["developer"].id, role="OWNER"
        )
        assert problem(raised) == not_held
        for name, more in (("removeMember", {}), ("changeMemberRole", {"role": "ADMIN"})):
            refused = await change(asking, name, memberId=people["owner"].id, **more)
            assert problem(refused) == ("InvalidProblem", "ROLE_NOT_HELD", "memberId")
    promoted = await people["owner"].change(
        "changeMemberRole", memberId=people["admin"].id, role="OWNER"
    )
    assert promoted["__typename"] == "Member"


async def test_a_lesser_invitation_does_not_take_an_owners_back(
    people: dict[str, Person], runtime: Runtime, mark: str
) -> None:
    email = f"new@{mark}.example"
    made = (await people["owner"].graphql(INVITE, email=email, role="OWNER"))["inviteMember"]
    lesser = await people["admin"].graphql(INVITE, email=email, role="DEVELOPER")
    assert problem(lesser["inviteMember"]) == ("InvalidProblem", "ROLE_NOT_HELD", "email")
    async with browser(runtime) as opened:
        accepted = await opened.post(
            "/auth/invitation", token=made["token"], name="New", password=PASSWORD
        )
        assert accepted.json()["member"]["role"] == "OWNER"


async def test_a_developer_reads_members_and_changes_none(people: dict[str, Person]) -> None:
    assert (await people["developer"].graphql(MEMBERS))["members"]["edges"]
    answer = await people["developer"].browser.graphql(
        INVITE, email="new@x.example", role="SUPPORT"
    )
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_another_role_ends_the_sessions_and_begins_with_a_new_one(
    people: dict[str, Person],
) -> None:
    developer = people["developer"]
    same = await people["owner"].change("changeMemberRole", memberId=developer.id, role="DEVELOPER")
    assert same["__typename"] == "Member"
    assert await developer.browser.is_signed_in()
    await people["owner"].change("changeMemberRole", memberId=developer.id, role="BILLING")
    assert not await developer.browser.is_signed_in()
    again = await developer.browser.sign_in(developer.email)
    assert again.json()["member"]["role"] == "BILLING"


async def test_whoever_is_removed_is_out_and_may_be_asked_in_again(
    people: dict[str, Person],
) -> None:
    developer = people["developer"]
    for _ in range(2):
        gone = await people["admin"].change("removeMember", memberId=developer.id)
        assert gone["__typename"] == "Member"
    assert not await developer.browser.is_signed_in()
    assert error_of(await developer.browser.sign_in(developer.email)) == (403, "FORBIDDEN")
    listed = (await people["admin"].graphql(MEMBERS))["members"]["edges"]
    assert developer.email not in {each["node"]["email"] for each in listed}
    lost = await people["admin"].change("changeMemberRole", memberId=developer.id, role="SUPPORT")
    assert problem(lost) == ("NotFoundProblem", "NOT_FOUND", "memberId")
    made = (await people["admin"].graphql(INVITE, email=developer.email, role="ANALYST"))[
        "inviteMember"
    ]
    wrong = await developer.browser.post(
        "/auth/invitation", token=made["token"], name="Dev", password="not the right one"
    )
    assert error_of(wrong) == (401, "WRONG_CREDENTIALS")
    back = await developer.browser.post(
        "/auth/invitation", token=made["token"], name="Dev", password=PASSWORD
    )
    assert back.json()["member"] == {
        "id": developer.id,
        "email": developer.email,
        "name": "Dev",
        "role": "ANALYST",
    }


async def test_the_last_owner_stays(people: dict[str, Person]) -> None:
    owner = people["owner"]
    last = ("ConflictProblem", "LAST_OWNER", "memberId")
    assert problem(await owner.change("removeMember", memberId=owner.id)) == last
    demoted = await owner.change("changeMemberRole", memberId=owner.id, role="ADMIN")
    assert problem(demoted) == last
    assert await owner.browser.is_signed_in()


async def test_two_owners_who_remove_each_other_at_once_leave_one(
    people: dict[str, Person], runtime: Runtime, tenant_id: TenantId, mark: str
) -> None:
    owner = people["owner"]
    email = f"second@{mark}.example"
    second = Person(await member(runtime, tenant_id, email, Role.OWNER), email)
    second.id = (await second.browser.get("/auth/session")).json()["member"]["id"]
    await asyncio.gather(
        owner.browser.graphql(
            "mutation($id: ID!) { removeMember(input: {memberId: $id}) { __typename } }",
            id=second.id,
        ),
        second.browser.graphql(
            "mutation($id: ID!) { changeMemberRole(input: {memberId: $id, role: ADMIN}) "
            "{ __typename } }",
            id=owner.id,
        ),
    )
    signed_in = [await each.browser.is_signed_in() for each in (owner, second)]
    assert sum(signed_in) == 1
    left = owner if signed_in[0] else second
    owners = "{ members(role: OWNER) { edges { node { id } } } }"
    edges = (await left.graphql(owners))["members"]["edges"]
    assert [each["node"]["id"] for each in edges] == [left.id]
    await second.browser.client.aclose()


async def test_a_member_of_nobody_is_not_found(people: dict[str, Person]) -> None:
    for name, more in (("removeMember", {}), ("changeMemberRole", {"role": "ADMIN"})):
        missing = await people["owner"].change(name, memberId=no_such("Member"), **more)
        assert problem(missing) == ("NotFoundProblem", "NOT_FOUND", "memberId")
    wrong = await people["owner"].change("removeMember", memberId=global_id("ApiKey", uuid4()))
    assert problem(wrong) == ("InvalidProblem", "BAD_ID", "memberId")


async def test_the_streams_of_whoever_is_removed_end_within_five_seconds(
    people: dict[str, Person], runtime: Runtime
) -> None:
    developer = people["developer"]
    cookie = developer.browser.client.cookies["__Host-aforo_session"]
    async with serving(create_app(runtime)) as port:
        headers = {"Cookie": f"aforo_session={cookie}", "Origin": f"http://127.0.0.1:{port}"}
        async with socket_to(port, headers=headers) as socket:
            await socket.initialise()
            await socket.subscribe("subscription { events { eventId } }")
            await people["owner"].change("removeMember", memberId=developer.id)
            code, _ = await socket.closed()
            assert code == 4401
    assert streams.RECHECK_SECONDS < 5


async def test_a_key_sees_itself(graphql: GraphQL) -> None:
    viewer = (await graphql("{ viewer { kind email role tenant { name } } }"))["viewer"]
    assert viewer == {
        "kind": "API_KEY",
        "email": None,
        "role": None,
        "tenant": {"name": "Test tenant"},
    }
