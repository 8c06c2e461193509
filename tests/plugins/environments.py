"""Environments of their own, as partners have them: this checkout's Aforo, and plugins by pip."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_SECONDS_MAX = 180


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees our dependencies, so that nothing is downloaded."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    def install(self, *sources: Path) -> None:
        """Install distributions, as `pip install` does."""
        copies = []
        for source in sources:
            # A copy, because building leaves its files beside the source.
            copy = self.folder / "sources" / source.name
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.egg-info", "build"))
            copies.append(str(copy))
        self.run(
            *("-m", "pip", "--isolated", "--disable-pip-version-check", "install"),
            *("-q", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"),
            *copies,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run its Python; what it prints. It must end with the exit code."""
        done = _run(str(self.python), *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def aforo(self, *arguments: str, code: int = 0) -> str:
        """Run its command `aforo`."""
        return self.run("-c", "from aforo.cli import main; main()", *arguments, code=code)


@contextmanager
def fresh_environment() -> Iterator[Environment]:
    """An environment without any plugin but the standard one, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="aforo-environment-") as folder:
        made = Environment(Path(folder))
        done = _run(sys.executable, "-m", "venv", "--without-pip", str(made.folder / "env"))
        assert done.returncode == 0, done.stderr
        packages = next((made.folder / "env" / "lib").glob("python*/site-packages"))
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        yield made


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))
    }
    # Of this checkout, wherever the environment that runs the tests has its own from.
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins" / "aforo-standard")))
    return subprocess.run(
        command,
        cwd=tempfile.gettempdir(),
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
