"""What a process checks before it starts on a database: can it work there, and can it do harm."""

import pytest

from aforo.storage.embedded import EmbeddedEngines
from aforo.storage.readiness import Login, NotReady, check_ready, login, named
from aforo.storage.scope import Runtime

HARMLESS = Login("18", "aforo", is_superuser=False, passes_row_security=False, owns_tables=False)


async def test_the_applications_login_may_start(runtime: Runtime) -> None:
    assert (await login(runtime.settings.database_url)).fault is None
    await check_ready(
        database_url=runtime.settings.database_url,
        clickhouse_url=runtime.settings.clickhouse_url,
    )


async def test_the_owner_may_not(runtime: Runtime, engines: EmbeddedEngines) -> None:
    found = await login(engines.owner_database_url)
    assert (found.name, found.owns_tables) == ("aforo_owner", True)
    with pytest.raises(NotReady, match="owns tables, or may act as their owner"):
        await check_ready(
            database_url=engines.owner_database_url,
            clickhouse_url=runtime.settings.clickhouse_url,
        )


@pytest.mark.parametrize(
    ("powers", "why"),
    [
        ({"is_superuser": True, "passes_row_security": True, "owns_tables": True}, "a superuser"),
        ({"passes_row_security": True, "owns_tables": True}, "may bypass row-level security"),
        ({"owns_tables": True}, "owns tables"),
    ],
)
def test_each_power_that_opens_a_wall_is_a_fault(powers: dict[str, bool], why: str) -> None:
    powerful = Login(
        "18",
        "admin",
        is_superuser=powers.get("is_superuser", False),
        passes_row_security=powers.get("passes_row_security", False),
        owns_tables=powers.get("owns_tables", False),
    )
    assert HARMLESS.fault is None
    assert powerful.fault is not None
    assert powerful.fault.startswith("the login admin in AFORO_DATABASE_URL ")
    assert why in powerful.fault


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql+asyncpg://aforo:x@127.0.0.1:1/aforo", "127.0.0.1 cannot be reached"),
        ("postgresql+asyncpg://aforo:x@nowhere.invalid/aforo", "nowhere.invalid cannot be reached"),
    ],
)
async def test_a_server_that_is_away_is_named(url: str, why: str) -> None:
    with pytest.raises(NotReady, match=why):
        await login(url)


async def test_a_database_that_is_not_there_is_named(runtime: Runtime) -> None:
    url = runtime.settings.database_url.replace("/aforo?", "/elsewhere?")
    with pytest.raises(NotReady, match='"elsewhere" does not exist'):
        await login(url)


async def test_clickhouse_may_be_away_at_the_start(runtime: Runtime) -> None:
    await check_ready(
        database_url=runtime.settings.database_url, clickhouse_url="http://127.0.0.1:1/aforo"
    )


async def test_a_password_that_clickhouse_refuses_is_told(runtime: Runtime) -> None:
    scheme, _, rest = runtime.settings.clickhouse_url.partition("://")
    url = f"{scheme}://aforo:wrong@{rest.partition('@')[2]}"
    with pytest.raises(NotReady, match="ClickHouse refuses AFORO_CLICKHOUSE_URL"):
        await check_ready(database_url=runtime.settings.database_url, clickhouse_url=url)


def test_many_missing_migrations_are_told_in_short() -> None:
    assert named(["postgres 0001"]) == "1 migration has not been applied (postgres 0001)"
    assert named(["a", "b", "c", "d", "e"]) == (
        "5 migrations have not been applied (a, b, c and 2 more)"
    )
