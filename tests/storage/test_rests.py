"""Work that rests after each time."""

import pytest

from aforo.storage import rests
from aforo.storage.rests import Rests


class Clock:
    """Seconds that go by when they are told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rests, "time", clock)
    return clock


def test_it_rests_so_many_times_as_long_as_it_took_and_others_do_not(seconds: Clock) -> None:
    some = Rests[str](times=9, seconds_max=10)
    assert "a" not in some.resting()
    some.begin("a", took_seconds=0.5)
    assert "a" in some.resting()
    assert "b" not in some.resting()
    seconds.seconds += 4.4
    assert "a" in some.resting()
    seconds.seconds += 0.2
    assert "a" not in some.resting()


def test_however_long_it_took_it_rests_no_longer_than_this(seconds: Clock) -> None:
    some = Rests[str](times=9, seconds_max=10)
    some.begin("a", took_seconds=60)
    seconds.seconds += 9.9
    assert "a" in some.resting()
    seconds.seconds += 0.2
    assert "a" not in some.resting()


def test_who_has_rested_long_ago_takes_no_room(seconds: Clock) -> None:
    some = Rests[str](times=1, seconds_max=10)
    for each in "abc":
        some.begin(each, took_seconds=1)
    seconds.seconds += 2
    some.begin("d", took_seconds=1)
    assert some.resting() == ["d"]
    assert len(some._until) == 1
