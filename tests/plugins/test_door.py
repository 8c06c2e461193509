"""What a plugin's files say before it is run: the SDK that it wants, and what it may not import."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aforo.plugins import load_registry
from aforo.sdk import PluginError, __version__

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution where the import system finds it: its entry point, and its files."""

    def put(entry_point: str, files: dict[str, str]) -> None:
        info = tmp_path / "acme_pricing-3.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pricing\nVersion: 3.1\n")
        (info / "entry_points.txt").write_text(f"[aforo]\nmain = {entry_point}\n")
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(source)

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal() -> str:
    with pytest.raises(PluginError) as refused:
        load_registry()
    return refused.value.message


GOOD = """
from decimal import Decimal
from aforo.sdk import PricedLine, PricingModel, Usage, hookimpl

aforo_sdk = "1.0"


class Free(PricingModel):
    key = "acme.free"
    summary = "Everything for nothing"

    def price(self, usage: Usage) -> list[PricedLine]:
        return [PricedLine("Free", usage.quantity, Decimal(0))]


@hookimpl
def register_pricing_models():
    return [Free]
"""


def test_a_plugin_that_fits_is_loaded(install: Install) -> None:
    install("acme_good", {"acme_good.py": GOOD})
    assert "acme.free" in load_registry().pricing_models


@pytest.mark.parametrize(
    ("wanted", "advice"),
    [
        ("2.0", "upgrade Aforo, or install an older acme-pricing"),
        ("1.99", "upgrade Aforo, or install an older acme-pricing"),
        ("0.9", "install a newer acme-pricing, or ask its maker for one"),
    ],
)
def test_another_sdk_is_one_sentence_and_the_plugin_is_not_run(
    install: Install, wanted: str, advice: str
) -> None:
    # It would fail at its first line: a name that this SDK does not have.
    install("acme_x", {"acme_x.py": f'from aforo.sdk import NotYet\naforo_sdk = "{wanted}"\n'})
    assert re.fullmatch(
        rf"plugin 'main' of acme-pricing 3\.1 is written for SDK {re.escape(wanted)}, and Aforo "
        rf"[\d.]+ has SDK {re.escape(__version__)}: {advice}",
        refusal(),
    )


@pytest.mark.parametrize("statement", ["", "aforo_sdk = 1.0", 'aforo_sdk = "1"', "aforo_sdk = X"])
def test_an_installed_plugin_says_what_it_is_written_for(install: Install, statement: str) -> None:
    install("acme_x", {"acme_x.py": f"raise SystemExit\n{statement}\n"})
    assert refusal() == (
        "plugin 'main' of acme-pricing 3.1 does not say which SDK it is written for: add the line "
        '`aforo_sdk = "1.1"` to its module'
    )


@pytest.mark.parametrize(
    ("line", "module", "told"),
    [
        ("import aforo.storage", "aforo.storage", "nothing else of Aforo"),
        ("from aforo.storage.scope import Scope", "aforo.storage.scope", "nothing else of Aforo"),
        ("from aforo import billing", "aforo.billing", "nothing else of Aforo"),
        ("import aforo", "aforo", "nothing else of Aforo"),
        ("from sqlmodel import SQLModel", "sqlmodel", "a plugin has no tables"),
        ("import sqlalchemy as sa", "sqlalchemy", "a plugin has no tables"),
        ("from starlette.routing import Route", "starlette.routing", "a plugin has no routes"),
        ("import strawberry", "strawberry", "has no fields in the schema"),
    ],
)
def test_what_a_plugin_may_not_import_is_told_with_its_place(
    install: Install, line: str, module: str, told: str
) -> None:
    install(
        "acme.plugin",
        {
            "acme/__init__.py": "",
            "acme/plugin.py": 'aforo_sdk = "1.0"\n',
            "acme/deep/inner.py": f"\n\ndef later():\n    {line}\n",
        },
    )
    message = refusal()
    assert message.startswith(
        f"plugin 'main' of acme-pricing 3.1 imports {module} (inner.py, line 4): a plugin "
    )
    assert told in message
    assert message.endswith("; see docs/plugins/limits.md")


def test_what_others_have_in_the_same_namespace_is_not_looked_at(install: Install) -> None:
    install("acme.plugin", {"acme/plugin.py": GOOD, "acme/others/tables.py": "import sqlalchemy\n"})
    assert "acme.free" in load_registry().pricing_models


def test_the_sdk_and_its_suites_may_be_imported(install: Install) -> None:
    install(
        "acme_good",
        {"acme_good.py": f"{GOOD}\nfrom aforo import sdk\nimport aforo.sdk.testing\n"},
    )
    assert "acme.free" in load_registry().pricing_models


def test_a_plugin_that_is_no_python_is_told_so_by_its_import(install: Install) -> None:
    install("acme_x", {"acme_x.py": "def broken(:\n"})
    assert "cannot be imported (acme_x): SyntaxError" in refusal()


def test_a_module_that_is_not_there_is_told_so_by_its_import(install: Install) -> None:
    install("acme_missing.plugin", {})
    assert "ModuleNotFoundError: No module named 'acme_missing'" in refusal()
