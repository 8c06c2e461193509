"""Tests of the GraphQL page for browsers: all it needs is in the package, and nothing leaves it."""

import json
import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest
from graphql import OperationDefinitionNode, parse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from aforo.api import ide

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
FILES = sorted(path.name for path in ide.ASSETS.iterdir())


class Elements(HTMLParser):
    """Collects every element's attributes, and the data of the element that has the id `config`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.config = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][1].get("id") == "config":
            self.config += data.strip()

    def addresses(self):
        return [
            value
            for _, attrs in self.found
            for name, value in attrs.items()
            if name in {"src", "href"}
        ]


async def graphql(request: Request) -> Response:
    if ide.prefers_page(request):
        return await ide.ide_response(request)
    return PlainTextResponse("for clients")


@pytest.fixture
def client():
    app = Starlette(routes=[Route("/graphql", graphql), *ide.routes()])
    return TestClient(app)


@pytest.fixture
def answer(client):
    return client.get("/graphql", headers={"accept": BROWSER})


def test_a_browser_gets_the_page(answer):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["vary"] == "Accept"


def test_the_page_names_no_other_host(answer):
    addresses = Elements(answer.text).addresses()
    assert len(addresses) == 3
    for address in addresses:
        assert address == "data:," or re.fullmatch(r"/graphiql/[\w.-]+", address)
    assert "://" not in answer.text


def test_every_file_that_the_page_names_is_served(client, answer):
    for address in Elements(answer.text).addresses():
        if address != "data:,":
            assert client.get(address).status_code == 200


def test_the_style_sheet_loads_nothing_from_elsewhere():
    [sheet] = ide.ASSETS.glob("*.css")
    text = sheet.read_text(encoding="utf-8")
    assert "@import" not in text
    assert {match[:5] for match in re.findall(r"url\([\"']?(.{5})", text)} == {"data:"}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served_with_its_type_and_lifetime(client, name):
    answer = client.get(f"/graphiql/{name}")
    kind = {".js": "text/javascript", ".css": "text/css", "": "text/plain"}[Path(name).suffix]
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == (ide.ASSETS / name).read_bytes()
    hashed = re.search(r"-[A-Z0-9]{8}\.", name)
    expected = "public, max-age=31536000, immutable" if hashed else "no-cache"
    assert answer.headers["cache-control"] == expected


def test_the_policy_admits_only_what_carries_the_nonce(answer):
    policy = dict(
        directive.split(" ", 1)
        for directive in answer.headers["content-security-policy"].split("; ")
    )
    nonce = policy["script-src"].removeprefix("'nonce-").removesuffix("'")
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    carriers = {
        tag: attrs.get("nonce") for tag, attrs in Elements(answer.text).found if "nonce" in attrs
    }
    assert carriers == {"link": nonce, "script": nonce}


def test_every_answer_has_a_nonce_of_its_own(client):
    policies = {
        client.get("/graphql", headers={"accept": BROWSER}).headers["content-security-policy"]
        for _ in range(5)
    }
    assert len(policies) == 5


@pytest.mark.parametrize(
    "path",
    [
        "/graphiql/",
        "/graphiql/missing.js",
        "/graphiql/..",
        "/graphiql/../ide.py",
        "/graphiql/%2e%2e/ide.py",
        "/graphiql/..%2fide.py",
        "/graphiql/..%5cide.py",
        "/graphiql/%2fetc%2fpasswd",
        "/graphiql/THIRD-PARTY-LICENSES%00",
        f"/graphiql/./{FILES[0]}/../../ide.py",
    ],
)
def test_no_other_path_leads_to_a_file(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML;q=0.9, application/json;q=0.8", True),
        ("application/xhtml+xml, text/html;q=0.5", True),
        ("", False),
        ("*/*", False),
        ("text/html;q=0", False),
        ("text/html;q=none", False),
        ("application/json, text/html", False),
        ("application/graphql-response+json, application/json;q=0.9", False),
        ("text/html;q=0.8, application/json;q=0.9", False),
        ("text/event-stream, text/html;q=0.1", False),
    ],
)
def test_only_who_likes_html_best_gets_the_page(client, accept, expected):
    answer = client.get("/graphql", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("text/html") is expected


def test_the_page_brings_the_ready_queries_and_its_address(answer):
    config = json.loads(Elements(answer.text).config)
    assert config == {"endpoint": "/graphql", "queries": list(ide.ready_queries())}


def test_files_stand_beside_the_endpoint_behind_a_prefix():
    elements = Elements(ide.page(endpoint="/billing/graphql", nonce="n"))
    assert json.loads(elements.config)["endpoint"] == "/billing/graphql"
    assert [address.rpartition("/")[0] for address in elements.addresses()[1:]] == [
        "/billing/graphiql",
        "/billing/graphiql",
    ]


def test_no_text_in_the_page_ends_its_script_early():
    hostile = '/x"></script><script>alert(1)</script>/graphql'
    elements = Elements(ide.page(endpoint=hostile, nonce="n"))
    assert json.loads(elements.config)["endpoint"] == hostile
    assert [tag for tag, _ in elements.found].count("script") == 2


@pytest.mark.parametrize("name", ide.TABS)
def test_a_ready_query_is_one_named_operation(name):
    # GraphiQL names the tab after the operation.
    text = (ide.QUERIES / f"{name}.graphql").read_text(encoding="utf-8")
    [operation] = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name
    assert operation.name.value == "".join(word.capitalize() for word in name.split("-"))


def test_every_query_file_has_a_tab():
    assert {path.stem for path in ide.QUERIES.iterdir()} == set(ide.TABS)


def test_the_licences_of_the_bundle_are_in_the_package():
    text = (ide.ASSETS / "THIRD-PARTY-LICENSES").read_text(encoding="utf-8")
    for package in ["graphiql", "codemirror", "react", "react-dom", "graphql", "graphql-ws"]:
        assert re.search(rf"^{package} \d+\.\d+\.\d+ \(MIT\)$", text, re.MULTILINE)
    headings = re.findall(r"^={80}\n(.+) \d\S* \((.+)\)\n={80}\n\n(.+)", text, re.MULTILINE)
    assert len(headings) == text.count("=" * 80) / 2
    for _, licence, beginning in headings:
        assert licence in {"MIT", "Apache-2.0", "BSD-2-Clause", "0BSD"}
        assert beginning.strip()


def test_the_files_are_small_and_without_source_maps():
    assert sorted(Path(name).suffix for name in FILES) == ["", ".css", ".js"]
    assert sum((ide.ASSETS / name).stat().st_size for name in FILES) < 3_000_000
    for name in FILES:
        assert b"sourceMappingURL" not in (ide.ASSETS / name).read_bytes()


def test_the_wheel_takes_every_file_along():
    package = Path(ide.__file__).parents[1]
    settings = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["aforo"]
    for folder in [ide.ASSETS, ide.QUERIES]:
        for path in folder.iterdir():
            name = path.relative_to(package).as_posix()
            assert any(fnmatch(name, pattern) for pattern in patterns), name
