"""The schema as a file: served with a version and a tag, and in production not to strangers."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from graphql import build_schema

from aforo.api.app import create_app
from aforo.api.schema import schema_text
from aforo.api.sdl import schema_version
from aforo.storage.scope import Runtime
from tests.api.forms import in_production


@pytest.fixture
async def strangers(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    """The application in production, called without a key."""
    app = create_app(in_production(runtime))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://aforo.test") as opened:
        yield opened


async def test_the_file_is_the_schema_with_its_version(client: httpx2.AsyncClient) -> None:
    del client.headers["Authorization"]  # A developer's tools need no key.
    response = await client.get("/schema.graphql")
    assert response.status_code == 200
    assert response.text == schema_text()
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["aforo-schema-version"] == schema_version()
    assert response.headers["etag"] == f'"{schema_version()}"'
    assert build_schema(response.text).query_type is not None


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ('"{}"', 304),
        ('W/"{}"', 304),
        ('"other", "{}"', 304),
        ('"other"', 200),
        ("{}", 200),
        ("", 200),
    ],
)
async def test_who_has_it_already_gets_nothing_again(
    client: httpx2.AsyncClient, known: str, status: int
) -> None:
    headers = {"If-None-Match": known.format(schema_version())}
    response = await client.get("/schema.graphql", headers=headers)
    assert response.status_code == status
    assert (response.text == "") == (status == 304)
    assert response.headers["etag"] == f'"{schema_version()}"'
    assert response.headers["cache-control"] == "private, no-cache"


async def test_production_shows_it_to_those_with_a_key_alone(
    strangers: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    refused = await strangers.get("/schema.graphql")
    assert refused.status_code == 401
    assert "type Query" not in refused.text
    known = {"If-None-Match": f'"{schema_version()}"'}
    assert (await strangers.get("/schema.graphql", headers=known)).status_code == 401
    strangers.headers["Authorization"] = client.headers["Authorization"]
    assert (await strangers.get("/schema.graphql")).text == schema_text()


async def test_it_is_only_read(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/schema.graphql")).status_code == 405


def test_the_version_is_a_release_and_the_text_itself() -> None:
    release, _, digest = schema_version().partition("+")
    assert release.count(".") == 2
    assert len(digest) == 12
