"""The pytest plugin, in a run of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTY = """
from decimal import Decimal
from aforo.sdk import FixedAmount, PricingModel, hookimpl


class Gift(PricingModel):
    key = "acme.gift"
    summary = "Pays the customer"

    def price(self, usage):
        return [FixedAmount("Gift", Decimal(-1))]


@hookimpl
def register_pricing_models():
    return [Gift]
"""
RUNS = """
import pytest
import gifts


{mark}
def test_it_keeps_the_contract(contract_check):
    contract_check()
"""


def run(folder: Path, *, mark: str, plugin: str = FAULTY) -> tuple[int, str]:
    (folder / "gifts.py").write_text(plugin)
    (folder / "test_gifts.py").write_text(RUNS.format(mark=mark))
    command = [sys.executable, "-m", "pytest", "-p", "aforo.sdk.testing.pytest_plugin"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null", "-rf"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_each_promise_is_a_test_and_a_broken_one_fails_with_its_sentence(tmp_path: Path) -> None:
    code, said = run(tmp_path, mark="@pytest.mark.aforo_plugin(gifts)")
    assert code == 1
    assert "test_it_keeps_the_contract[acme.gift: no price is below zero]" in said
    assert "0 units come to -1: never below 0" in said
    assert "1 failed, 12 passed" in said


@pytest.mark.parametrize(
    ("mark", "plugin", "told"),
    [
        ("", FAULTY, "mark it with @pytest.mark.aforo_plugin(your_module)"),
        ("@pytest.mark.aforo_plugin(gifts)", "x = 1", "registers no component"),
    ],
)
def test_a_suite_that_would_run_nothing_is_an_error(
    tmp_path: Path, mark: str, plugin: str, told: str
) -> None:
    code, said = run(tmp_path, mark=mark, plugin=plugin)
    assert code != 0
    assert told in said
