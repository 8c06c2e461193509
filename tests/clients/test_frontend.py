"""What the manual gives frontend teams, built from `schema.graphql` as it is, and run."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.api.forms import GraphQL, made
from tests.clients.conftest import RECIPES, ROOT, Address
from tests.clients.node import MODULES, Node

CUSTOMERS = 25
"""Of the tenant, in all: more than two of the recipes' pages of ten."""

RUN = {
    "src/typed-fetch.ts": ["created Acme", f"{CUSTOMERS + 1} customers"],
    "src/apollo.ts": ["20 customers are shown", "found Apollo", "cached: true", "live: live-.+"],
    "src/urql.ts": ["10 customers", "asked again: hit", "made a Customer", "live: live-.+"],
    "src/persisted.ts": [
        "4 documents are persisted",
        "10 customers by the id alone",
        "10 customers by Apollo Client",
    ],
    "relay/main.ts": [
        "20 customers are shown",
        "fetched again: true",
        "made a Customer",
        "live: live-.+",
    ],
}
"""The programs, and what each of them says, line by line."""


async def test_every_recipe_is_typed_strictly(node: Node, project: Path) -> None:
    assert json.loads((project / "tsconfig.json").read_text())["compilerOptions"]["strict"]
    await node.passes("tsc", "--project", ".", folder=project)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("execute(Customers, { first: '10' })", "'string' is not assignable to type 'number'"),
        ("execute(Customers, {})", "'first' is missing"),
        ("(await execute(Customers, { first: 1 })).custommers", "'custommers' does not exist"),
        (
            "execute(CreateCustomer, { input: { name: 'Acme' } })",
            "missing the following",
        ),
    ],
)
async def test_the_types_know_what_the_schema_says(
    node: Node, project: Path, wrong: str, complaint: str
) -> None:
    program = f"""
import type {{ TypedDocumentNode }} from '@graphql-typed-document-node/core';
import {{ CreateCustomer, Customers }} from '../src/documents';

declare function execute<R, V>(document: TypedDocumentNode<R, V>, variables: V): Promise<R>;
export const used = [CreateCustomer, Customers];
export const wrong = {wrong};
"""
    folder = project / "wrong"
    folder.mkdir(exist_ok=True)
    (folder / "program.ts").write_text(program)
    settings = {"extends": "../tsconfig.json", "include": ["program.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    ended = await node.run("tsc", "--project", "wrong", folder=project)
    assert ended.code != 0
    assert ended.said.count("error TS") == 1
    assert complaint in ended.said


async def test_documents_are_persisted_by_the_hash_of_their_text(project: Path) -> None:
    persisted = json.loads((project / "src/gql/persisted-documents.json").read_text())
    written = (project / "src/documents.ts").read_text()
    assert len(persisted) == written.count("graphql(`")
    for name, text in persisted.items():
        assert name == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


async def test_a_document_that_does_not_fit_the_schema_is_not_built(
    node: Node, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(RECIPES, folder)
    shutil.copy(ROOT / "schema.graphql", folder)
    (folder / "node_modules").symlink_to(MODULES)
    for name in ("src/documents.ts", "relay/documents.ts"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("idempotencyKey", "idempotenceKey"))
    for tool in ("graphql-codegen", "relay-compiler"):
        ended = await node.run(tool, folder=folder)
        assert ended.code != 0
        assert "idempotenceKey" in f"{ended.said}{ended.failed}"


def test_every_program_of_the_project_is_run() -> None:
    documents = {"src/documents.ts", "relay/documents.ts"}
    there = {f"{path.parent.name}/{path.name}" for path in RECIPES.glob("*/*.ts")}
    assert there - documents == RUN.keys()


@pytest.mark.parametrize("program", RUN)
async def test_a_recipe_runs_and_says_what_it_should(
    node: Node, project: Path, happening: Address, graphql: GraphQL, program: str
) -> None:
    for number in range(CUSTOMERS - 1):
        given = {"externalId": f"customer-{number}", "name": f"Customer {number}"}
        await made(graphql, "createCustomer", **given, currency="USD")
    built = str(Path("out", program).with_suffix(".mjs"))
    said = await node.passes("node", built, environment=happening.environment, folder=project)
    lines = said.splitlines()
    assert len(lines) == len(RUN[program]), said
    for line, expected in zip(lines, RUN[program], strict=True):
        assert re.fullmatch(expected, line), line
