"""What Aforo said of each event of a batch, read with care: an answer that does not fit is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETTLED = {"ACCEPTED", "DUPLICATE"}
"""Counted: now, or the first time that it was sent."""
COUNTS = {
    "ACCEPTED": "accepted",
    "DUPLICATE": "duplicates",
    "CONFLICT": "conflicts",
    "REJECTED": "rejected",
    "QUARANTINED": "quarantined",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one event that is neither ACCEPTED nor DUPLICATE."""

    verdict: str
    """CONFLICT, REJECTED or QUARANTINED, as Aforo said; REFUSED, where the event alone is too
    large for the server; DAMAGED, where the disk did not give it back as it was written."""
    code: str
    message: str
    event: Mapping[str, Any]
    """As it was sent; numbers with a point as Decimal. Empty where it is damaged."""
    event_id: str | None = None
    """Of a CONFLICT, what Aforo knows the first event under this key by."""

    @property
    def idempotency_key(self) -> str | None:
        """The key under which it was sent."""
        key = self.event.get("idempotencyKey")
        return key if isinstance(key, str) else None


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict as the answer has it, with the place of its event in the batch."""

    index: int
    verdict: str
    code: str
    message: str
    event_id: str | None


class Unreadable(Exception):
    """The answer is not one to this batch."""


def read_answer(answer: object, *, events: int) -> tuple[dict[str, int], Sequence[Said]]:
    """The five counts and every verdict that is not ACCEPTED. Raises `Unreadable`."""
    if not isinstance(answer, dict):
        raise Unreadable("it is no object")
    counts = {}
    for verdict, field in COUNTS.items():
        count = answer.get(field)
        if type(count) is not int or count < 0:
            raise Unreadable(f"{field} is no number")
        counts[verdict] = count
    listed = answer.get("verdicts")
    if not isinstance(listed, list):
        raise Unreadable("verdicts are no list")
    said = [_said(each, events) for each in listed]
    if sum(counts.values()) != events or len(said) != events - counts["ACCEPTED"]:
        raise Unreadable("its counts are not those of the batch")
    if len({each.index for each in said}) != len(said):
        raise Unreadable("it judges an event twice")
    return counts, said


def _said(given: object, events: int) -> Said:
    if not isinstance(given, dict):
        raise Unreadable("a verdict is no object")
    index, verdict, event_id = given.get("index"), given.get("verdict"), given.get("eventId")
    if type(index) is not int or not 0 <= index < events:
        raise Unreadable("a verdict is on no event of the batch")
    if verdict not in COUNTS.keys() - {"ACCEPTED"}:
        raise Unreadable("a verdict is none of the five")
    return Said(
        index=index,
        verdict=verdict,
        code=str(given.get("code")),
        message=str(given.get("message")),
        event_id=event_id if isinstance(event_id, str) else None,
    )
