"""What a key may hand on."""

import httpx2
import pytest

from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_api_key
from aforo.tenants.permissions import Permission
from tests.api.forms import poster

pytestmark = pytest.mark.anyio

CREATE = """
mutation ($input: CreateApiKeyInput!) {
  createApiKey(input: $input) { __typename ... on Problem { code field } }
}
"""


async def test_a_key_makes_no_key_that_may_do_more_than_itself(
    client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant
) -> None:
    async with runtime.scope(TenantId(tenant.key.row.tenant_id)) as scope:
        writer = await create_api_key(
            scope,
            name="writer",
            scopes=[Permission.ACCESS_WRITE],
            pepper=runtime.settings.key_pepper,
        )
    everything = client.headers["authorization"]
    client.headers["authorization"] = f"Bearer {writer.token}"
    graphql = poster(client)
    for scopes in (["ACCESS_READ"], ["INGEST", "ACCESS_WRITE"], ["BILLING_WRITE", "CHECK"]):
        refused = await graphql(CREATE, input={"name": "more", "scopes": scopes})
        assert refused["createApiKey"] == {
            "__typename": "InvalidProblem",
            "code": "SCOPE_NOT_HELD",
            "field": "scopes",
        }
    made = await graphql(CREATE, input={"name": "same", "scopes": ["ACCESS_WRITE"]})
    assert made["createApiKey"] == {"__typename": "NewApiKey"}
    client.headers["authorization"] = everything
    keys = await poster(client)("{ apiKeys { edges { node { name } } } }")
    names = [edge["node"]["name"] for edge in keys["apiKeys"]["edges"]]
    assert names == [tenant.key.row.name, "writer", "same"]
