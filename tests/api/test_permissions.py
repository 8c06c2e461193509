"""What a document needs: found once for each, by the fields it selects and the types they give."""

import httpx2
import pytest
import strawberry
from graphql import OperationDefinitionNode, parse, validate

from aforo.api.parts.fields import field
from aforo.api.parts.permissions import OPEN, Rules, undeclared
from aforo.api.schema import schema
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant, create_api_key
from aforo.tenants.permissions import Permission
from tests.api.forms import no_such

CORE = schema._schema
RULES = Rules(CORE)


def needs(text: str) -> dict[str, str]:
    """Permissions by name, each with the path of a field that needs it."""
    document = parse(text)
    assert validate(CORE, document) == []
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    found = RULES.needs(document, operation).permissions
    return {permission.name: path for permission, path in found.items()}


@pytest.mark.parametrize(
    ("document", "needed"),
    [
        ("{ __typename __schema { queryType { name } } }", {}),
        ("{ tenant { name } }", {}),
        ("{ customers { edges { cursor } } }", {"CUSTOMERS_READ": "customers"}),
        ("{ customers { __typename } }", {"CUSTOMERS_READ": "customers"}),
        (
            "{ customers { edges { node { wallets { balance } } } } }",
            {"CUSTOMERS_READ": "customers", "BILLING_READ": "customers.edges.node.wallets"},
        ),
        (
            "{ mine: invoices { edges { node { who: customer { id } } } } }",
            {"BILLING_READ": "mine", "CUSTOMERS_READ": "mine.edges.node.who"},
        ),
        ('{ node(id: "x") { id __typename } }', {}),
        (
            '{ node(id: "x") { ... on Signal { customer { name } } } }',
            {"SIGNALS_READ": "node.customer", "CUSTOMERS_READ": "node.customer"},
        ),
        (
            "{ ...A } fragment A on Query { signals { ...B } } "
            "fragment B on SignalConnection { edges { node { customer { id } } } }",
            {"SIGNALS_READ": "signals", "CUSTOMERS_READ": "signals.edges.node.customer"},
        ),
        ("subscription { events { eventId } }", {"USAGE_READ": "events"}),
    ],
)
def test_a_document_needs_what_its_fields_and_their_types_need(
    document: str, needed: dict[str, str]
) -> None:
    assert needs(document) == needed


def test_what_a_mutation_gives_back_needs_nothing_further_in_its_own_domain() -> None:
    text = """
    mutation {
      grantCredit(input: {walletId: "x", amount: "1"}) {
        ... on WalletGrant { amount }
        ... on Problem { code }
      }
    }
    """
    assert needs(text) == {"BILLING_WRITE": "grantCredit"}
    further = """
    mutation {
      createSubscription(input: {customerId: "x", offeringId: "x"}) {
        ... on CustomerSubscription { customer { wallets { balance } } }
      }
    }
    """
    assert needs(further) == {
        "CUSTOMERS_WRITE": "createSubscription",
        "BILLING_READ": "createSubscription.customer.wallets",
    }


def test_only_the_operation_that_runs_is_asked_about() -> None:
    document = "query A { customers { __typename } } query B { invoices { __typename } }"
    assert needs(document) == {"CUSTOMERS_READ": "customers"}


def test_fragments_that_multiply_are_looked_at_once() -> None:
    parts = [
        f"fragment F{number} on Customer {{ ...F{number + 1} ...F{number + 1} }}"
        for number in range(40)
    ]
    last = "fragment F40 on Customer { wallets { balance } }"
    document = " ".join(["{ customers { edges { node { ...F0 } } } }", *parts, last])
    parsed = parse(document)
    operation = parsed.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    assert RULES.needs(parsed, operation).permissions == {
        Permission.CUSTOMERS_READ: "customers",
        Permission.BILLING_READ: "customers.edges.node.wallets",
    }


# What is not declared.


@strawberry.type
class Odd:
    name: str = "odd"


def test_a_schema_that_leaves_a_permission_open_does_not_build() -> None:
    @strawberry.type
    class Query:
        @field("Without one.")
        def plain(self) -> str:
            return ""

        @field("Of a type without one.", needs=OPEN)
        def odd(self) -> Odd:
            return Odd()

    built = strawberry.Schema(query=Query)
    said = [each for each in undeclared(built._schema) if "no such type" not in each]
    assert said == [
        "Query.plain has no permission: give its decorator needs=Permission.…, or needs=OPEN "
        "where anyone who is known may",
        "Odd has no permission: name it in READ of aforo/api/parts/permissions.py, or in "
        "OPEN_TYPES with a reason",
    ]


def test_the_published_description_says_what_a_field_needs() -> None:
    assert CORE.query_type
    assert CORE.mutation_type
    assert (CORE.query_type.fields["invoices"].description or "").endswith("Needs `BILLING_READ`.")
    changes = CORE.mutation_type.fields
    assert all("Needs `" in (each.description or "") for each in changes.values())


# Over HTTP.


@pytest.fixture
async def billing_only(
    client: httpx2.AsyncClient, runtime: Runtime, tenant: NewTenant
) -> httpx2.AsyncClient:
    async with runtime.scope(TenantId(tenant.tenant.tenant_id)) as scope:
        key = await create_api_key(
            scope,
            name="billing",
            scopes=[Permission.BILLING_READ],
            pepper=runtime.settings.key_pepper,
        )
    client.headers["authorization"] = f"Bearer {key.token}"
    return client


async def test_a_key_that_lacks_a_permission_is_told_which_and_where(
    billing_only: httpx2.AsyncClient,
) -> None:
    query = "{ invoices { edges { node { customer { name } lines { meter { code } } } } } }"
    response = await billing_only.post("/graphql", json={"query": query})
    assert response.status_code == 403
    assert response.json() == {
        "errors": [
            {
                "message": "this API key lacks the permission "
                "CATALOG_READ for `invoices.edges.node.lines.meter` and "
                "CUSTOMERS_READ for `invoices.edges.node.customer`",
                "extensions": {"code": "FORBIDDEN"},
            }
        ]
    }


async def test_node_gives_only_what_the_key_may_read_and_does_not_say_what_there_is(
    billing_only: httpx2.AsyncClient,
) -> None:
    query = "query($id: ID!) { node(id: $id) { id } }"
    allowed = {"query": query, "variables": {"id": no_such("Invoice")}}
    assert (await billing_only.post("/graphql", json=allowed)).json()["data"] == {"node": None}
    other = {"query": query, "variables": {"id": no_such("Customer")}}
    answer = (await billing_only.post("/graphql", json=other)).json()
    assert answer["data"] == {"node": None}
    [error] = answer["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN", "field": "id"}
    assert error["message"] == "this API key lacks the permission CUSTOMERS_READ"
