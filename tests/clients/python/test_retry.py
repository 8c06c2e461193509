"""What the client makes of an HTTP status, of `Retry-After`, and of an answer that fits nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo_client.retry import backoff, is_passing, retry_after
from aforo_client.verdicts import Unreadable, read_answer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_passes_is_sent_again(status: int) -> None:
    assert is_passing(status)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 413, 415, 422, 600])
def test_what_stays_is_not(status: int) -> None:
    assert not is_passing(status)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 3_600.0),
        ("Fri, 20 Nov 2026 12:00:09 GMT", 9.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("Fri, 20 Nov 2099 11:00:00 GMT", 3_600.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(attempt=st.integers(1, 10**6))
def test_a_pause_doubles_up_to_its_bound_and_is_never_the_same_for_all(attempt: int) -> None:
    pause = backoff(attempt, base_seconds=0.2, max_seconds=30)
    longest = min(30.0, 0.2 * 2.0 ** min(attempt - 1, 30))
    assert longest / 2 <= pause <= longest


COUNTS = {"accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": 1, "quarantined": 0}
REJECTED = {"index": 1, "idempotencyKey": "b", "verdict": "REJECTED", "code": "BAD_VALUE"}


def test_an_answer_is_read() -> None:
    counts, (said,) = read_answer({**COUNTS, "verdicts": [REJECTED]}, events=2)
    assert counts["ACCEPTED"] == counts["REJECTED"] == 1
    assert (said.index, said.verdict, said.code) == (1, "REJECTED", "BAD_VALUE")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {**COUNTS, "verdicts": []},
        {**COUNTS, "verdicts": "none"},
        {**COUNTS, "verdicts": [None]},
        {**COUNTS, "verdicts": [{**REJECTED, "index": 2}]},
        {**COUNTS, "verdicts": [{**REJECTED, "index": True}]},
        {**COUNTS, "verdicts": [{**REJECTED, "index": "1"}]},
        {**COUNTS, "verdicts": [{**REJECTED, "verdict": "ACCEPTED"}]},
        {**COUNTS, "verdicts": [REJECTED, REJECTED]},
        {**COUNTS, "accepted": 0, "rejected": 2, "verdicts": [REJECTED, REJECTED]},
        {**COUNTS, "accepted": 2, "verdicts": [REJECTED]},
        {**COUNTS, "accepted": -1, "rejected": 3, "verdicts": [REJECTED]},
        {**COUNTS, "accepted": "1", "verdicts": [REJECTED]},
        {name: count for name, count in COUNTS.items() if name != "conflicts"},
    ],
)
def test_an_answer_that_does_not_fit_the_batch_is_none(answer: Any) -> None:
    with pytest.raises(Unreadable):
        read_answer(answer, events=2)
