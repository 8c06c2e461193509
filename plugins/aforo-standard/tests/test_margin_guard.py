"""MarginGuard: which margins breach which limit, and when a limit is armed again."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.sdk import Invalid, Level, MarginEvidence, Period, configure, exact
from aforo_standard.detectors.margin_guard import MarginGuard

NOVEMBER = Period(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def seen(revenue: str | Decimal, cogs: str | Decimal, *, uncosted: int = 0) -> MarginEvidence:
    return MarginEvidence(
        currency="USD",
        revenue=Decimal(revenue),
        cogs=Decimal(cogs),
        uncosted_events=uncosted,
        period=NOVEMBER,
        as_of=datetime(2026, 11, 20, tzinfo=UTC),
    )


def guard(**settings: Any) -> MarginGuard:
    return configure(MarginGuard, settings)


# revenue | COGS | breach; a margin at the limit is no breach
BREACHES = """
     100 |   0      | -
     100 |  79.99   | -
     100 |  80      | -
     100 |  80.01   | L3 ALERT
     100 |  90      | L3 ALERT
     100 |  90.01   | L2 THROTTLE
     100 | 100      | L2 THROTTLE
     100 | 100.01   | L1 BLOCK
     100 | 144      | L1 BLOCK
       3 |   2.4    | -
       0 |   0      | -
       0 |   9.99   | -
       0 |  10      | L1 BLOCK
      -5 |   4.99   | -
      -5 |   5      | L1 BLOCK
"""


@pytest.mark.parametrize("row", BREACHES.strip().splitlines())
def test_the_deepest_breach_counts(row: str) -> None:
    revenue, cogs, breach = (cell.strip() for cell in row.split("|"))
    with exact():
        found = guard().detect(seen(revenue, cogs))
    assert (f"{found.threshold} {found.level.name}" if found else "-") == breach


def test_a_detection_carries_its_numbers() -> None:
    with exact():
        found = guard().detect(seen("80", "92"))
    assert found is not None
    assert (found.level, found.value, found.limit) == (Level.BLOCK, Decimal("-0.15"), 0)
    assert found.numbers == {
        "revenue": 80,
        "cogs": 92,
        "margin": Decimal("-0.15"),
        "uncostedEvents": 0,
        "l3": Decimal("0.20"),
        "l2": Decimal("0.10"),
        "l1": 0,
        "lossFloor": 10,
    }
    assert found.explanation == (
        "A margin of -15.00 % is below L1, 0.00 %: revenue 80.00 USD, COGS 92.00 USD."
    )


def test_without_revenue_the_margin_is_unknown_and_the_loss_decides() -> None:
    with exact():
        found = guard(lossFloor="3").detect(seen("0", "4.5"))
    assert found is not None
    assert (found.value, found.limit, found.numbers["margin"]) == (None, 3, None)
    assert found.explanation == (
        "A loss of 4.50 USD without revenue reaches the floor of 3 USD: "
        "revenue 0.00 USD, COGS 4.50 USD."
    )


def test_events_of_unknown_cost_are_told_not_taken_as_free() -> None:
    with exact():
        found = guard().detect(seen("100", "85", uncosted=12))
    assert found is not None
    assert found.numbers["uncostedEvents"] == 12
    assert "12 events have no known cost" in found.explanation


# threshold | COGS at a revenue of 100 | armed again
REARMED = """
    L3 | 85    | no
    L3 | 80    | no
    L3 | 78.01 | no
    L3 | 78    | yes
    L1 | 99    | no
    L1 | 98    | yes
    L2 | 88    | yes
"""


@pytest.mark.parametrize("row", REARMED.strip().splitlines())
def test_a_limit_is_armed_again_beyond_the_hysteresis(row: str) -> None:
    threshold, cogs, armed = (cell.strip() for cell in row.split("|"))
    with exact():
        assert guard().is_rearmed(seen("100", cogs), threshold) is (armed == "yes")


def test_without_revenue_the_limit_is_armed_again_below_the_floor() -> None:
    assert guard().is_rearmed(seen("0", "9"), "L1")
    assert not guard().is_rearmed(seen("0", "10"), "L1")


AMOUNTS = st.decimals(0, 10**6, places=4, allow_nan=False, allow_infinity=False)


@given(revenue=AMOUNTS, costs=st.tuples(AMOUNTS, AMOUNTS).map(sorted))
def test_more_cost_is_never_a_milder_breach(revenue: Decimal, costs: list[Decimal]) -> None:
    with exact():
        less, more = (guard().detect(seen(revenue, cost)) for cost in costs)
    assert (less.level if less else 0) <= (more.level if more else 0)


@given(revenue=AMOUNTS, cogs=AMOUNTS, threshold=st.sampled_from(["L1", "L2", "L3"]))
def test_a_limit_that_is_breached_is_not_armed(
    revenue: Decimal, cogs: Decimal, threshold: str
) -> None:
    with exact():
        found = guard().detect(seen(revenue, cogs))
        if found and found.threshold <= threshold:  # L1 is the deepest.
            assert not guard().is_rearmed(seen(revenue, cogs), threshold)


def test_limits_may_be_below_0() -> None:
    with exact():
        above, below = (guard(l1="-0.5").detect(seen("100", cogs)) for cogs in ("150", "150.01"))
    assert [found and found.level for found in (above, below)] == [Level.THROTTLE, Level.BLOCK]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"l2": "0.20"}, "l2"),
        ({"l2": "0.30"}, "l2"),
        ({"l1": "0.10"}, "l1"),
        ({"l3": "0.05"}, "l2"),
        ({"l1": 0.05}, "l1"),
        ({"lossFloor": "0"}, "lossFloor"),
        ({"hysteresis": "-0.01"}, "hysteresis"),
        ({"l4": "0.5"}, "l4"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        configure(MarginGuard, settings, field="")
    assert refused.value.field == field
