"""One engine as a child process: started, watched, started again, and stopped with us."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aforo.storage.embedded.errors import EngineError
from aforo.storage.embedded.processes import POLL_SECONDS

LAUNCHER = Path(__file__).with_name("launcher.py")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
RESTARTS_MAX = 5
RESTARTS_WINDOW_SECONDS = 60.0
BACK_OFF_SECONDS = 0.2
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_BYTES = 4_096


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How one engine is run."""

    name: str
    command: tuple[str, ...]
    folder: Path
    """Where it works."""
    log: Path
    is_ready: Callable[[int], bool]
    """Asked with the child's process id until it says yes."""
    prepare: Callable[[], None] = _nothing
    """Done before each start, also before a restart."""
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = field(default=b"", repr=False)
    pass_fds: tuple[int, ...] = ()
    user: tuple[int, int] | None = None
    """User and group id to run as; None is ours."""
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGKILL)
    """Tried in this order; the first is also what the child gets if we die."""


class Supervisor:
    """Keeps one program running from `start` to `stop`.

    The thread that starts the child lives as long as the child may: Linux sends the
    parent-death signal when the *thread* that forked ends, not the process.
    """

    def __init__(self, program: Program, *, on_fault: Callable[[str], None] | None = None) -> None:
        self.program = program
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._fault: str | None = None
        self._log_from = 0
        self._thread = threading.Thread(
            target=self._run, name=f"aforo-{program.name.lower()}", daemon=True
        )

    @property
    def pid(self) -> int | None:
        """The child's process id, None between two children."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def fault(self) -> str | None:
        """Why the engine is down for good; None while it runs or is being restarted."""
        return self._fault

    def start(self) -> None:
        """Start the child and wait until it answers.

        Raises: `EngineError`.
        """
        self._thread.start()
        self._settled.wait()
        if self._fault is not None:
            raise EngineError(self._fault)

    def stop(self) -> None:
        """End the child in order; does nothing if it never started."""
        with self._lock:
            self._stopping.set()
        for how in self.program.stop_signals:
            self._send(how)
            if self._thread.is_alive():
                self._thread.join(STOP_SECONDS)
            if not self._thread.is_alive():
                return

    def _run(self) -> None:
        try:
            self._keep_running()
        finally:
            # Whatever happened here, nobody may wait for ever, or believe that it runs.
            if self._fault is None and not self._stopping.is_set():
                self._fault = f"{self.program.name} is no longer watched"
            self._settled.set()

    def _keep_running(self) -> None:
        starts: deque[float] = deque(maxlen=RESTARTS_MAX + 1)
        while not self._stopping.is_set():
            starts.append(time.monotonic())
            fault = self._live_once()
            if self._stopping.is_set():
                return
            if not self._settled.is_set() or _too_often(starts):
                self._report(fault)
                return
            self._stopping.wait(BACK_OFF_SECONDS * 2 ** (len(starts) - 1))

    def _live_once(self) -> str:
        """Run one child to its end, and say what it died of."""
        name = self.program.name
        process = None
        try:
            self.program.prepare()
            process = self._spawn()
            if process is not None and self._wait_ready(process):
                self._settled.set()
                process.wait()
            fault = f"{name} keeps ending: {self._last_words()} (see {self.program.log})"
        except EngineError as error:
            fault = error.message
        except OSError as error:
            fault = f"{name} cannot be started: {error}"
        self._end(process)
        return fault

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        program = self.program
        user, group = program.user or ("-", "-")
        death_signal = int(program.stop_signals[0])
        launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(death_signal)]
        _bound_log(program.log)
        with self._lock, program.log.open("ab") as log:
            if self._stopping.is_set():
                return None
            self._log_from = log.tell()
            self._process = process = subprocess.Popen(  # noqa: S603 (our own words)
                [*launch, str(user), str(group), *program.command],
                cwd=program.folder,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **program.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=program.pass_fds,
                start_new_session=True,
            )
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(program.stdin)
        return process

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """True once it answers, False if we are told to stop while waiting."""
        end = time.monotonic() + START_SECONDS
        while not self._stopping.is_set():
            if process.poll() is not None:
                raise EngineError(
                    f"{self.program.name} did not start: {self._last_words()} "
                    f"(see {self.program.log})"
                )
            if self.program.is_ready(process.pid):
                return True
            if time.monotonic() > end:
                raise EngineError(
                    f"{self.program.name} did not answer within {START_SECONDS:.0f} seconds "
                    f"(see {self.program.log})"
                )
            self._stopping.wait(POLL_SECONDS)
        return False

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        for how in self.program.stop_signals:
            self._send(how)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    def _send(self, how: signal.Signals) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(how)

    def _report(self, fault: str) -> None:
        self._fault = fault
        if self._settled.is_set() and self._on_fault is not None:
            self._on_fault(fault)

    def _last_words(self) -> str:
        """The last line of the log that says why, else how the child ended."""
        process = self._process
        code = process.returncode if process is not None else None
        how = f"exit {code}" if code is None or code >= 0 else f"killed by {_signal_name(-code)}"
        tail = _tail(self.program.log, self._log_from)
        telling = [line for line in tail if any(word in line for word in ("FATAL", "rror", "# "))]
        return f"{how}: {(telling or tail)[-1].strip()}" if tail else how


def _too_often(starts: deque[float]) -> bool:
    return len(starts) == starts.maxlen and starts[-1] - starts[0] < RESTARTS_WINDOW_SECONDS


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _bound_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)


def _tail(log: Path, log_from: int) -> list[str]:
    with log.open("rb") as lines:
        lines.seek(max(log_from, log.stat().st_size - LOG_TAIL_BYTES))
        return [line for line in lines.read().decode(errors="replace").splitlines() if line.strip()]
