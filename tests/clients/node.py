"""Node with the clients that `package.json` names, run against the application on a real port."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
NODE_MAJOR_MIN = 20
INSTALL_SECONDS = 300
RUN_SECONDS = 90


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it said."""

    code: int
    said: str
    failed: str


class Node:
    """Runs programs that may import the clients; nothing of the tests' environment reaches them."""

    async def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        seconds: float = RUN_SECONDS,
    ) -> Ended:
        """Run a program; the tools of the clients are found by their names."""
        path = f"{MODULES / '.bin'}{os.pathsep}{os.environ['PATH']}"
        return await run(
            *command,
            environment={**(environment or {}), "PATH": path},
            folder=folder or HERE,
            seconds=seconds,
        )

    async def passes(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Run it; it must end well. What it printed."""
        ended = await self.run(*command, environment=environment, folder=folder)
        assert ended.code == 0, f"{' '.join(command)} failed:\n{ended.said}\n{ended.failed}"
        return ended.said


async def run(
    *words: str, environment: Mapping[str, str], folder: Path, seconds: float = RUN_SECONDS
) -> Ended:
    """Run a program to its end, without blocking this process, whose server it may be calling."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "NO_COLOR": "1", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            said, failed = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # Its children too, who hold the pipes.
        said, failed = await process.communicate()
        failed += f"\nended after {seconds:g} s".encode()
    assert process.returncode is not None
    return Ended(process.returncode, said.decode(), failed.decode())


def installed() -> Node:
    """Node with its packages, which are installed once. Skips in words where there is none."""
    missing = _missing()
    if missing is None:
        missing = _install()
    if missing is None:
        return Node()
    if os.environ.get("CI"):
        pytest.fail(f"{missing}: a change must pass with the real clients")
    pytest.skip(f"{missing}: the tests with real clients are left out")


def _missing() -> str | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return f"Node {NODE_MAJOR_MIN} or newer with npm is not installed"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"v(\d+)\.", told)
    if version is None or int(version[1]) < NODE_MAJOR_MIN:
        return f"Node is {told.strip()}, older than {NODE_MAJOR_MIN}"
    return None


def _install() -> str | None:
    """Install what the lock file pins, unless that was done; why it cannot be, if it cannot."""
    with (HERE / "package-lock.json").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # The suite may run as several processes.
        return _install_once()


def _install_once() -> str | None:
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    command = ["npm", "ci", "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"`npm ci` in tests/clients took more than {INSTALL_SECONDS} s"
    if done.returncode != 0:
        return f"`npm ci` in tests/clients failed, {done.stderr.strip()[-500:]}"
    stamp.write_text(wanted)
    return None
