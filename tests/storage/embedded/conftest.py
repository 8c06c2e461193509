"""Real engines for the tests of the embedded engines, and a look at the machine's processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from aforo.storage.embedded import EmbeddedEngines, clickhouse
from aforo.storage.embedded.clickhouse import ClickHouse
from aforo.storage.embedded.places import make_private


@pytest.fixture
def processes_of() -> Callable[[Path], list[int]]:
    """Living processes that have a folder in their command line; zombies have none."""

    def found(folder: Path) -> list[int]:
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(folder).encode() in command:
                    pids.append(int(entry.name))
        return pids

    return found


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEngines]:
    folder = tmp_path_factory.mktemp("engines") / "aforo"
    with EmbeddedEngines.start(folder, fsync=False) as running:
        yield running


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """ClickHouse alone."""
    root = tmp_path_factory.mktemp("clickhouse")
    for name in ("log", "secrets"):
        make_private(root / name)
    running = clickhouse.start(root)
    yield running
    running.stop()


@pytest.fixture
def client(front: ClickHouse) -> Iterator[Client]:
    # Without a session of its own, as Aforo has it, the client may ask from several threads.
    with clickhouse_connect.get_client(dsn=front.url, autogenerate_session_id=False) as connected:
        yield connected
