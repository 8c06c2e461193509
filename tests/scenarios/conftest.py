"""Servers for the processes of a module: engines on TCP ports, migrated by the command."""

from collections.abc import Iterator

import pytest

from aforo.storage.embedded import EmbeddedEngines
from tests.scenarios.processes import run

PEPPER = "a pepper for tests, long enough to be one"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """PostgreSQL and Redis on TCP ports with passwords, ClickHouse over HTTP: where they are."""
    folder = tmp_path_factory.mktemp("servers")
    with EmbeddedEngines.start(folder, tcp=True, fsync=False) as engines:
        assert "@127.0.0.1:" in engines.database_url
        assert "@127.0.0.1:" in engines.redis_url
        yield {
            "AFORO_DATABASE_URL": engines.database_url,
            "AFORO_OWNER_DATABASE_URL": engines.owner_database_url,
            "AFORO_REDIS_URL": engines.redis_url,
            "AFORO_CLICKHOUSE_URL": engines.clickhouse_url,
            "AFORO_KEY_PEPPER": PEPPER,
            "AFORO_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        }


@pytest.fixture(scope="module")
def migrated(environment: dict[str, str]) -> dict[str, str]:
    """The same, migrated by the command."""
    early = run("serve", environment=environment)
    assert early.returncode == 1
    assert "run `aforo migrate`" in early.stderr

    first = run("migrate", environment=environment)
    assert first.returncode == 0, first.stderr
    assert "applied postgres " in first.stdout
    assert "applied clickhouse " in first.stdout
    return environment
