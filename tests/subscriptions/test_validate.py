"""What customers, keys and subscriptions may look like, by tables."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aforo.sdk import Invalid
from aforo.subscriptions.validate import (
    COUNTRIES,
    GRACE_SECONDS_MAX,
    SHIFT_MAX,
    check_country,
    check_detail,
    check_email,
    check_external_id,
    check_key,
    check_near,
    check_terms,
    check_time_zone,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)

KEPT: list[tuple[Callable[[Any], Any], list[str | None]]] = [
    (check_external_id, ["acme-corp", "Größe 7", "0", "x" * 255]),
    (check_time_zone, ["UTC", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Auckland"]),
    (check_country, [None, "US", "DE", "IN"]),
    (check_email, [None, "a@b", "first.last+tag@example.com", "ü@exämple.de"]),
    (check_key, ["sk_live_12345678", "k" * 16, "!" * 255]),
]
REFUSED: list[tuple[Callable[[Any], Any], str, list[str]]] = [
    (check_external_id, "externalId", ["", " ", "x" * 256, "a\x00"]),
    (
        check_time_zone,
        "timeZone",
        ["", "utc", "Mars/Phobos", "+05:30", "../../etc/passwd", "posix/UTC", "Factory", "\x00"],
    ),
    (check_country, "country", ["", "us", "USA", "UK", "XX", "EU"]),
    (check_email, "email", ["", "a", "@b", "a@", "a b@c", "a@b@c", "x" * 254 + "@b"]),
    (check_key, "key", ["", "k" * 15, "k" * 256, "sk_live_ 12345678", "sk_live_1234567\u00e9"]),
]


@pytest.mark.parametrize(
    ("check", "value"), [(check, value) for check, values in KEPT for value in values]
)
def test_what_is_well_formed_is_kept(check: Callable[[Any], Any], value: str | None) -> None:
    assert check(value) == value


@pytest.mark.parametrize(
    ("check", "field", "value"),
    [(check, field, value) for check, field, values in REFUSED for value in values],
)
def test_what_is_malformed_is_refused_at_its_place(
    check: Callable[[Any], Any], field: str, value: str
) -> None:
    with pytest.raises(Invalid) as refused:
        check(value)
    assert refused.value.field == field


def test_a_detail_may_be_absent_and_is_short() -> None:
    assert check_detail(None, field="region") is None
    assert check_detail("Bayern", field="region") == "Bayern"
    with pytest.raises(Invalid) as refused:
        check_detail("x" * 65, field="postalCode")
    assert refused.value.field == "postalCode"


def test_a_refused_key_is_never_shown() -> None:
    with pytest.raises(Invalid) as refused:
        check_key("sk_live_secret with a space")
    assert "secret" not in refused.value.message


def test_the_tenants_own_api_key_is_not_taken_for_a_customers() -> None:
    with pytest.raises(Invalid, match="your own key"):
        check_key("afo_live_0123456789abcdef")


def test_there_are_249_countries() -> None:
    assert len(COUNTRIES) == 249


@pytest.mark.parametrize("shift", [SHIFT_MAX, -SHIFT_MAX, timedelta(0)])
def test_a_moment_within_400_days_is_kept(shift: timedelta) -> None:
    assert check_near(NOW + shift, now=NOW, field="startsAt") == NOW + shift


@pytest.mark.parametrize("sign", [1, -1])
def test_a_moment_farther_than_400_days_is_refused(sign: int) -> None:
    moment = NOW + sign * (SHIFT_MAX + timedelta(microseconds=1))
    with pytest.raises(Invalid, match="within 400 days") as refused:
        check_near(moment, now=NOW, field="startsAt")
    assert refused.value.field == "startsAt"


def test_terms_within_their_bounds_are_kept() -> None:
    check_terms(anchor_day=None, grace_seconds=0)
    check_terms(anchor_day=1, grace_seconds=3600)
    check_terms(anchor_day=31, grace_seconds=GRACE_SECONDS_MAX)


@pytest.mark.parametrize(
    ("anchor_day", "grace_seconds", "field"),
    [
        (0, 0, "anchorDay"),
        (32, 0, "anchorDay"),
        (-1, 0, "anchorDay"),
        (1, -1, "graceSeconds"),
        (1, GRACE_SECONDS_MAX + 1, "graceSeconds"),
    ],
)
def test_terms_beyond_their_bounds_are_refused(
    anchor_day: int, grace_seconds: int, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        check_terms(anchor_day=anchor_day, grace_seconds=grace_seconds)
    assert refused.value.field == field
