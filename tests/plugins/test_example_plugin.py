"""The example plugin in a fresh environment, as a partner would install it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.environments import ROOT, Environment, fresh_environment

EXAMPLE = ROOT / "plugins" / "aforo-example"
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
def fresh() -> Iterator[Environment]:
    """An environment with the example."""
    with fresh_environment() as environment:
        environment.install(EXAMPLE)
        yield environment


def test_a_partners_model_is_found_and_prices_usage(fresh: Environment) -> None:
    answer = json.loads(fresh.run("-c", PRICE_WITH_IT, json.dumps(SETTINGS)))
    assert Path(answer["file"]).is_relative_to(fresh.folder)
    assert answer["source"] == ["aforo-example", "0.1.0", "aforo_example"]
    assert answer["form"] == ["blockPrice", "blockSize"]
    assert answer["lines"] == [["Blocks of 1000", "3", "6.00"]]
    assert "GRADUATED" in answer["models"]  # It stands beside the standard ones.


def test_the_partners_own_test_passes_where_the_plugin_is_installed(fresh: Environment) -> None:
    tests = str(EXAMPLE / "tests")
    said = fresh.run("-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tests, tests)
    assert " passed in " in said
