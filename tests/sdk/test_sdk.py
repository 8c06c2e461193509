"""The surface of the sdk: what it offers, and what it needs."""

import ast
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

import aforo.sdk
from aforo.sdk import (
    AforoError,
    Conflict,
    Detection,
    Detector,
    FixedAmount,
    Forbidden,
    Invalid,
    Level,
    MarginEvidence,
    NotFound,
    Period,
    PluginError,
    PricedLine,
    TaxUnavailable,
    Unavailable,
)

SOURCES = sorted(Path(aforo.sdk.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_sdk_imports_only_itself_pydantic_pluggy_and_the_standard_library(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    outside = {name for name in named if not name.startswith("aforo.sdk")}
    allowed = {"pydantic", "pluggy", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in outside} <= allowed


def test_everything_on_offer_is_listed_once() -> None:
    assert len(set(aforo.sdk.__all__)) == len(aforo.sdk.__all__)
    assert all(hasattr(aforo.sdk, name) for name in aforo.sdk.__all__)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Invalid, "INVALID"),
        (NotFound, "NOT_FOUND"),
        (Conflict, "CONFLICT"),
        (Forbidden, "FORBIDDEN"),
        (Unavailable, "UNAVAILABLE"),
        (TaxUnavailable, "TAX_UNAVAILABLE"),
        (PluginError, "PLUGIN_ERROR"),
    ],
)
def test_errors_carry_a_code_a_message_and_a_field(kind: type[AforoError], code: str) -> None:
    error = kind("what was wrong", field="a.b")
    assert (error.code, error.message, str(error), error.field) == (
        code,
        "what was wrong",
        "what was wrong",
        "a.b",
    )
    assert kind("x", code="OTHER").code == "OTHER"
    assert kind.code == code  # One raise with another code leaves the class alone.


def test_what_is_down_says_when_to_come_back() -> None:
    assert Unavailable("x").retry_after_seconds == 5
    assert TaxUnavailable("x", retry_after_seconds=60).retry_after_seconds == 60


def test_a_line_is_quantity_times_unit_price_exactly() -> None:
    line = PricedLine("x", Decimal("123456789012345.5"), Decimal("0.000000000000000001"))
    assert line.amount == Decimal("0.0001234567890123455")
    assert FixedAmount("fee", Decimal("20.00")).amount == 20


def test_levels_are_rungs_of_a_ladder() -> None:
    assert Level.ALERT < Level.THROTTLE < Level.BLOCK


class Always(Detector[MarginEvidence]):
    key = "acme.always"
    summary = "Fires whatever it sees"
    evidence = MarginEvidence

    def detect(self, evidence: MarginEvidence) -> Detection | None:
        if evidence.cogs == 0:
            return None
        return Detection(level=Level.ALERT, threshold="1", value=None, limit=None, explanation="!")


@pytest.mark.parametrize(("cogs", "is_rearmed"), [("1", False), ("0", True)])
def test_a_detector_is_rearmed_once_it_finds_nothing_unless_it_says_otherwise(
    cogs: str, is_rearmed: bool
) -> None:
    november = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
    evidence = MarginEvidence(
        currency="USD",
        revenue=Decimal(1),
        cogs=Decimal(cogs),
        uncosted_events=0,
        period=november,
        as_of=november.start,
    )
    assert Always().is_rearmed(evidence, "1") is is_rearmed
