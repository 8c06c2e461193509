"""What the audit log says of people: sign-ins and their failures, resets, and whom one trusts."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.permissions import Role
from tests.api.forms import GraphQL
from tests.api.people import PASSWORD, Browser, browser, member

pytestmark = pytest.mark.anyio

LOG = """
query($action: String) {
  auditLog(action: $action) {
    edges { node {
      action outcome reason actor { kind label userAgent }
      changes { type before after }
    } }
  }
}
"""
CLIENT_SECRET = "what nobody is to read again"
SET = """
mutation($issuer: String!, $secret: String) {
  setIdentityProvider(input: {
    issuer: $issuer, clientId: "aforo", clientSecret: $secret, domains: ["example.com"]
  }) { __typename }
}
"""


@pytest.fixture
def email() -> str:
    return f"ann.{uuid4().hex[:12]}@example.com"


@pytest.fixture
async def ann(runtime: Runtime, tenant_id: TenantId, email: str) -> AsyncIterator[Browser]:
    async with await member(runtime, tenant_id, email) as opened:
        yield opened


async def told(graphql: GraphQL, action: str) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await graphql(LOG, action=action))["auditLog"]["edges"]]


async def test_a_sign_in_and_a_sign_out_are_told_with_who_and_from_where(
    ann: Browser, graphql: GraphQL, email: str
) -> None:
    await ann.sign_in(email)
    await ann.post("/auth/sign-out")
    for action in ("signIn", "signOut"):
        entry = (await told(graphql, action))[0]
        assert entry["outcome"] == "DONE"
        assert entry["actor"] == {
            "kind": "MEMBER",
            "label": email,
            "userAgent": "Browser of a test",
        }


async def test_a_failed_sign_in_is_told_to_the_tenants_of_the_account(
    ann: Browser, graphql: GraphQL, email: str, runtime: Runtime
) -> None:
    async with browser(runtime) as elsewhere:
        await elsewhere.sign_in(email, "not the right one")
    await runtime.background.settle()
    refused = [each for each in await told(graphql, "signIn") if each["outcome"] == "REFUSED"]
    assert [each["actor"]["label"] for each in refused] == [email]


async def test_the_provider_that_is_trusted_is_told_without_its_secret(
    ann: Browser, graphql: GraphQL
) -> None:
    made = await ann.graphql(SET, issuer="https://sso.example.com", secret=CLIENT_SECRET)
    assert made["data"]["setIdentityProvider"]["__typename"] == "IdentityProvider"
    [entry] = await told(graphql, "setIdentityProvider")
    [change] = [each for each in entry["changes"] if each["type"] == "IdentityProvider"]
    assert change["after"]["issuer"] == "https://sso.example.com"
    assert CLIENT_SECRET not in str(entry)
    assert change["after"]["clientSecret"] == "[secret]"
    removed = await ann.graphql(
        'mutation { removeIdentityProvider(input: {issuer: "https://sso.example.com"}) '
        "{ __typename } }"
    )
    assert removed["data"]["removeIdentityProvider"]["__typename"] == "IdentityProvider"
    [entry] = await told(graphql, "removeIdentityProvider")
    [change] = [each for each in entry["changes"] if each["type"] == "IdentityProvider"]
    assert change["before"]["issuer"] == "https://sso.example.com"


async def test_a_reset_is_told_when_it_is_made_and_when_it_is_used(
    ann: Browser, graphql: GraphQL, email: str, runtime: Runtime, tenant_id: TenantId
) -> None:
    async with await member(runtime, tenant_id, f"b{email}", Role.SUPPORT) as other:
        other_id = (await other.get("/auth/session")).json()["member"]["id"]
        answer = await ann.graphql(
            "mutation($id: ID!) { createPasswordReset(input: {memberId: $id}) "
            "{ ... on PasswordReset { token } } }",
            id=other_id,
        )
        token = answer["data"]["createPasswordReset"]["token"]
        await other.post("/auth/password/reset", token=token, password=f"{PASSWORD} anew")
    [made] = await told(graphql, "createPasswordReset")
    assert made["actor"]["label"] == email
    assert made["changes"][0]["after"] == {"email": f"b{email}", "removesSecondFactor": False}
    [used] = await told(graphql, "resetPassword")
    assert used["actor"]["label"] == f"b{email}"
    assert token not in str([made, used])
