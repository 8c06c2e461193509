"""The terms of a quota: which of them fit together."""

from decimal import Decimal
from typing import Any

import pytest

from aforo.catalog.models import (
    Aggregation,
    CalendarUnit,
    EntitlementKind,
    QuotaPolicy,
    QuotaReset,
)
from aforo.catalog.quota_terms import QuotaTerms, check_terms
from aforo.sdk import Invalid

BLOCK, OVERAGE = QuotaPolicy.BLOCK, QuotaPolicy.OVERAGE
SUM, MAX = Aggregation.SUM, Aggregation.MAX


def checked(aggregation: Aggregation = SUM, **terms: Any) -> QuotaTerms:
    return check_terms(QuotaTerms(**terms), kind=EntitlementKind.QUOTA, aggregation=aggregation)


def test_a_quota_bills_what_is_beyond_it_and_begins_anew_with_the_billing_period() -> None:
    assert checked() == QuotaTerms(policy=OVERAGE, reset=QuotaReset.BILLING_PERIOD)


@pytest.mark.parametrize(
    "terms",
    [
        {"policy": BLOCK, "rate_per_second": Decimal("0.5")},
        {"reset": QuotaReset.CALENDAR, "reset_unit": CalendarUnit.HOUR},
        {"reset": QuotaReset.FIXED, "reset_seconds": 1},
        {"reset": QuotaReset.SLIDING, "reset_seconds": 366 * 24 * 3600},
        {"reset": QuotaReset.NEVER},
        {"rollover_periods": 12, "rollover_cap": Decimal(100)},
        {"reset": QuotaReset.CALENDAR, "reset_unit": CalendarUnit.MONTH, "rollover_periods": 1},
    ],
)
def test_terms_that_fit_together_are_kept(terms: dict[str, Any]) -> None:
    kept = checked(**terms)
    assert {name: getattr(kept, name) for name in terms} == terms


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"reset": QuotaReset.CALENDAR}, "resetUnit"),
        ({"reset_unit": CalendarUnit.DAY}, "resetUnit"),
        ({"reset": QuotaReset.FIXED}, "resetSeconds"),
        ({"reset": QuotaReset.NEVER, "reset_seconds": 5}, "resetSeconds"),
        ({"reset": QuotaReset.SLIDING, "reset_seconds": 0}, "resetSeconds"),
        ({"reset": QuotaReset.FIXED, "reset_seconds": 366 * 24 * 3600 + 1}, "resetSeconds"),
        ({"reset": QuotaReset.SLIDING, "reset_seconds": 5, "aggregation": MAX}, "reset"),
        ({"rollover_cap": Decimal(1)}, "rolloverPeriods"),
        ({"rollover_periods": 0}, "rolloverPeriods"),
        ({"rollover_periods": 13}, "rolloverPeriods"),
        ({"rollover_periods": 1, "aggregation": MAX}, "rolloverPeriods"),
        ({"rollover_periods": 1, "reset": QuotaReset.NEVER}, "rolloverPeriods"),
        ({"rollover_periods": 1, "rollover_cap": Decimal(0)}, "rolloverCap"),
        ({"rate_per_second": Decimal(0)}, "ratePerSecond"),
        ({"rate_per_second": Decimal("NaN")}, "ratePerSecond"),
    ],
)
def test_terms_that_do_not_fit_together_are_refused(terms: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked(**terms)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"policy": BLOCK}, "policy"),
        ({"rate_per_second": Decimal(1)}, "ratePerSecond"),
        ({"reset": QuotaReset.NEVER}, "reset"),
        ({"reset_unit": CalendarUnit.DAY}, "resetUnit"),
        ({"reset_seconds": 1}, "resetSeconds"),
        ({"rollover_periods": 1}, "rolloverPeriods"),
        ({"rollover_cap": Decimal(1)}, "rolloverCap"),
    ],
)
def test_a_feature_has_no_terms(terms: dict[str, Any], field: str) -> None:
    given = QuotaTerms(**terms)
    with pytest.raises(Invalid) as refused:
        check_terms(given, kind=EntitlementKind.BOOLEAN, aggregation=None)
    assert refused.value.field == field
    none = QuotaTerms()
    assert check_terms(none, kind=EntitlementKind.BOOLEAN, aggregation=None) == none
