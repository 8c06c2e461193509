"""The package itself: it builds as a wheel that runs alone, and needs only the standard library."""

import ast
import asyncio
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from aforo_client.transport import VERSION
from tests.clients.python.conftest import PACKAGE


def test_it_imports_nothing_but_the_standard_library() -> None:
    allowed = sys.stdlib_module_names | {"aforo_client"}
    for path in PACKAGE.glob("aforo_client/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, path


def test_it_says_which_version_it_is() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert project["dependencies"] == []


@pytest.mark.anyio
async def test_it_builds_as_a_wheel_that_runs_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copied = ["pyproject.toml", "README.md", *PACKAGE.glob("aforo_client/*")]
    for path in (PACKAGE / each for each in copied):
        if path.is_file():
            target = source / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    options = ["--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(source)]
    await asyncio.to_thread(
        subprocess.run, [sys.executable, *command, *options], check=True, timeout=60
    )
    (wheel,) = tmp_path.glob("aforo_client-*-py3-none-any.whl")  # noqa: ASYNC240
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    assert (installed / "aforo_client" / "py.typed").is_file()
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import aforo_client; "
        "print(aforo_client.__file__, sorted(set(sys.modules) & {'aforo', 'httpx2', 'pydantic'}))"
    )
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-W", "error", "-c", program, str(installed)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stdout.split() == [str(installed / "aforo_client" / "__init__.py"), "[]"]
