"""Live verdicts as a watcher gets them: windows made into frames, with exact counts. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aforo.metering.verdicts import VerdictKind

Window = Mapping[str, Any]
"""As it was told: `writer` and `number`, `counts` by group, and `shown` of its events."""

FIELDS = ("verdict", "productId", "customerId", "type")
"""What a group is made of."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a watcher counts and sees; None is no wish."""

    verdicts: Collection[str] | None = None
    product_id: str | None = None
    customer_id: str | None = None
    type: str | None = None

    def holds(self, group: Sequence[str | None]) -> bool:
        """Whether events of a group are wanted."""
        verdict, product_id, customer_id, type_ = group
        return (
            (self.verdicts is None or verdict in self.verdicts)
            and self.product_id in {None, product_id}
            and self.customer_id in {None, customer_id}
            and self.type in {None, type_}
        )

    def any_in(self, window: Window) -> bool:
        """Whether a window has something that is wanted."""
        return any(self.holds(group) for *group, _ in window["counts"])


class Counts(NamedTuple):
    """How many events there were, of those that are wanted."""

    received: int
    shown: int
    by_verdict: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """Those that were counted and not shown."""
        return self.received - self.shown


class Frame(NamedTuple):
    """What happened since the frame before."""

    counts: Counts
    totals: Counts
    """Of all frames of this watcher so far."""
    shown: Sequence[tuple[int, Mapping[str, Any]]]
    """The newest events, in the order in which they were told; each with its window's place."""


@dataclass(slots=True)
class Frames:
    """Makes the frames of one watcher."""

    wanted: Wanted
    shown_max: int
    _received: Counter[str] = field(default_factory=Counter)
    _shown: int = 0
    _last: dict[str, int] = field(default_factory=dict)
    """Of each writer the last window: one that was sent twice counts once."""

    def of(self, windows: Iterable[Window]) -> Frame:
        """The next frame, of the windows that came since the last one."""
        received: Counter[str] = Counter()
        shown: list[tuple[int, Mapping[str, Any]]] = []
        for place, window in enumerate(windows):
            if self._last.get(window["writer"], 0) >= window["number"]:
                continue
            self._last[window["writer"]] = window["number"]
            for *group, count in window["counts"]:
                if self.wanted.holds(group):
                    received[group[0]] += count
            shown += [
                (place, event)
                for event in window["shown"]
                if self.wanted.holds([event[name] for name in FIELDS])
            ]
        shown = shown[max(0, len(shown) - self.shown_max) :]
        self._received += received
        self._shown += len(shown)
        return Frame(_counts(received, len(shown)), _counts(self._received, self._shown), shown)


def _counts(received: Counter[str], shown: int) -> Counts:
    return Counts(received.total(), shown, {kind: received[kind] for kind in VerdictKind})
