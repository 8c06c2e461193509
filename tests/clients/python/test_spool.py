"""The spool: whatever is appended, and whoever dies, everything is sent and nothing is lost."""

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aforo_client import ClientClosed, Options, SpoolError, SpoolFull
from aforo_client.segment import EVENT, Segment
from aforo_client.spool import DEAD_LETTERS, OWNER, SUFFIX, Batch, Spool

OWNER_IS = {"url": "http://aforo.test", "for": "test"}
SMALL = Options(segment_bytes=120, spool_bytes_max=1_200, fsync="never")
PROCESSES = st.integers(0, 1)


def opened(folder: Path, options: Options = SMALL) -> Spool:
    return Spool(folder, OWNER_IS, options)


def events(batch: Batch) -> list[bytes]:
    return [line.content for line in batch.lines if line.kind == EVENT]


def drained(spool: Spool) -> list[bytes]:
    """Everything that waits, taken and settled batch by batch."""
    found = []
    while batch := spool.next_batch(events_max=3, bytes_max=1_000):
        found += events(batch)
        spool.settle(batch)
    return found


class Processes(RuleBasedStateMachine):
    """Two processes share a spool; each may be killed at any moment, and half a line be left."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.spools = [opened(self.folder) for _ in range(2)]
        self.batches: list[Batch | None] = [None] * 2
        self.numbers = itertools.count()
        self.kept: set[bytes] = set()
        self.sent: list[bytes] = []
        self.settled: set[bytes] = set()
        self.killed = False

    @rule(process=PROCESSES, sizes=st.lists(st.sampled_from([0, 20, 150]), max_size=4))
    def append(self, process: int, sizes: list[int]) -> None:
        for size in sizes:
            event = b"%d.%b" % (next(self.numbers), b"x" * size)
            with contextlib.suppress(SpoolFull):
                self.spools[process].append(event)
                self.kept.add(event)

    @rule(process=PROCESSES, events_max=st.integers(1, 3), bytes_max=st.sampled_from([1, 400]))
    def send(self, process: int, events_max: int, bytes_max: int) -> None:
        batch = self.spools[process].next_batch(events_max=events_max, bytes_max=bytes_max)
        self.batches[process] = batch
        if batch is not None:
            assert len(batch.lines) <= events_max
            assert not self.settled & set(events(batch)), "sent again with its verdict known"
            self.sent += events(batch)

    @rule(process=PROCESSES)
    def learn_the_verdicts(self, process: int) -> None:
        batch, self.batches[process] = self.batches[process], None
        if batch is not None:
            self.settled.update(events(batch))
            self.spools[process].settle(batch)

    @rule(process=PROCESSES, torn=st.sampled_from([b"", b"0", b"00000000 e{"]))
    def die_and_start_again(self, process: int, torn: bytes) -> None:
        spool = self.spools[process]
        if spool._writing is not None:
            with spool._writing.path.open("ab") as file:
                file.write(torn)
        spool.abandon()
        self.batches[process], self.killed = None, True
        self.spools[process] = opened(self.folder)

    @rule(process=PROCESSES)
    def end_and_start_again(self, process: int) -> None:
        self.spools[process].close()
        self.batches[process] = None
        self.spools[process] = opened(self.folder)

    @rule(process=PROCESSES)
    def take_over(self, process: int) -> None:
        self.spools[process].adopt()

    @invariant()
    def the_folder_keeps_to_its_bound(self) -> None:
        # Notes of what is done may come on top: some bytes for each batch.
        sizes = [path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}")]
        largest = 150 + 40
        assert sum(sizes) <= 1_200 + largest + 25 * len(self.sent)

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert all(spool.waiting >= 0 for spool in self.spools)

    def teardown(self) -> None:
        for spool in self.spools:
            spool.close()
        last = opened(self.folder)
        rest = drained(last)
        assert (last.waiting, last.waiting_bytes) == (0, 0)
        last.close()
        assert self.kept <= {*self.sent, *rest}, "something that was kept was never sent"
        assert {*self.sent, *rest} <= self.kept, "something was sent that nobody kept"
        assert not self.settled & set(rest), "sent again with its verdict known"
        assert len(rest) == len(set(rest))
        assert not list(self.folder.glob(f"*{SUFFIX}"))
        shutil.rmtree(self.folder)


Processes.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestProcesses = Processes.TestCase


@pytest.mark.parametrize("torn", [b"", b"0", b"00000000 e{"])
def test_a_process_that_is_killed_in_the_middle_sends_nothing_again_that_has_its_verdict(
    tmp_path: Path, torn: bytes
) -> None:
    spool = opened(tmp_path, Options(fsync="never"))
    for number in range(4):
        spool.append(b"%d" % number)
    for number in range(3):  # Each time another one has to find out what is done.
        batch = spool.next_batch(events_max=1, bytes_max=999)
        assert batch is not None
        assert events(batch) == [b"%d" % number]
        spool.settle(batch)
        (path,) = tmp_path.glob(f"*{SUFFIX}")
        with path.open("ab") as file:
            file.write(torn)
        spool.abandon()
        spool = opened(tmp_path)
    assert drained(spool) == [b"3"]
    spool.close()


def test_a_killed_process_leaves_what_it_kept_to_the_next(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.append(b"a")
    first.append(b"b")
    second = opened(tmp_path)
    assert second.next_batch(events_max=9, bytes_max=999) is None  # It is in use.
    first.abandon()
    second.adopt()
    assert (second.adopted, second.waiting) == (2, 2)
    assert drained(second) == [b"a", b"b"]
    second.close()


def test_a_line_that_the_disk_spoilt_costs_no_other(tmp_path: Path) -> None:
    first = opened(tmp_path, Options(fsync="never"))
    for event in (b"a", b"bbbb", b"c"):
        first.append(event)
    first.abandon()
    (path,) = tmp_path.glob(f"*{SUFFIX}")
    path.write_bytes(path.read_bytes().replace(b"bbbb", b"bxbb"))
    second = opened(tmp_path)
    batch = second.next_batch(events_max=9, bytes_max=999)
    assert batch is not None
    assert events(batch) == [b"a", b"c"]
    (damaged,) = (line.content for line in batch.lines if line.kind != EVENT)
    assert damaged.endswith(b"ebxbb")
    second.settle(batch)
    assert second.waiting == 0
    second.close()


def test_a_file_whose_end_is_gone_under_its_owner_is_an_error_and_no_endless_loop(
    tmp_path: Path,
) -> None:
    spool = opened(tmp_path)
    spool.append(b"a")
    (path,) = tmp_path.glob(f"*{SUFFIX}")
    os.truncate(path, 0)
    with pytest.raises(OSError, match="shorter than what was written"):
        spool.next_batch(events_max=9, bytes_max=999)
    spool.close()


def test_a_full_spool_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    kept = []

    def fill() -> None:
        for number in range(10_000):
            spool.append(b"%d" % number)
            kept.append(b"%d" % number)

    with pytest.raises(SpoolFull, match=r"events of this process .* may not exceed 1,200 bytes"):
        fill()
    assert drained(spool) == kept
    spool.append(b"there is room again")
    spool.close()


def test_a_full_spool_waits_for_room_where_that_is_wished(tmp_path: Path) -> None:
    waits = Options(segment_bytes=120, spool_bytes_max=1_200, fsync="never", full_wait_seconds=20)
    spool = opened(tmp_path, waits)
    threads = [
        threading.Thread(target=lambda: [spool.append(b"x" * 30) for _ in range(30)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    found = 0
    while found < 60:
        with spool.changed:
            assert spool.changed.wait_for(lambda: spool.waiting, 20)
        found += len(drained(spool))
    for thread in threads:
        thread.join(20)
    assert spool.tracked == found == 60
    spool.close()


def test_an_event_that_is_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(b"small")
    spool.append(b"x" * 500)
    spool.append(b"small")
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 3
    assert [len(each) for each in drained(spool)] == [5, 500, 5]
    spool.close()


def test_the_spool_of_another_server_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(SpoolError, match="give each its own folder"):
        Spool(tmp_path, {"url": "http://other.test", "for": "test"}, SMALL)
    with pytest.raises(SpoolError, match="give each its own folder"):
        Spool(tmp_path, {**OWNER_IS, "for": "live"}, SMALL)
    assert json.loads((tmp_path / OWNER).read_text()) == OWNER_IS


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        opened(tmp_path / "file")


def test_what_is_in_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    spool.append(b"a")
    spool.bury([{"a": "é"}])
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    (segment,) = (tmp_path / "spool").glob(f"*{SUFFIX}")
    assert segment.stat().st_mode & 0o777 == 0o600
    letters = tmp_path / "spool" / DEAD_LETTERS
    assert letters.stat().st_mode & 0o777 == 0o600
    assert json.loads(letters.read_text()) == {"a": "é"}
    spool.close()


@pytest.mark.parametrize("torn", ['{"b', '{"b": "' + "x" * 200_000])
def test_half_a_dead_letter_of_a_killed_process_spoils_no_other(tmp_path: Path, torn: str) -> None:
    spool = opened(tmp_path)
    letters = tmp_path / DEAD_LETTERS
    letters.write_text(torn)
    spool.bury([{"a": 1}])
    with letters.open("a") as file:
        file.write(torn)
    spool.bury([{"b": 2}, {"c": 3}])
    assert letters.read_text() == '{"a": 1}\n{"b": 2}\n{"c": 3}\n'
    spool.close()


def test_a_closed_spool_takes_nothing_more(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.close()
    spool.close()
    with pytest.raises(ClientClosed):
        spool.append(b"a")
    assert not list(tmp_path.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize("written", [0, 5])
def test_a_disk_that_is_full_refuses_the_event_and_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    spool = opened(tmp_path)
    spool.append(b"before")
    write, tries = os.write, itertools.count()

    def fill(descriptor: int, data: bytes) -> int:
        if next(tries) == 0 and written:
            return write(descriptor, data[:written])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(SpoolError, match="No space left on device"):
        spool.append(b"refused")
    monkeypatch.undo()
    spool.append(b"after")
    assert drained(spool) == [b"before", b"after"]
    spool.close()


def test_half_a_line_that_cannot_be_taken_back_is_never_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.append(b"before")
    write, tries = os.write, itertools.count()

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", fail)
        broken.setattr(
            os, "write", lambda to, data: write(to, data[:5]) if next(tries) == 0 else fail()
        )
        with pytest.raises(SpoolError, match="Input/output error"):
            spool.append(b"refused")
    spool.append(b"after")
    assert drained(spool) == [b"before", b"after"]
    spool.close()


def test_who_asks_for_it_waits_until_a_power_cut_can_take_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    spool = opened(tmp_path, Options(fsync="always"))
    for number in range(3):
        spool.append(b"%d" % number)
        (path,) = tmp_path.glob(f"*{SUFFIX}")
        assert synced[-1] == path.stat().st_size
    spool.close()


def test_a_segment_that_was_just_deleted_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    segment = Segment.create(path)
    assert Segment.take(path) is None
    segment.remove()
    assert Segment.take(path) is None
