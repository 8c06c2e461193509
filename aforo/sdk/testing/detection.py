"""What every detector promises: the same evidence, the same verdict, with numbers behind it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any

from aforo.sdk.detection import Detection, Detector, Level, MarginEvidence
from aforo.sdk.money import exact
from aforo.sdk.period import Period
from aforo.sdk.testing.contract import Case, ContractBroken, check, demand, is_text

NAME_CHARACTERS_MAX = 64
EXPLANATION_CHARACTERS_MAX = 2_000
_MONTH = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
_BOOKS = (
    *(("0", "0"), ("0", "0.000000000001"), ("0", "1000000"), ("100", "0"), ("100", "85")),
    *(("100", "95"), ("100", "100"), ("100", "1000"), ("-5", "100"), ("3", "2.5500000000000001")),
    ("123456789012345.123456789012", "0.000000000000000001"),
)
"""Revenue and cost: none, no revenue, a profit, small and great losses, and credits."""


@check(Detector)
def it_can_judge_every_evidence(case: Case) -> None:
    for evidence in _evidence(case):
        _judged(case.configured(), evidence)


@check(Detector)
def a_detection_explains_itself(case: Case) -> None:
    for evidence in _evidence(case):
        found = _judged(case.configured(), evidence)
        if found is None:
            continue
        demand(isinstance(found, Detection), f"{found!r} is neither a Detection nor None")
        demand(isinstance(found.level, Level), f"{found.level!r} is no Level")
        demand(
            is_text(found.threshold, length_max=NAME_CHARACTERS_MAX),
            f"a threshold has a name of 1 to {NAME_CHARACTERS_MAX} characters",
        )
        demand(
            is_text(found.explanation, length_max=EXPLANATION_CHARACTERS_MAX),
            f"an explanation is 1 to {EXPLANATION_CHARACTERS_MAX} characters on one line",
        )
        numbers = {"value": found.value, "limit": found.limit, **found.numbers}
        for name, number in numbers.items():
            demand(
                number is None or (isinstance(number, Decimal) and number.is_finite()),
                f"{name!r} is {number!r}: a finite Decimal, or None where it is undefined",
            )


@check(Detector)
def the_same_evidence_gives_the_same_verdict(case: Case) -> None:
    evidence = list(_evidence(case))
    judge = case.configured()
    there = [_judged(judge, each) for each in evidence]
    back = [_judged(judge, each) for each in reversed(evidence)][::-1]
    demand(there == back, "its verdict depends on what it saw before: it keeps nothing")


@check(Detector)
def what_has_just_fired_is_not_rearmed(case: Case) -> None:
    for evidence in _evidence(case):
        judge = case.configured()
        found = _judged(judge, evidence)
        if found is not None:
            with exact():
                rearmed = judge.is_rearmed(evidence, found.threshold)
            demand(
                rearmed is False,
                f"{found.threshold} fires and is re-armed by the same evidence: it would fire "
                "without end",
            )


def _evidence(case: Case) -> Iterator[Any]:
    """Every evidence of the class that it wants; none of a class that this SDK does not build."""
    assert issubclass(case.component, Detector), "the check is for detectors"
    if case.component.evidence is not MarginEvidence:
        raise ContractBroken(
            f"it wants evidence of the class {case.component.evidence.__name__}, which nothing in "
            "this release builds: use MarginEvidence"
        )
    for revenue, cogs in _BOOKS:
        for uncosted in (0, 7):
            yield MarginEvidence(
                currency="USD",
                revenue=Decimal(revenue),
                cogs=Decimal(cogs),
                uncosted_events=uncosted,
                period=_MONTH,
                as_of=datetime(2026, 11, 20, 12, tzinfo=UTC),
            )


def _judged(judge: Detector[Any], evidence: Any) -> Detection | None:
    try:
        with exact():
            return judge.detect(evidence)
    except DecimalException as error:
        raise ContractBroken(
            f"it loses digits ({type(error).__name__}): use `divide` where a division is meant"
        ) from error
