"""A plugin of a single file: what it brings, and what every mistake is told."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aforo.plugins import load_registry
from aforo.sdk import PluginError
from tests.plugins.test_door import GOOD


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    """What a file brought does not stay."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, source: str, name: str = "my_pricing.py") -> Path:
    path = folder / name
    path.write_text(source)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PluginError) as refused:
        load_registry(files=[path])
    return refused.value.message.replace(str(path), "PATH")


def test_a_file_joins_the_installed_plugins(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('aforo_sdk = "1.0"\n', ""))
    registry = load_registry(files=[path])
    model = registry.pricing_models["acme.free"]
    assert registry.sources[model].module == "my_pricing"
    assert registry.sources[model].distribution is None
    assert "FLAT" in registry.pricing_models
    # Again in the same process, as a demo does that starts over.
    assert "acme.free" in load_registry(files=[path]).pricing_models


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def broken(:\n", "the plugin PATH is no Python: invalid syntax in line 1"),
        (
            "import no_such_module_at_all",
            "the plugin PATH cannot be imported: ModuleNotFoundError: No module named "
            "'no_such_module_at_all'",
        ),
        (
            "raise SystemExit('bye')",
            "the plugin PATH cannot be imported: SystemExit: bye",
        ),
        (
            "x = 1",
            "the plugin PATH registers nothing: mark its functions with @hookimpl",
        ),
        (
            'aforo_sdk = "7.0"\n' + GOOD.replace('aforo_sdk = "1.0"\n', ""),
            "the plugin PATH is written for SDK 7.0, and Aforo 0.1.0 has SDK 1.1.0: upgrade Aforo, "
            "or install an older the plugin",
        ),
        (
            "import aforo.storage\n",
            "the plugin PATH imports aforo.storage (my_pricing.py, line 1): a plugin imports "
            "aforo.sdk and nothing else of Aforo; see docs/plugins/limits.md",
        ),
        (
            GOOD.replace('key = "acme.free"', 'key = "FLAT"'),
            "the plugin PATH: the key 'FLAT' of Free is taken by Flat of aforo-standard; give it "
            "another key",
        ),
    ],
)
def test_a_faulty_file_is_told_what_is_wrong(tmp_path: Path, source: str, told: str) -> None:
    assert refusal(write(tmp_path, source)) == told


def test_a_file_that_is_none_is_told_so(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.py").startswith("the plugin PATH does not exist")
    assert refusal(tmp_path).startswith("the plugin PATH is a folder: ")
    assert "name the file like one" in refusal(write(tmp_path, GOOD, "my-pricing.py"))
    assert "name the file like one" in refusal(write(tmp_path, GOOD, "pricing.txt"))


def test_a_file_whose_folder_is_on_the_path_is_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, GOOD)
    assert "acme.free" in load_registry(files=[path]).pricing_models


@pytest.mark.parametrize(
    "name", ["json.py", "time.py", "antigravity.py", "aforo_standard.py", "pydantic.py"]
)
def test_a_file_does_not_take_the_name_of_another_module(tmp_path: Path, name: str) -> None:
    assert refusal(write(tmp_path, GOOD, name)) == (
        "the plugin PATH has the name of another module: rename the file"
    )
