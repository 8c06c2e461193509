"""The kit: each kind it writes is installed as a partner would, tested, checked, and at work."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aforo.plugins.new import PAGES, rendered, write_plugin
from aforo.sdk import Invalid
from aforo.sdk.kinds import KINDS
from tests.plugins.environments import ROOT, Environment, fresh_environment

KEYS = {
    "pricing": "acme.steps",
    "tax": "acme.state_tax",
    "gateway": "acme.payment_page",
    "detector": "acme.loss",
    "notifier": "acme.plain_text",
    "ai": "acme.one_sentence",
}
PRICE_WITH_IT = """
from decimal import Decimal
from aforo.billing.rate import rate, pricing_model
from aforo.plugins import load_registry
from aforo.sdk import Usage

settings = {"limit": "100", "firstPrice": "0.03", "otherPrice": "0.02"}
model = pricing_model(load_registry(), "acme.steps", settings)
print(rate(model, Usage(quantity=Decimal("150.5"), event_count=12, currency="USD")).amount)
"""


@dataclass(frozen=True)
class Partner:
    """An environment into which a partner has put one plugin of each kind."""

    environment: Environment
    folder: Path


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    """All kinds, written by the command and installed by pip."""
    folder = tmp_path_factory.mktemp("partner")
    with fresh_environment() as environment:
        for kind in KINDS:
            said = environment.aforo(
                *("plugins", "new", f"acme-{kind}", "--kind", kind, "--folder", str(folder))
            )
            assert f"holds {KEYS[kind]}." in said
        environment.install(*(folder / f"acme-{kind}" for kind in KINDS))
        yield Partner(environment, folder)


def test_every_kind_has_an_example_and_a_page() -> None:
    assert KEYS.keys() == KINDS.keys() == PAGES.keys()
    assert all((ROOT / "docs/plugins" / page).exists() for page in PAGES.values())


def test_all_are_listed_with_the_package_that_they_came_from(partner: Partner) -> None:
    listed = json.loads(partner.environment.aforo("plugins", "--json"))
    ours = {each["key"]: each for each in listed if each["key"].startswith("acme.")}
    assert ours.keys() == set(KEYS.values())
    for word, key in KEYS.items():
        assert ours[key]["kind"] == KINDS[word].title
        assert (ours[key]["distribution"], ours[key]["version"]) == (f"acme-{word}", "0.1.0")


def test_all_keep_the_contract(partner: Partner) -> None:
    checked = json.loads(partner.environment.aforo("plugins", "check", "--json"))
    verdicts = {each["key"]: (each["ok"], each["broken"]) for each in checked}
    assert all(verdicts[key] == (True, []) for key in KEYS.values())
    assert all(each["checks"] >= 10 for each in checked)


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass_where_it_is_installed(partner: Partner, kind: str) -> None:
    place = str(partner.folder / f"acme-{kind}")
    said = partner.environment.run(
        *("-m", "pytest", "-p", "no:cacheprovider", "--rootdir", place, f"{place}/tests")
    )
    assert " passed in " in said


def test_the_pricing_model_prices_at_once(partner: Partner) -> None:
    assert partner.environment.run("-c", PRICE_WITH_IT).strip() == "4.01"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_whole(kind: str, tmp_path: Path) -> None:
    written = write_plugin(kind, f"zeta-{kind}", folder=tmp_path)
    assert written.key == KEYS[kind].replace("acme", "zeta")
    files = {path.relative_to(written.folder) for path in written.folder.rglob("*.*")}
    assert files == set(rendered(KINDS[kind], f"zeta-{kind}"))
    texts = [path.read_text() for path in written.folder.rglob("*.*")]
    assert not any("$" in text for text in texts)
    code = [path.read_text() for path in written.folder.rglob("*.py")]
    assert [line for text in code for line in text.splitlines() if len(line) > 100] == []
    project = tomllib.loads((written.folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"zeta-{kind}"
    assert project["entry-points"]["aforo"] == {f"zeta_{kind}": f"zeta_{kind}"}


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("prices", "acme-x", "there is no kind 'prices': choose of pricing, tax, gateway, "),
        ("pricing", "Acme", "'Acme' cannot be its name"),
        ("pricing", "../acme", "'../acme' cannot be its name"),
        ("pricing", "acme--x", "'acme--x' cannot be its name"),
        ("pricing", "a" * 61, "cannot be its name"),
        ("pricing", "aforo-more", "aforo-more begins with Aforo's own prefix"),
        ("pricing", "json", "json is a name of Python itself"),
        ("pricing", "class", "class is a name of Python itself"),
    ],
)
def test_what_cannot_be_written_is_told_and_nothing_is(
    tmp_path: Path, kind: str, name: str, told: str
) -> None:
    with pytest.raises(Invalid) as refused:
        write_plugin(kind, name, folder=tmp_path)
    assert told in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "acme-x").mkdir()
    with pytest.raises(Invalid) as refused:
        write_plugin("pricing", "acme-x", folder=tmp_path)
    assert "is there already" in refused.value.message
    assert list((tmp_path / "acme-x").iterdir()) == []
