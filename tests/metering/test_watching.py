"""Frames of the live view: whatever windows come together, the sums hold."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aforo.metering.verdicts import VerdictKind
from aforo.metering.watching import FIELDS, Frames, Wanted

GROUPS = st.tuples(
    st.sampled_from(list(VerdictKind)),
    st.sampled_from([None, "p1", "p2"]),
    st.sampled_from([None, "c1", "c2"]),
    st.sampled_from([None, "t1", "t2"]),
)
WANTED = st.builds(
    Wanted,
    verdicts=st.none() | st.frozensets(st.sampled_from(list(VerdictKind))),
    product_id=st.sampled_from([None, "p1"]),
    customer_id=st.sampled_from([None, "c1"]),
    type=st.sampled_from([None, "t1"]),
)


def window(writer: str, number: int, groups: list[Any], shown: int) -> dict[str, Any]:
    counts = [[*group, count] for group, count in Counter(groups).items()]
    events = [dict(zip(FIELDS, group, strict=True)) for group in groups[:shown]]
    return {"writer": writer, "number": number, "counts": counts, "shown": events}


@given(
    wanted=WANTED,
    batches=st.lists(
        st.lists(st.tuples(st.lists(GROUPS, max_size=5), st.integers(0, 5)), max_size=4),
        max_size=4,
    ),
    shown_max=st.integers(0, 4),
    twice=st.booleans(),
)
def test_every_wanted_event_is_counted_once_and_shown_or_dropped(
    wanted: Wanted, batches: list[Any], shown_max: int, twice: bool
) -> None:
    frames, number, expected = Frames(wanted, shown_max), 0, Counter[str]()
    received = shown = 0
    for batch in batches:
        windows = []
        for groups, in_full in batch:
            number += 1
            one = window("w", number, groups, in_full)
            windows += [one, one] if twice else [one]
            expected.update(group[0] for group in groups if wanted.holds(group))
            assert wanted.any_in(one) == any(wanted.holds(group) for group in groups)
        frame = frames.of(windows)
        assert len(frame.shown) == frame.counts.shown <= shown_max
        assert frame.counts.dropped >= 0
        received, shown = received + frame.counts.received, shown + frame.counts.shown
        assert (frame.totals.received, frame.totals.shown) == (received, shown)
        assert frame.totals.by_verdict == {kind: expected[kind] for kind in VerdictKind}
        assert received == expected.total()


def test_the_newest_events_are_shown() -> None:
    groups = [(VerdictKind.ACCEPTED, None, None, type_) for type_ in ("t1", "t2", "t3")]
    frame = Frames(Wanted(), 2).of([window("a", 1, groups[:2], 2), window("b", 1, groups[2:], 1)])
    assert [(place, event["type"]) for place, event in frame.shown] == [(0, "t2"), (1, "t3")]
