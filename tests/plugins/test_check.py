"""`aforo plugins check`: every loaded component against the contract of its kind."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aforo import cli
from aforo.plugins import check, load_registry
from aforo.plugins.guard import TookTooLong
from tests.sdk.test_pytest_plugin import FAULTY


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Path]:
    """A file with a pricing model that pays the customer, and one that raises."""
    path = tmp_path / "my_gifts.py"
    raises = FAULTY.split("@hookimpl", maxsplit=1)[0].replace("Gift(", "Broken(")
    raises = raises.replace("acme.gift", "acme.broken").replace(
        'return [FixedAmount("Gift", Decimal(-1))]', "raise SystemExit('enough')"
    )
    path.write_text(f"{raises}\n{FAULTY.replace('return [Gift]', 'return [Gift, Broken]')}")
    yield path
    sys.modules.pop("my_gifts", None)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["aforo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_what_comes_with_aforo_keeps_its_contract(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins", "check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(load_registry().sources)
    assert all(line.startswith("ok ") for line in lines)


def test_what_breaks_its_contract_is_named_and_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], faulty: Path
) -> None:
    assert call(monkeypatch, "plugins", "check", "--plugin", str(faulty)) == 1
    said = capsys.readouterr().out
    assert "BROKEN  acme.gift " in said
    assert "no price is below zero\n" in said
    assert "→ 0 units come to -1: never below 0" in said

    assert call(monkeypatch, "plugins", "check", "--json", "--plugin", str(faulty)) == 1
    verdicts = {each["key"]: each for each in json.loads(capsys.readouterr().out)}
    assert verdicts["FLAT"]["ok"] is True
    assert verdicts["acme.gift"]["ok"] is False
    assert verdicts["acme.gift"]["broken"] == [
        {
            "promise": "no price is below zero",
            "says": "0 units come to -1: never below 0",
        }
    ]
    assert verdicts["acme.broken"]["broken"][0]["says"] == "it raised SystemExit: enough"


def test_one_that_does_not_come_back_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "my_spin.py"
    path.write_text(FAULTY.replace("return [FixedAmount", "while True: pass\n        return [Fix"))
    monkeypatch.setattr(check, "CHECK_SECONDS_MAX", 0.1)
    try:
        verdicts = check.check_all(load_registry(files=[path]))
    finally:
        sys.modules.pop("my_spin", None)
    (gift,) = [each for each in verdicts if each.key == "acme.gift"]
    assert gift.broken
    assert all(TookTooLong.__name__ in each.says for each in gift.broken)


def test_a_plugin_file_is_listed_with_its_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], faulty: Path
) -> None:
    assert call(monkeypatch, "plugins", "--plugin", str(faulty), "--json") == 0
    assert "acme.gift" in {each["key"] for each in json.loads(capsys.readouterr().out)}
