"""The guard around a detector, and what makes a breach news."""

from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import model_validator

from aforo.plugins import Registry, Source
from aforo.sdk import Detection, Detector, Invalid, Level, PluginError, divide
from aforo.signals.judge import (
    Fired,
    as_numbers,
    ask,
    configured,
    is_news,
    outside_names,
    settled,
    snapshot,
)
from aforo_standard.detectors.margin_guard import MarginGuard

FOUND = Detection(
    level=Level.ALERT, threshold="T1", value=Decimal(1), limit=None, explanation="Too much."
)


class Sly(Detector[Any]):
    """Answers with whatever it is given as evidence, or raises it."""

    key = "acme.sly"
    summary = "Answers anything"
    evidence = object

    fuse: str = ""

    @model_validator(mode="after")
    def _blow(self) -> "Sly":
        if self.fuse == "blown":
            raise RuntimeError("blown")
        return self

    def detect(self, evidence: Any) -> Detection | None:
        if isinstance(evidence, BaseException):
            raise evidence
        return evidence() if callable(evidence) else evidence  # type: ignore[no-any-return]


REGISTRY = Registry(
    pricing_models=MappingProxyType({}),
    tax_engines=MappingProxyType({}),
    detectors=MappingProxyType({"acme.sly": Sly, "margin_guard": MarginGuard}),
    sources=MappingProxyType({Sly: Source("acme-detectors", "1.2", "acme")}),
)


# fired before, as threshold:level | found | news
NEWS = """
                      | L3:ALERT    | yes
    L3:ALERT          | L3:ALERT    | no
    L3:ALERT          | L2:THROTTLE | yes
    L3:ALERT L2:THROTTLE | L1:BLOCK | yes
    L1:BLOCK          | L3:ALERT    | no
    L1:BLOCK          | L2:THROTTLE | no
    L1:BLOCK L3:ALERT | L2:THROTTLE | no
    Q80:ALERT         | Q100:ALERT  | yes
    L1:BLOCK L2:THROTTLE L3:ALERT | L1:BLOCK | no
"""


@pytest.mark.parametrize("row", NEWS.strip().splitlines())
def test_only_a_breach_that_goes_deeper_or_is_another_one_as_deep_is_news(row: str) -> None:
    before, found, news = (cell.strip() for cell in row.split("|"))
    fired = [
        Fired(threshold, Level[level])
        for threshold, level in (one.split(":") for one in before.split())
    ]
    threshold, level = found.split(":")
    detection = Detection(
        level=Level[level], threshold=threshold, value=None, limit=None, explanation="Found."
    )
    assert is_news(detection, fired) is (news == "yes")


def test_a_sound_answer_comes_through_and_no_answer_is_none() -> None:
    assert ask(REGISTRY, Sly(), FOUND) is FOUND
    assert ask(REGISTRY, Sly(), None) is None


@pytest.mark.parametrize(
    "answer",
    [
        "a text",
        {"level": Level.ALERT},
        Detection(level=7, threshold="T", value=None, limit=None, explanation="x"),  # type: ignore[arg-type]
        Detection(level=Level.ALERT, threshold="", value=None, limit=None, explanation="x"),
        Detection(level=Level.ALERT, threshold="T" * 65, value=None, limit=None, explanation="x"),
        Detection(level=Level.ALERT, threshold="T", value=None, limit=None, explanation=""),
        Detection(level=Level.ALERT, threshold="T", value=None, limit=None, explanation="a\0b"),
        Detection(level=Level.ALERT, threshold="\ud800", value=None, limit=None, explanation="x"),
        Detection(level=Level.ALERT, threshold="T", value=None, limit=None, explanation="x" * 2001),
        Detection(level=Level.ALERT, threshold="T", value=0.5, limit=None, explanation="x"),  # type: ignore[arg-type]
        Detection(
            level=Level.ALERT, threshold="T", value=Decimal("NaN"), limit=None, explanation="x"
        ),
        Detection(
            level=Level.ALERT, threshold="T", value=Decimal("1E+999"), limit=None, explanation="x"
        ),
        Detection(
            level=Level.ALERT,
            threshold="T",
            value=None,
            limit=None,
            explanation="x",
            numbers={"a": 1.0},  # type: ignore[dict-item]
        ),
        Detection(
            level=Level.ALERT,
            threshold="T",
            value=None,
            limit=None,
            explanation="x",
            numbers=["a"],  # type: ignore[arg-type]
        ),
    ],
)
def test_an_answer_that_breaks_the_contract_names_the_plugin(answer: object) -> None:
    with pytest.raises(PluginError, match=r"'acme\.sly' of acme-detectors 1\.2 answered "):
        ask(REGISTRY, Sly(), answer)


@pytest.mark.parametrize("error", [RuntimeError("boom"), Invalid("no"), SystemExit(1)])
def test_a_detector_that_raises_is_named_with_its_distribution(error: BaseException) -> None:
    with pytest.raises(PluginError, match=r"'acme\.sly' of acme-detectors 1\.2 failed ") as told:
        ask(REGISTRY, Sly(), error)
    assert type(error).__name__ in str(told.value)


def test_a_division_that_loses_digits_silently_is_a_fault_and_a_stated_one_is_not() -> None:
    with pytest.raises(PluginError, match="Inexact"):
        ask(REGISTRY, Sly(), lambda: Decimal(1) / Decimal(3))
    assert ask(REGISTRY, Sly(), lambda: divide(Decimal(1), Decimal(3)) and None) is None


def test_the_most_specific_setting_wins_and_the_others_stay() -> None:
    judge = configured(
        REGISTRY, "margin_guard", {"l3": "0.30", "lossFloor": "5"}, {"l3": "0.25", "l2": "0.20"}
    )
    assert snapshot(REGISTRY, judge) == {
        "l3": "0.25",
        "l2": "0.20",
        "l1": "0.00",
        "lossFloor": "5",
        "hysteresis": "0.02",
    }


def test_settings_meet_those_of_another_level_under_their_outside_names() -> None:
    assert outside_names(MarginGuard, {"loss_floor": "5", "l3": "0.3", "odd": 1}) == {
        "lossFloor": "5",
        "l3": "0.3",
        "odd": 1,
    }


def test_levels_that_do_not_go_together_are_refused_by_name() -> None:
    with pytest.raises(Invalid, match="must be below") as told:
        configured(REGISTRY, "margin_guard", {"l2": "0.15"}, {"l3": "0.12"})
    assert told.value.field == "settings.l2"


def test_a_detector_that_breaks_on_its_settings_is_named() -> None:
    with pytest.raises(PluginError, match=r"'acme\.sly' of acme-detectors 1\.2 failed on its"):
        configured(REGISTRY, "acme.sly", {"fuse": "blown"})


def test_a_detector_that_nobody_brings_is_named_beside_those_that_are_there() -> None:
    with pytest.raises(PluginError, match=r"'gone'.*acme\.sly, margin_guard"):
        configured(REGISTRY, "gone")


# a number | as it is shown
NUMBERS = """
    12.3400000000 | 12.34
    100           | 100
    100.000       | 100
    0.000         | 0
    -0.50         | -0.5
    1E-7          | 0.0000001
    1E+3          | 1000
    0.1461538461538461538461538461538461538461538461538461538461538 | 0.146153846154
    -2.0000000000005 | -2.000000000001
    -1E-13        | 0
"""


@pytest.mark.parametrize("row", NUMBERS.strip().splitlines())
def test_numbers_are_shown_plainly_and_to_twelve_decimals(row: str) -> None:
    number, shown = (cell.strip() for cell in row.split("|"))
    detection = Detection(
        level=Level.ALERT,
        threshold="T",
        value=None,
        limit=None,
        explanation="x",
        numbers={"one": Decimal(number), "none": None},
    )
    assert as_numbers(detection) == {"one": shown, "none": None}
    assert f"{settled(Decimal(number)):f}" == shown
