"""The trace that is kept with an event: written, and read back."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.ingest import SentEvent
from aforo.metering.trace import AS_DELIVERED, RELEASED, STAGES, Found, beginning, passage, read
from aforo.sdk.ids import CustomerId
from aforo.stages.registry import InForce
from aforo.subscriptions.hierarchy import Hierarchy

AT = datetime(2026, 11, 20, tzinfo=UTC)
HIERARCHY = Hierarchy({"acme": CustomerId(uuid4())}, {})


@given(st.lists(st.integers(0, 2**31 - 1), min_size=4, max_size=4))
def test_the_versions_come_back(versions: list[int]) -> None:
    wanted = dict(zip(STAGES, versions, strict=True))
    found = read(beginning(InForce(wanted)) + "c")
    assert found is not None
    assert found.versions == wanted


def test_where_nothing_was_set_a_trace_is_a_few_bytes() -> None:
    assert beginning(InForce()) == AS_DELIVERED == "0.0.0.0"


@pytest.mark.parametrize(
    ("customer", "key", "found"),
    [
        ("acme", None, Found.BY_CUSTOMER),
        ("acme-before", None, Found.BY_ALIAS),
        (None, "sk_live_1", Found.BY_KEY),
        ("acme", "sk_live_1", Found.BY_CUSTOMER_AND_KEY),
    ],
)
@pytest.mark.parametrize("occurred_at", [AT, None])
@pytest.mark.parametrize("released", ["", RELEASED])
def test_what_was_decided_comes_back(
    customer: str | None,
    key: str | None,
    found: Found,
    occurred_at: datetime | None,
    released: str,
) -> None:
    event = SentEvent("k", "t", customer, key, occurred_at, {})
    said = read(passage(AS_DELIVERED, event, HIERARCHY) + released)
    assert said is not None
    assert said.found is found
    assert said.time_of_receipt is (occurred_at is None)
    assert said.released is bool(released)


def test_events_of_before_traces_were_kept_have_none() -> None:
    assert read("") is None
