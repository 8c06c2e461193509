"""The TypeScript sample: typed strictly, and run against a real Aforo."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.api.shop import Shop
from tests.clients.conftest import ROOT, Address
from tests.clients.node import MODULES, Node

SAMPLE = ROOT / "clients/typescript"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A copy of it beside the packages, as in somebody's project."""
    folder = tmp_path / "sample"
    shutil.copytree(SAMPLE, folder)
    (folder / "node_modules").symlink_to(MODULES)
    return folder


async def built(node: Node, folder: Path, name: str) -> str:
    bundle = ["--bundle", "--packages=external", "--format=esm", "--target=node20"]
    out = f"--outfile=out/{name}.mjs"
    await node.passes("esbuild", f"{name}.ts", *bundle, out, "--log-level=error", folder=folder)
    return str(folder / "out" / f"{name}.mjs")


async def test_the_sample_is_typed_strictly(node: Node, sample: Path) -> None:
    await node.passes("tsc", "--project", ".", folder=sample)


async def test_an_event_without_what_it_needs_is_no_type(node: Node, sample: Path) -> None:
    wrong = """
import { Aforo } from './aforo';
new Aforo({ url: '', key: '' }).track({ customer: 'acme', properties: { at: new Date() } });
"""
    (sample / "wrong.ts").write_text(wrong)
    ended = await node.run("tsc", "--project", ".", folder=sample)
    assert ended.code != 0
    assert "wrong.ts" in ended.said


async def test_the_example_runs(
    node: Node, sample: Path, address: Address, shop: Shop, run_jobs: Callable[[], Awaitable[None]]
) -> None:
    program = await built(node, sample, "example")
    said = await node.passes("node", program, environment=address.environment, folder=sample)
    assert said.splitlines() == ["0 events wait", "acme Acme"]


async def test_the_client_sends_everything_once(
    node: Node, sample: Path, address: Address, shop: Shop
) -> None:
    client = await built(node, sample, "aforo")
    words = ("node", "--test-force-exit", "client.test.mjs")
    await node.passes(*words, environment={**address.environment, "CLIENT": client})
