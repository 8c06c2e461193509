"""Detectors: evidence in, a detection or nothing out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, ClassVar, Generic, TypeVar

from aforo.sdk.component import Component
from aforo.sdk.period import Period


class Level(IntEnum):
    """The rungs of the ladder, mildest first; a deeper one includes the milder actions."""

    ALERT = 1
    THROTTLE = 2
    BLOCK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginEvidence:
    """What a customer has brought in and cost in a period up to a moment, one currency."""

    currency: str
    revenue: Decimal
    """Accrued, net of discounts, before tax."""
    cogs: Decimal
    """Costs of the events whose cost is known."""
    uncosted_events: int
    """Events without a cost rate: their cost is unknown, not 0."""
    period: Period
    as_of: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a detector found, with the numbers that explain it."""

    level: Level
    threshold: str
    """Which of the detector's thresholds was breached, such as `L2`; part of the identity."""
    value: Decimal | None
    """The measured value; None where it is undefined, such as a margin of no revenue."""
    limit: Decimal | None
    """The threshold's value, in the unit of `value`."""
    explanation: str
    numbers: Mapping[str, Decimal | None] = field(default_factory=dict)


Evidence = TypeVar("Evidence")


class Detector(Component, ABC, Generic[Evidence]):
    """Judges evidence; knows nothing of tenants, storage or how often it has fired."""

    evidence: ClassVar[type[Any]]
    """The class of evidence it wants; the core builds it."""

    @abstractmethod
    def detect(self, evidence: Evidence) -> Detection | None:
        """The deepest breach, or None. Pure: the same evidence gives the same detection.

        Called within `exact()`: use `divide` where a division is meant.
        """

    def is_rearmed(self, evidence: Evidence, threshold: str) -> bool:  # noqa: ARG002
        """Whether the evidence is back on the safe side of a threshold, hysteresis included."""
        return self.detect(evidence) is None
