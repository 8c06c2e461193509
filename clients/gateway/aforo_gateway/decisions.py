"""Decisions that are remembered: as long as Aforo says, and until somebody changes something."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Question = tuple[str, str, str, str, str]
"""`customer` or `apiKey` and which, `feature` or `meter` and which, and the quantity."""

UNFOLLOWED_SECONDS = 1.0
"""How long a decision counts at most while nobody tells us of changes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer of the check, as far as a gateway needs it."""

    allowed: bool
    reason: str
    customer: str | None = None
    """Your own id of whom it is about, also where a key was asked for."""
    remaining: Decimal | None = None
    reset_at: str | None = None
    rate_per_second: str | None = None
    degraded: bool = False
    max_age_seconds: float = 0.0
    hold: str | None = None
    """The id of what is held for a request; of a check there is none."""

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> "Decision":
        """From the JSON of an answer. Raises KeyError, TypeError, ValueError or ArithmeticError."""
        if type(answer["allowed"]) is not bool:
            raise TypeError("allowed is no boolean")
        remaining, throttle = answer.get("remaining"), answer.get("throttle")
        hold = answer.get("hold")
        return cls(
            allowed=answer["allowed"],
            reason=str(answer["reason"]),
            customer=answer.get("customer"),
            remaining=None if remaining is None else Decimal(remaining),
            reset_at=answer.get("resetAt"),
            rate_per_second=None if throttle is None else str(throttle["ratePerSecond"]),
            degraded=bool(answer.get("degraded")),
            max_age_seconds=float(answer.get("maxAgeSeconds", 0)),
            hold=None if hold is None else str(hold["id"]),
        )


@dataclass(slots=True)
class _Entry:
    decision: Decision
    asked_at: float
    changes: int
    """How many changes had been told when it was asked for."""
    left: Decimal | None
    """What may still be let through by this decision; None where it does not count down."""


class Decisions:
    """At most so many of them; the one that was not used for longest goes first."""

    def __init__(self, *, entries_max: int) -> None:
        self.is_followed = False
        """Whether somebody tells us of changes now."""
        self.changes = 0
        """How many were told so far, for `keep`."""
        self._entries_max = entries_max
        self._entries: OrderedDict[Question, _Entry] = OrderedDict()
        self._changed_at: dict[str, int] = {}
        self._all_changed_at = 0

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._entries)

    def find(self, question: Question, now: float) -> Decision | None:
        """The decision, if it still counts; one request is let through by it. `now` in seconds."""
        entry = self._entries.get(question)
        if entry is None or not self._is_current(entry):
            return None
        counts_for = entry.decision.max_age_seconds
        if not self.is_followed:
            counts_for = min(counts_for, UNFOLLOWED_SECONDS)
        if now - entry.asked_at >= counts_for:
            return None
        if entry.left is not None:
            quantity = Decimal(question[4])
            if entry.left < quantity:
                return None  # By now it may be too much: Aforo has to say.
            entry.left -= quantity
        self._entries.move_to_end(question)
        return entry.decision

    def keep(
        self, question: Question, decision: Decision, *, asked_at: float, changes: int
    ) -> None:
        """Remember an answer to a question that was asked then, after so many changes."""
        left, quantity = None, Decimal(question[4])
        if decision.allowed and decision.remaining is not None and decision.remaining >= quantity:
            left = decision.remaining - quantity
        self._entries[question] = _Entry(decision, asked_at, changes, left)
        self._entries.move_to_end(question)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def last_known(self, question: Question) -> Decision | None:
        """What was said last, however long ago: for when nobody can be asked."""
        entry = self._entries.get(question)
        return None if entry is None else entry.decision

    def change(self, customer: str | None) -> None:
        """Ask anew about a customer, or about everybody."""
        self.changes += 1
        if customer is not None and len(self._changed_at) < self._entries_max:
            self._changed_at[customer] = self.changes
        else:
            self._all_changed_at = self.changes
            self._changed_at.clear()

    def _is_current(self, entry: _Entry) -> bool:
        customer = entry.decision.customer
        if customer is None:  # Of a key that nobody had: after any change somebody may.
            return entry.changes == self.changes
        changed_at = max(self._changed_at.get(customer, 0), self._all_changed_at)
        return entry.changes >= changed_at
