"""Global ids, cursors and pages, over HTTP on the API keys of a tenant."""

from base64 import urlsafe_b64encode
from typing import Any

import httpx2
import pytest

from aforo.api.parts import relay
from aforo.api.parts.cursors import cursor_at, cursor_of, cursor_parts
from aforo.sdk.errors import Invalid
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.tenants import queries
from aforo.tenants.commands import NewTenant, create_api_key, create_tenant
from aforo.tenants.permissions import Permission

pytestmark = pytest.mark.anyio

KEYS = """
query($first: Int, $after: String) {
  apiKeys(first: $first, after: $after) {
    edges { cursor node { id name } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@pytest.fixture
async def names(runtime: Runtime, tenant: NewTenant) -> list[str]:
    """The names of the tenant's five keys, oldest first."""
    made = ["First key"]
    async with runtime.scope(tenant.key.row.tenant_id) as scope:
        for number in range(4):
            key = await create_api_key(
                scope,
                name=f"key {number}",
                scopes=[Permission.CATALOG_READ],
                pepper=runtime.settings.key_pepper,
            )
            made.append(key.row.name)
    return made


async def _ask(client: httpx2.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    assert response.status_code == 200
    answer: dict[str, Any] = response.json()
    return answer


async def test_pages_follow_each_other_without_gap_or_repeat(
    client: httpx2.AsyncClient, names: list[str]
) -> None:
    for size in (1, 2, 5, 100):
        seen: list[str] = []
        after, more = None, True
        while more:
            answer = await _ask(client, KEYS, first=size, after=after)
            page = answer["data"]["apiKeys"]
            assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
            assert len(page["edges"]) <= size
            assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
            seen += [edge["node"]["name"] for edge in page["edges"]]
            after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        assert seen == names


async def test_a_page_of_none_says_whether_there_are_any(
    client: httpx2.AsyncClient, names: list[str]
) -> None:
    assert names
    page = (await _ask(client, KEYS, first=0))["data"]["apiKeys"]
    assert page == {
        "edges": [],
        "pageInfo": {
            "hasNextPage": True,
            "hasPreviousPage": False,
            "startCursor": None,
            "endCursor": None,
        },
    }


@pytest.mark.parametrize("first", [-1, 101, 2_000_000_000])
async def test_a_page_of_another_size_is_refused(client: httpx2.AsyncClient, first: int) -> None:
    answer = await _ask(client, KEYS, first=first)
    assert answer["errors"][0]["extensions"] == {"code": "BAD_PAGE", "field": "first"}


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "-1", "0", "!", "AAAA", "é", "A" * 10_000, "Zm9yZ2Vk", "YXJyYXljb25uZWN0aW9uOi0x"],
)
async def test_a_forged_cursor_is_refused_clearly(client: httpx2.AsyncClient, cursor: str) -> None:
    answer = await _ask(client, KEYS, first=5, after=cursor)
    assert answer["errors"][0]["extensions"] == {"code": "BAD_CURSOR", "field": "after"}
    assert answer["data"] is None


async def test_a_cursor_of_another_tenant_gives_no_row_of_it(
    client: httpx2.AsyncClient, runtime: Runtime, names: list[str]
) -> None:
    stranger = await create_tenant(runtime, name="Stranger")
    after = cursor_of(stranger.key.row, queries.api_keys())
    page = (await _ask(client, KEYS, first=5, after=after))["data"]["apiKeys"]
    assert page["edges"] == []  # The stranger's key is younger than all of ours.
    oldest = urlsafe_b64encode(bytes(16)).decode().rstrip("=")
    page = (await _ask(client, KEYS, first=5, after=oldest))["data"]["apiKeys"]
    assert [edge["node"]["name"] for edge in page["edges"]] == names


NODE = "query($id: ID!) { node(id: $id) { __typename id } }"
NODES = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"


async def test_node_finds_what_an_id_names(client: httpx2.AsyncClient, tenant: NewTenant) -> None:
    for kind, uuid in (("ApiKey", tenant.key.row.id), ("Tenant", tenant.tenant.tenant_id)):
        id_ = relay.global_id(kind, uuid)
        answer = await _ask(client, NODE, id=id_)
        assert answer["data"]["node"] == {"__typename": kind, "id": id_}


async def test_nodes_come_in_order_with_nulls_for_what_is_not_there(
    client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant
) -> None:
    stranger = await create_tenant(runtime, name="Stranger")
    ours = relay.global_id("ApiKey", tenant.key.row.id)
    ids = [
        ours,
        relay.global_id("ApiKey", stranger.key.row.id),
        relay.global_id("ApiKey", new_id()),
        relay.global_id("Tenant", stranger.tenant.tenant_id),
        ours,
    ]
    found = (await _ask(client, NODES, ids=ids))["data"]["nodes"]
    assert found == [{"__typename": "ApiKey", "id": ours}, None, None, None, found[0]]


async def test_at_most_a_hundred_nodes_at_once(client: httpx2.AsyncClient) -> None:
    ids = [relay.global_id("ApiKey", new_id()) for _ in range(101)]
    assert (await _ask(client, NODES, ids=ids[:100]))["data"]["nodes"] == [None] * 100
    answer = await _ask(client, NODES, ids=ids)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_PAGE"


def _encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "1",
        "not an id",
        str(new_id()),
        _encoded("ApiKey"),
        _encoded("ApiKey:1"),
        _encoded(f"ApiKey:{new_id()}:x"),
        _encoded(f"ApiKey:{str(new_id()).upper()}"),
        _encoded(f"ApiKey:{{{new_id()}}}"),
        _encoded(f"Nothing:{new_id()}"),
        _encoded(f":{new_id()}"),
        _encoded(f"ApiKey:{new_id()}") + "=",
        "A" * 5_000,
    ],
    ids=map(str, range(13)),
)
async def test_what_is_no_id_is_told_apart_from_what_is_not_there(
    client: httpx2.AsyncClient, id_: str
) -> None:
    answer = await _ask(client, NODE, id=id_)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_ID"
    assert answer["data"] == {"node": None}


async def test_an_id_of_another_kind_is_refused_as_input(client: httpx2.AsyncClient) -> None:
    answer = await _ask(
        client,
        "mutation($id: ID!) { revokeApiKey(input: {apiKeyId: $id}) "
        "{ __typename ... on Problem { code field } } }",
        id=relay.global_id("Meter", new_id()),
    )
    assert answer["data"]["revokeApiKey"] == {
        "__typename": "InvalidProblem",
        "code": "BAD_ID",
        "field": "apiKeyId",
    }


def test_a_cursor_of_several_parts_is_read_back() -> None:
    cursor = cursor_at(7, "2026-11-20T10:00:00Z", 3)
    assert cursor_parts(cursor, 3) == ["7", "2026-11-20T10:00:00Z", "3"]
    with pytest.raises(Invalid):
        cursor_parts(cursor, 2)
