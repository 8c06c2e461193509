"""The supervisor, on small real processes."""

import os
import signal
import threading
from pathlib import Path

import pytest

from aforo.storage.embedded import supervisor as module
from aforo.storage.embedded.errors import EngineError
from aforo.storage.embedded.processes import wait_until
from aforo.storage.embedded.supervisor import Program, Supervisor


def program(folder: Path, script: str, **more: object) -> Program:
    settings = {"is_ready": lambda _pid: True} | more
    return Program(
        name="Thing",
        command=("/bin/sh", "-c", script),
        folder=folder,
        log=folder / "thing.log",
        **settings,
    )


def test_a_child_that_never_gets_ready_is_reported_with_its_last_words(tmp_path: Path) -> None:
    dying = program(tmp_path, "echo 'FATAL: no room'; exit 3", is_ready=lambda _pid: False)
    with pytest.raises(EngineError, match=r"Thing did not start: exit 3: FATAL: no room"):
        Supervisor(dying).start()


def test_words_of_an_earlier_run_are_not_taken_for_the_last(tmp_path: Path) -> None:
    (tmp_path / "thing.log").write_text("FATAL: an old story\n")
    dying = program(tmp_path, "exit 3", is_ready=lambda _pid: False)
    with pytest.raises(EngineError) as error:
        Supervisor(dying).start()
    assert "old story" not in str(error.value)


def test_a_program_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    absent = Program(
        name="Thing",
        command=("/nowhere/thing",),
        folder=tmp_path,
        log=tmp_path / "thing.log",
        is_ready=lambda _pid: False,
    )
    with pytest.raises(EngineError, match=r"Thing did not start: .*No such file") as error:
        Supervisor(absent).start()
    assert "\n" not in str(error.value)


def test_a_child_that_does_not_answer_in_time_is_ended_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.2)
    seen: list[int] = []

    def never(pid: int) -> bool:
        seen.append(pid)
        return False

    with pytest.raises(EngineError, match="did not answer within"):
        Supervisor(program(tmp_path, "exec sleep 300", is_ready=never)).start()
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_child_that_keeps_dying_is_given_up_after_a_bounded_number_of_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACK_OFF_SECONDS", 0.001)
    told = threading.Event()
    faults: list[str] = []

    def on_fault(fault: str) -> None:
        faults.append(fault)
        told.set()

    starts: list[None] = []
    dying = program(
        tmp_path,
        # It lives until it is asked whether it is ready, and dies after that.
        "read line; exit 9",
        stdin=b"go\n",
        prepare=lambda: starts.append(None),
    )
    kept = Supervisor(dying, on_fault=on_fault)
    kept.start()
    assert told.wait(30)
    assert len(starts) == module.RESTARTS_MAX + 1
    assert kept.fault is not None
    assert "Thing keeps ending: exit 9" in kept.fault
    assert faults == [kept.fault]
    kept.stop()


def test_a_child_that_ignores_the_polite_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.3)
    deaf = program(
        tmp_path,
        "trap '' TERM; touch deaf; while :; do sleep 1; done",
        is_ready=lambda _pid: (tmp_path / "deaf").exists(),
    )
    kept = Supervisor(deaf)
    kept.start()
    pid = kept.pid
    assert pid is not None
    kept.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert kept.pid is None


def test_a_stop_during_a_start_ends_it(tmp_path: Path) -> None:
    asked = threading.Event()

    def never(_pid: int) -> bool:
        asked.set()
        return False

    kept = Supervisor(program(tmp_path, "exec sleep 300", is_ready=never))
    starting = threading.Thread(target=kept.start)
    starting.start()
    assert asked.wait(20)
    kept.stop()
    starting.join(20)
    assert not starting.is_alive()
    assert kept.pid is None


def test_a_log_that_grew_too_long_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 10)
    (tmp_path / "thing.log").write_text("much too long\n")
    kept = Supervisor(program(tmp_path, "echo new; exec sleep 300"))
    kept.start()
    assert wait_until(lambda: (tmp_path / "thing.log").read_text() == "new\n", seconds=60)
    kept.stop()
    assert (tmp_path / "thing.log.1").read_text() == "much too long\n"


def test_the_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    kept = Supervisor(program(tmp_path, "exec sleep 300"))
    asking = threading.Thread(target=kept.start)
    asking.start()
    asking.join()
    pid = kept.pid
    assert pid is not None
    os.kill(pid, signal.SIGCONT)  # Harmless, and an error if it were gone.
    assert kept.pid == pid
    kept.stop()
