"""The house rules on imports: who may wait for the world, and who may know whom."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from tests.test_architecture import CORE, PLUGGED, PLUGINS, ROOT, functions, parsed

CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
}
STAGES = {module.removeprefix("aforo.") for module in CONTRACTS["pure"]["source_modules"]}
LAYERS = [re.split(r" [:|] ", line) for line in CONTRACTS["layers"]["layers"]]
SHELL = {*LAYERS[0], "worker", "api", "storage", "telemetry"}
"""They wait for engines and clients; of the stages only those the import contract names do."""
FOUNDATION = {"plugins", "settings", "sdk"}


def touches_the_world(path: Path) -> bool:
    """Whether the import contract lets this file of a stage know a driver."""
    module = ".".join(path.with_suffix("").parts)
    named = [line.split(" -> ")[0] for line in CONTRACTS["pure"]["ignore_imports"]]
    return any(
        re.fullmatch(name.replace(".", r"\.").replace("*", "[a-z_]+"), module) for name in named
    )


AWAITED = {"quote": ("tax", "TaxEngine"), "charge": ("payment", "PaymentGateway")}
AWAITED["find"] = AWAITED["charge"]


def asks_a_vendor(path: Path, method: str) -> bool:
    """A tax engine and a payment gateway ask a service over the network, so these may wait."""
    file, kind = AWAITED.get(method, ("", ""))
    return bool(kind) and (
        path == Path(f"aforo/sdk/{file}.py") or f"({kind}" in (ROOT / path).read_text()
    )


def test_only_the_shell_is_async() -> None:
    waiting = {
        (path, node.name)
        for path in CORE + PLUGGED
        for node in functions(parsed(path))
        if isinstance(node, ast.AsyncFunctionDef)
        and not (path.parts[0] == "aforo" and path.parts[1].removesuffix(".py") in SHELL)
        and not touches_the_world(path)
        and not asks_a_vendor(path, node.name)
        # The contract suites run what waits in a loop of their own.
        and not path.is_relative_to("aforo/sdk/testing")
    }
    assert waiting == set()


def test_events_are_read_through_the_views_that_demand_a_tenant() -> None:
    past_the_views = re.compile(
        r"\b(?:FROM|JOIN) +(?:events|event_correction|bill_run_event_index)\b"
    )
    texts = {path: (ROOT / path).read_text() for path in CORE}
    assert any("FROM events_of(" in text or "{EVENTS}" in text for text in texts.values())
    assert [path for path, text in texts.items() if past_the_views.search(text)] == []


def test_every_package_has_its_layer_and_every_stage_is_pure_by_contract() -> None:
    there = {path.parts[1].removesuffix(".py") for path in CORE if path.parts[1] != "__init__.py"}
    assert there == {name for line in LAYERS for name in line}
    assert there - SHELL - FOUNDATION == STAGES


def test_the_import_contracts_know_every_plugin() -> None:
    packages = {parent.name for plugin in PLUGINS for parent in package_folders(plugin)}
    assert packages == set(CONTRACTS["plugins"]["source_modules"])


def test_a_plugin_imports_nothing_else_of_aforo_than_the_sdk() -> None:
    names = {name for path in PLUGGED for name in imported(path) if name.split(".")[0] == "aforo"}
    assert names == {"aforo.sdk"}


def test_the_sdk_imports_only_pydantic_and_pluggy() -> None:
    suites = Path("aforo/sdk/testing")
    paths = [path for path in CORE if path.is_relative_to("aforo/sdk")]
    names = {name for path in paths for name in imported(path) if path.parent != suites}
    foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == {"aforo", "pydantic", "pluggy"}
    assert "aforo.sdk.testing" not in names  # pytest is needed by nobody who only runs.
    tested = {name for path in paths for name in imported(path) if path.parent == suites}
    assert {name.split(".")[0] for name in tested} - sys.stdlib_module_names <= {
        "aforo",
        "pydantic",
        "pytest",
    }
    names |= tested
    assert [name for name in names if re.match(r"aforo(?!\.sdk)", name)] == []


def package_folders(plugin: Path) -> list[Path]:
    return [file.parent for file in plugin.glob("*/__init__.py") if file.parent.name != "tests"]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names
