"""The demo's folder: what it keeps where, and which of it may be deleted."""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from aforo.sdk.errors import AforoError
from aforo.settings import PREFIX, Settings
from aforo.storage.embedded import places

KEY_FILE = "demo.json"
STATE_FILE = "state.json"
ENVIRONMENT_FILE = Path("run") / "environment.json"
LOG_FILE = Path("log") / "aforo.log"
ARCHIVE_FOLDER = "demo"
OURS = ("postgres", "redis", "clickhouse", "run", "log", "secrets", ARCHIVE_FOLDER, KEY_FILE)
"""All that the demo makes in its folder, beside its state and the lock."""
NOT_OURS = {"archive", "lock"}
"""What a worker on servers, or a lock, leaves in the same folder: no reason to refuse it."""
ENVIRONMENT = ("database_url", "redis_url", "clickhouse_url", "key_pepper", "data_dir")


class DemoError(AforoError):
    """The demo cannot run; the sentence says why and what to do."""

    code = "DEMO"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the demo: the content of `demo.json`, the one place a key is kept."""

    url: str
    """The origin, without a path."""
    apiKey: str  # noqa: N815 (the name in the file)
    tenant: str
    """The tenant's global id, as GraphQL gives it."""


class DemoFolder:
    """One folder of a demo. Nothing is deleted in a folder that the demo has not taken."""

    def __init__(self, root: Path) -> None:
        """Take the folder.

        Raises: `DemoError` where something else is in it.
        """
        root = root.absolute()
        state = root / STATE_FILE
        if root.is_dir() and not state.exists():
            others = sorted({each.name for each in root.iterdir()} - NOT_OURS)
            if others:
                raise DemoError(
                    f"{root} has other things in it ({others[0]}): choose a folder of its own "
                    "for the demo with --folder"
                )
        self.root = places.make_private(root)
        if not state.exists():
            _write_private(state, {})

    @property
    def log(self) -> Path:
        """Where the log goes: the terminal shows what the demo has to say."""
        return places.make_private(self.root / LOG_FILE.parent) / LOG_FILE.name

    @property
    def data_dir(self) -> Path:
        """The archive of the event log."""
        return places.make_private(self.root / ARCHIVE_FOLDER)

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was ever filled in."""
        return not any((self.root / name).exists() for name in OURS)

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that was filled in; None before that is finished."""
        state = json.loads((self.root / STATE_FILE).read_text(encoding="utf-8"))
        return UUID(state["tenant"]) if "tenant" in state else None

    def key_pepper(self) -> str:
        """The secret under which API keys are stored: made once, readable to us alone."""
        return places.secret(places.make_private(self.root / "secrets"), "key-pepper")

    def finish(self, tenant_id: UUID) -> None:
        """Remember that everything is filled in."""
        _write_private(self.root / STATE_FILE, {"tenant": str(tenant_id)})

    def access(self) -> Access | None:
        """How the demo was reached the last time."""
        path = self.root / KEY_FILE
        return Access(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write_access(self, access: Access) -> None:
        """Say how to reach it, to the owner of the folder alone."""
        _write_private(self.root / KEY_FILE, asdict(access))

    def write_environment(self, settings: Settings) -> None:
        """Say where the running engines are, for `aforo doctor`."""
        values = {PREFIX + name.upper(): str(getattr(settings, name)) for name in ENVIRONMENT}
        _write_private(self.root / ENVIRONMENT_FILE, values)

    def forget_environment(self) -> None:
        """The engines are gone."""
        (self.root / ENVIRONMENT_FILE).unlink(missing_ok=True)

    def check_idle(self) -> None:
        """Raise `EngineError` while another demo runs on the folder."""
        places.lock(self.root).close()

    def clear(self) -> None:
        """Delete all that is ours, and nothing else.

        Raises: `EngineError` while another demo runs there.
        """
        with places.lock(self.root):
            # First of all: should this be cut off, what is left is known to be worth nothing.
            _write_private(self.root / STATE_FILE, {})
            for name in OURS:
                path = self.root / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def environment_of(root: Path) -> Mapping[str, str]:
    """The settings of the demo that runs on the folder, by the names of environment variables.

    Raises: `DemoError` where none runs there.
    """
    path = root.absolute() / ENVIRONMENT_FILE
    if not path.exists() or not _is_locked(root / "lock"):
        raise DemoError(
            f"no demo runs on {root}: start it with `aforo demo`, or set AFORO_DATABASE_URL, "
            "AFORO_REDIS_URL, AFORO_CLICKHOUSE_URL and AFORO_KEY_PEPPER to look at servers"
        )
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _write_private(path: Path, content: Mapping[str, str]) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
    draft.replace(path)
