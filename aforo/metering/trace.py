"""The trace of an event as it is kept: a few bytes that say how it passed the first four stages.

It is the versions of the settings of stages 1 to 4 with points between them, then a letter for
each thing that was decided: `0.3.0.0ct`. Everything else about those stages is in the event itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aforo.metering.ingest import SentEvent
from aforo.stages.registry import InForce, StageName
from aforo.subscriptions.hierarchy import Hierarchy

STAGES = (
    StageName.INGESTION,
    StageName.VALIDATION,
    StageName.DEDUPLICATION,
    StageName.ENRICHMENT,
)
AS_DELIVERED = ".".join("0" for _ in STAGES)
"""Where a tenant has set nothing."""
TIME_OF_RECEIPT = "t"
RELEASED = "r"
_TRACE = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)\.([0-9]+)([a-z]*)")


class Found(StrEnum):
    """By what the customer of an event was found, as a letter."""

    BY_CUSTOMER = "c"
    BY_ALIAS = "a"
    BY_KEY = "k"
    BY_CUSTOMER_AND_KEY = "b"


@dataclass(frozen=True, slots=True)
class Passage:
    """What a trace says."""

    versions: Mapping[StageName, int]
    found: Found | None
    time_of_receipt: bool
    """Whether the event happened when it was received, because it did not say."""
    released: bool
    """Whether it had been quarantined."""


def beginning(stages: InForce) -> str:
    """How the traces of all events begin that are taken under these settings."""
    return ".".join(str(stages.version(name)) for name in STAGES)


def passage(begun: str, event: SentEvent, hierarchy: Hierarchy) -> str:
    """The trace of one event."""
    if event.api_key is not None:
        found = "k" if event.customer is None else "b"
    else:
        found = "c" if event.customer in hierarchy.customers else "a"
    return begun + found if event.occurred_at is not None else begun + found + TIME_OF_RECEIPT


def read(trace: str) -> Passage | None:
    """What a trace says; None for an event of before traces were kept."""
    parts = _TRACE.fullmatch(trace)
    if parts is None:
        return None
    *versions, letters = parts.groups()
    found = next((each for each in Found if each in letters), None)
    return Passage(
        versions=dict(zip(STAGES, map(int, versions), strict=True)),
        found=found,
        time_of_receipt=TIME_OF_RECEIPT in letters,
        released=RELEASED in letters,
    )
