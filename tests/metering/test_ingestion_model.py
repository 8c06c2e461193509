"""Ingestion against a dictionary: whatever is sent in whatever batches, the verdicts agree."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aforo.metering.commands import BatchRefused
from aforo.metering.verdicts import IngestAnswer
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from tests.metering.market import Market, open_market

BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "one": ({"properties": {"tokens": 1}}, "ACCEPTED"),
    "two": ({"properties": {"tokens": 2}}, "ACCEPTED"),
    "globex": ({"customer": "globex"}, "ACCEPTED"),
    "stranger": ({"customer": "nobody"}, "QUARANTINED"),
    "meterless": ({"type": "unheard.of"}, "QUARANTINED"),
    "text": ({"properties": {"tokens": "x"}}, "REJECTED"),
    "shapeless": ({"type": 7}, "REJECTED"),
}
"""What is sent, and what becomes of it where nobody holds the key."""
_EXAMPLES = count()

sent = st.tuples(st.sampled_from("abc"), st.sampled_from([*BODIES]))
batches = st.lists(st.tuples(st.lists(sent, max_size=6), st.booleans()), min_size=1, max_size=4)


@pytest.fixture(scope="module")
async def stall(shared_runtime: Runtime) -> Market:
    """One market for all examples, which keep apart by their keys."""
    return await open_market(shared_runtime, TenantId(new_id()))


@settings(max_examples=40)
@given(batches)
async def test_the_verdicts_are_those_of_a_dictionary(
    stall: Market, batches: list[tuple[list[tuple[str, str]], bool]]
) -> None:
    example = next(_EXAMPLES)
    held: dict[str, str] = {}
    for batch, atomic in batches:
        expected = foretold(batch, dict(held), atomic=atomic)
        answer = await answered(
            stall,
            [
                stall.event(f"{example}-{key}", occurredAt=None, **BODIES[body][0])
                for key, body in batch
            ],
            atomic=atomic,
        )
        kinds = ["ACCEPTED"] * len(batch)
        for verdict in answer.verdicts:
            kinds[verdict.index] = verdict.kind
        assert kinds == expected
        counts = Counter(kinds)
        assert answer.received == len(batch)
        assert (answer.accepted, answer.duplicates, answer.conflicts) == (
            counts["ACCEPTED"],
            counts["DUPLICATE"],
            counts["CONFLICT"],
        )
        if not (atomic and answer.refused):
            foretold(batch, held, atomic=atomic)


def foretold(batch: Sequence[tuple[str, str]], held: dict[str, str], *, atomic: bool) -> list[str]:
    """The verdicts, and in `held` the body that holds each key afterwards."""
    kinds = []
    for key, body in batch:
        fate = BODIES[body][1]
        # What is rejected by its shape never comes to its key; by its number only if it is new.
        if body == "shapeless":
            kinds.append(fate)
        elif key in held:
            kinds.append("DUPLICATE" if held[key] == body else "CONFLICT")
        else:
            kinds.append(fate)
            if fate != "REJECTED":
                held[key] = body
    return kinds


async def answered(
    market: Market, events: Sequence[dict[str, Any]], *, atomic: bool
) -> IngestAnswer:
    try:
        return await market.take(*events, atomic=atomic)
    except BatchRefused as refused:
        return refused.answer
