"""The twelve checks of the scanner graphql-cop: what they ask, and what they take for a finding."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from aforo.api.app import create_app
from aforo.storage.scope import Runtime
from aforo.tenants.commands import NewTenant
from tests.api.forms import in_production

Client = httpx2.AsyncClient
Check = Callable[[Client], Awaitable[bool]]

CHECKS: dict[str, Check] = {}
ON_IN_DEVELOPMENT = {"introspection", "ide"}
"""What a developer wants, and a stranger must not have."""
PLAIN = {"Content-Type": "text/plain"}
IDE_PATHS = ("/", "/graphiql", "/playground", "/console", "/graphql", "/altair", "/voyager")
IDE_SIGNS = ("graphiql", "playground", "altair", "voyager", "apollo sandbox")


def check(found: Check) -> Check:
    """Register a check by the name of its function; True is a finding."""
    CHECKS[found.__name__] = found
    return found


async def asked(client: Client, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post("/graphql", json={"query": query})).json()
    assert answer.get("errors") or answer.get("data"), answer
    return answer


@check
async def alias_overloading(client: Client) -> bool:
    aliases = " ".join(f"alias{number}: __typename" for number in range(101))
    return "data" in await asked(client, f"query {{ {aliases} }}")


@check
async def batch_overloading(client: Client) -> bool:
    batch = [{"query": "query { __typename }"}] * 10
    answer = (await client.post("/graphql", json=batch)).json()
    return isinstance(answer, list) or "data" in answer


@check
async def directive_overloading(client: Client) -> bool:
    # A server that judges every one of them is the finding: ten errors.
    few = await asked(client, f"query {{ __typename {'@aa' * 10} }}")
    many = await asked(client, f"query {{ __typename {'@aa' * 50} }}")
    return len(few.get("errors", ())) >= 10 or len(many.get("errors", ())) >= 10


@check
async def field_duplication(client: Client) -> bool:
    return "data" in await asked(client, f"query {{ {'__typename ' * 500} }}")


@check
async def circular_introspection(client: Client) -> bool:
    inner = "name"
    for _ in range(4):
        inner = f"fields {{ type {{ {inner} }} }}"
    return "data" in await asked(client, f"query {{ __schema {{ types {{ {inner} }} }} }}")


@check
async def introspection(client: Client) -> bool:
    query = "query { __schema { types { name fields { name } } } }"
    return "data" in await asked(client, query)


@check
async def ide(client: Client) -> bool:
    accepts = ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8")
    pages = [
        await client.get(path, headers={"Accept": accept})
        for path in IDE_PATHS
        for accept in accepts
    ]
    return any(sign in page.text.lower() for page in pages for sign in IDE_SIGNS)


@check
async def field_suggestions(client: Client) -> bool:
    guesses = (
        "query { __schema { directive } }",
        "query { tenantt { name } }",
        "query { tenant { nam } }",
        "query { customers(firs: 1) { edges { cursor } } }",
        "query { node(id: 1) { ... on Custome { id } } }",
        "query ($a: Custome) { __typename }",
        "query { __typename @skipp(if: true) }",
    )
    said = [await asked(client, guess) for guess in guesses]
    return any("did you mean" in str(answer).lower() for answer in said)


@check
async def trace_mode(client: Client) -> bool:
    answer = await asked(client, "query { __typename }")
    refused = await asked(client, "query { nothing }")
    extensions = [answer.get("extensions", {})]
    extensions += [error.get("extensions", {}) for error in refused["errors"]]
    signs = ("stacktrace", "traceback")
    return any({"tracing", "exception"} & each.keys() for each in extensions) or any(
        sign in f"{answer}{refused}".lower() for sign in signs
    )


@check
async def mutation_by_get(client: Client) -> bool:
    answer = await client.get("/graphql", params={"query": "mutation { __typename }"})
    return answer.status_code < 400 or "data" in answer.json()


@check
async def form_encoded_post(client: Client) -> bool:
    form = {"query": "query { __typename }"}
    answers = [
        await client.post("/graphql", data=form),
        await client.post("/graphql", params=form),
        await client.post("/graphql", files={"query": (None, form["query"])}),
        await client.post(
            "/graphql", content="{__typename}", headers={"Content-Type": "text/plain"}
        ),
    ]
    return any(answer.status_code < 400 or "data" in answer.json() for answer in answers)


@check
async def unhandled_errors(client: Client) -> bool:
    answer = await asked(client, "qwerty cop { abc }")
    return any("exception" in error["extensions"] for error in answer["errors"])


@pytest.fixture
async def strangers_meet(runtime: Runtime, tenant: NewTenant) -> AsyncIterator[Client]:
    """The application as it is in production, with a key: who has none gets no further."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=create_app(in_production(runtime))),
        base_url="http://aforo.test",
        headers={"Authorization": f"Bearer {tenant.key.token}"},
    ) as opened:
        yield opened


def test_there_are_twelve_checks() -> None:
    assert len(CHECKS) == 12


@pytest.mark.parametrize("name", CHECKS)
async def test_production_gives_it_nothing_to_find(strangers_meet: Client, name: str) -> None:
    assert not await CHECKS[name](strangers_meet)
    del strangers_meet.headers["Authorization"]
    assert not await CHECKS[name](strangers_meet)


@pytest.mark.parametrize("name", CHECKS)
async def test_development_shows_its_schema_and_page_and_nothing_else(
    client: Client, name: str
) -> None:
    assert await CHECKS[name](client) == (name in ON_IN_DEVELOPMENT)
