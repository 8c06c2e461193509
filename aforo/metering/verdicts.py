"""What ingestion says of each event, and of a batch as a whole."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class VerdictKind(StrEnum):
    """The five things that can become of an event at the door."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    CONFLICT = "CONFLICT"
    REJECTED = "REJECTED"
    QUARANTINED = "QUARANTINED"


class Stage(StrEnum):
    """The stage that spoke."""

    INGESTION = "INGESTION"
    VALIDATION = "VALIDATION"
    DEDUPLICATION = "DEDUPLICATION"
    ENRICHMENT = "ENRICHMENT"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event, and why."""

    index: int
    """Place in the batch, from 0."""
    idempotency_key: str | None
    kind: VerdictKind
    stage: Stage
    code: str
    message: str
    event_id: UUID | None = None
    """The first event's, for a DUPLICATE or CONFLICT."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event cannot be accepted, before it is known where in a batch it stands."""

    kind: VerdictKind
    stage: Stage
    code: str
    message: str

    def at(self, index: int, key: str | None) -> Verdict:
        """The verdict on the event at that place."""
        return Verdict(index, key, self.kind, self.stage, self.code, self.message)


@dataclass(frozen=True, slots=True)
class IngestAnswer:
    """The answer to a batch: five counts, and every verdict that is not ACCEPTED."""

    received: int
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    quarantined: int
    verdicts: Sequence[Verdict]

    @property
    def refused(self) -> bool:
        """Whether an atomic batch would have to be given back; duplicates are harmless."""
        return bool(self.conflicts or self.rejected or self.quarantined)


def answer(received: int, verdicts: Sequence[Verdict]) -> IngestAnswer:
    """Count the verdicts of a batch of `received` events; those without one were accepted."""
    counts = Counter(verdict.kind for verdict in verdicts)
    return IngestAnswer(
        received=received,
        accepted=received - len(verdicts),
        duplicates=counts[VerdictKind.DUPLICATE],
        conflicts=counts[VerdictKind.CONFLICT],
        rejected=counts[VerdictKind.REJECTED],
        quarantined=counts[VerdictKind.QUARANTINED],
        verdicts=sorted(verdicts, key=lambda verdict: verdict.index),
    )


def rejected(stage: Stage, code: str, message: str) -> Refusal:
    """A refusal that the sender must mend."""
    return Refusal(VerdictKind.REJECTED, stage, code, message)


def quarantined(stage: Stage, code: str, message: str) -> Refusal:
    """A refusal that the tenant must mend: the event is kept, and released afterwards."""
    return Refusal(VerdictKind.QUARANTINED, stage, code, message)
