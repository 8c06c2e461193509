"""The example plugin in a fresh environment, as a partner would install it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "plugins" / "aforo-example"
SETTINGS = {"blockSize": "1000", "blockPrice": "2.00"}
PRICE_WITH_IT = """
import json, sys
from decimal import Decimal
from aforo.plugins import load_registry
from aforo.sdk import Usage, configure, exact, settings_form

registry = load_registry()
blocks = registry.pricing_models["example.blocks"]
with exact():
    lines = configure(blocks, json.loads(sys.argv[1])).price(
        Usage(quantity=Decimal(2500), event_count=1, currency="USD")
    )
source = registry.sources[blocks]
print(json.dumps({
    "file": sys.modules[blocks.__module__].__file__,
    "models": sorted(registry.pricing_models),
    "source": [source.distribution, source.version, source.module],
    "form": sorted(settings_form(blocks)["properties"]),
    "lines": [[line.label, str(line.quantity), str(line.amount)] for line in lines],
}))
"""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Path]:
    """The interpreter of an environment with the example, which sees our dependencies."""
    with tempfile.TemporaryDirectory(prefix="aforo-example-") as folder:
        root = Path(folder)
        run(sys.executable, "-m", "venv", "--without-pip", str(root / "env"))
        python = root / "env" / "bin" / "python"
        packages = next((root / "env" / "lib").glob("python*/site-packages"))
        # Nothing is downloaded: the dependencies are those of this environment.
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        # A copy, because building leaves its files beside the source.
        source = root / "aforo-example"
        shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
        run(
            *(str(python), "-m", "pip", "--isolated", "--disable-pip-version-check", "install"),
            *("-q", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"),
            str(source),
        )
        yield python


def run(*command: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))
    }
    done = subprocess.run(
        command,
        cwd=tempfile.gettempdir(),
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_partners_model_is_found_and_prices_usage(fresh: Path) -> None:
    answer = json.loads(run(str(fresh), "-c", PRICE_WITH_IT, json.dumps(SETTINGS)))
    assert Path(answer["file"]).is_relative_to(fresh.parents[1])
    assert answer["source"] == ["aforo-example", "0.1.0", "aforo_example"]
    assert answer["form"] == ["blockPrice", "blockSize"]
    assert answer["lines"] == [["Blocks of 1000", "3", "6.00"]]
    assert "GRADUATED" in answer["models"]  # It stands beside the standard ones.


def test_the_partners_own_test_passes_where_the_plugin_is_installed(fresh: Path) -> None:
    tests = str(EXAMPLE / "tests")
    said = run(str(fresh), "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tests, tests)
    assert " passed in " in said
