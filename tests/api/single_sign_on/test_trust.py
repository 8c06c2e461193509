"""Which provider a tenant trusts: said by owners alone, with a secret that nobody reads."""

from typing import Any

import pytest
import sqlalchemy as sa

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.models import IdentityProvider, Member
from aforo.tenants.permissions import Role
from tests.api.forms import GraphQL, problem
from tests.api.people import Browser, error_of, member
from tests.api.single_sign_on.flow import SET, sign_in, start, trust
from tests.api.single_sign_on.provider import CLIENT_SECRET, Provider

pytestmark = pytest.mark.anyio


async def test_only_an_owner_says_whom_the_tenant_trusts(
    owner: Browser,
    provider: Provider,
    graphql: GraphQL,
    runtime: Runtime,
    tenant_id: TenantId,
    mark: str,
) -> None:
    async with await member(runtime, tenant_id, f"admin@{mark}.example", Role.ADMIN) as admin:
        refused = await trust(admin, provider, mark)
        assert problem(refused) == ("InvalidProblem", "ROLE_NOT_HELD", None)
    given = {"issuer": provider.issuer, "clientId": "x", "domains": ["x.example"]}
    by_key = (await graphql(SET, input=given))["setIdentityProvider"]
    assert problem(by_key) == ("InvalidProblem", "ROLE_NOT_HELD", None)
    assert await graphql("{ identityProvider { issuer } }") == {"identityProvider": None}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"issuer": "http://10.0.0.1"}, "issuer"),
        ({"issuer": "ftp://sso.example"}, "issuer"),
        ({"issuer": "https://sso.example/?x=1"}, "issuer"),
        ({"domains": []}, "domains"),
        ({"domains": ["x.example", "*"]}, "domains.1"),
        ({"clientId": ""}, "clientId"),
        ({"clientSecret": None}, "clientSecret"),
        ({"defaultRole": "OWNER"}, "defaultRole"),
    ],
)
async def test_a_provider_that_cannot_be_is_refused(
    owner: Browser, provider: Provider, mark: str, more: dict[str, Any], field: str
) -> None:
    refused = await trust(owner, provider, mark, **more)
    assert (refused["__typename"], refused["field"]) == ("InvalidProblem", field)
    nobody = await owner.graphql("{ identityProvider { issuer } }")
    assert nobody["data"] == {"identityProvider": None}


async def test_the_secret_is_sealed_and_goes_to_no_other_issuer(
    owner: Browser, provider: Provider, runtime: Runtime, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark)
    kept = await trust(owner, provider, mark, clientSecret=None, domains=["other.example"])
    assert kept["domains"] == ["other.example"]
    moved = await trust(owner, provider, mark, issuer="http://127.0.0.1:9", clientSecret=None)
    assert problem(moved) == ("InvalidProblem", "INVALID", "clientSecret")
    async with runtime.scope(tenant_id) as scope:
        row = (await scope.db.scalars(sa.select(IdentityProvider))).one()
        members = (await scope.db.scalars(sa.select(Member))).all()
    assert row.issuer == provider.issuer
    assert CLIENT_SECRET.encode() not in row.client_secret
    assert len(members) == 1


async def test_without_its_provider_a_session_of_it_is_over(
    bea: Browser, owner: Browser, provider: Provider, tenant_id: TenantId, mark: str
) -> None:
    await trust(owner, provider, mark, defaultRole="ANALYST")
    await sign_in(bea, tenant_id)
    assert await bea.is_signed_in()
    remove = (
        "mutation($issuer: String!) { removeIdentityProvider(input: {issuer: $issuer}) "
        "{ __typename ... on Problem { code field } } }"
    )
    other = await owner.graphql(remove, issuer="https://another.example")
    assert other["data"]["removeIdentityProvider"]["code"] == "NOT_FOUND"
    assert await bea.is_signed_in()
    done = await owner.graphql(remove, issuer=provider.issuer)
    assert done["data"]["removeIdentityProvider"] == {"__typename": "IdentityProvider"}
    assert not await bea.is_signed_in()
    assert await owner.is_signed_in()
    assert error_of(await start(bea, tenant_id)) == (404, "NOT_FOUND")
