"""Migrations: PostgreSQL by alembic as the schema's owner, ClickHouse by numbered SQL files."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from clickhouse_connect.driver.client import Client
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from aforo.sdk.errors import AforoError
from aforo.storage import clickhouse
from aforo.storage.postgres import APP_ROLE, SYSTEM_ROLE

ROOT = Path(__file__).parents[2]
CLICKHOUSE_FILES = ROOT / "migrations" / "clickhouse"
# Any number will do, as long as every process that migrates takes the same.
MIGRATION_LOCK = 4_613_001


class MigrationError(AforoError):
    """The schema cannot be brought up to date."""

    code = "MIGRATION"


async def migrate(*, owner_database_url: str, database_url: str, clickhouse_url: str) -> None:
    """Bring both databases up to date; two processes that do so at once take turns.

    The login in `database_url` is made where it is missing, and may take on the application's
    and the system's role, which own nothing.
    """
    engine = create_async_engine(owner_database_url, poolclass=NullPool)
    try:
        # The lock is held on a connection of its own while the migrations commit on theirs.
        async with engine.connect() as guard:
            await guard.execute(sa.text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
            await guard.commit()
            async with engine.connect() as connection:
                await connection.run_sync(_upgrade, "head")
                await connection.commit()
                await _grant_roles(connection, database_url)
            await asyncio.to_thread(migrate_clickhouse, clickhouse_url)
    finally:
        await engine.dispose()


async def pending(*, database_url: str, clickhouse_url: str) -> list[str]:
    """Names of the migrations that have not been applied, of both databases."""
    behind = await pending_in_postgres(database_url)
    client = await asyncio.to_thread(clickhouse.connect, clickhouse_url)
    try:
        return behind + await asyncio.to_thread(pending_in_clickhouse, client)
    finally:
        client.close()


async def pending_in_postgres(database_url: str) -> list[str]:
    """Names of PostgreSQL's migrations that have not been applied, in order."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            current = await connection.run_sync(
                lambda raw: MigrationContext.configure(raw).get_current_revision()
            )
    finally:
        await engine.dispose()
    script = ScriptDirectory.from_config(_alembic())
    behind = [f"postgres {item.revision}" for item in script.iterate_revisions("head", current)]
    return behind[::-1]


def pending_in_clickhouse(client: Client) -> list[str]:
    """Names of ClickHouse's files that have not been applied, in order."""
    done = _applied(client)
    return [f"clickhouse {file.stem}" for file in _files() if file.stem not in done]


def migrate_clickhouse(url: str) -> None:
    """Apply the numbered files that are not in `schema_migrations` yet, in order.

    A file that failed half-way is run again from its start, so statements that create are
    skipped where their object stands already.
    """
    client = clickhouse.connect(url)
    try:
        client.command(
            "CREATE TABLE IF NOT EXISTS schema_migrations (name String, applied_at DateTime) "
            "ENGINE = MergeTree ORDER BY name"
        )
        done = _applied(client)
        for file in _files():
            if file.stem in done:
                continue
            for statement in _statements(file):
                client.command(_repeatable(statement))
            client.command(
                "INSERT INTO schema_migrations VALUES ({name:String}, now())",
                parameters={"name": file.stem},
            )
    finally:
        client.close()


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(_alembic(connection), revision)


def _alembic(connection: Connection | None = None) -> Config:
    config = Config(ROOT / "alembic.ini")
    config.attributes["connection"] = connection
    return config


async def _grant_roles(connection: AsyncConnection, database_url: str) -> None:
    url = make_url(database_url)
    if not url.username:
        raise MigrationError("AFORO_DATABASE_URL must name the login that the application uses")
    login = unquote(url.username)
    known = await connection.scalar(
        sa.text("SELECT 1 FROM pg_roles WHERE rolname = :login"), {"login": login}
    )
    quoted = '"' + login.replace('"', '""') + '"'
    if not known:
        password = "'" + str(url.password or "").replace("'", "''") + "'"
        await connection.exec_driver_sql(f"CREATE ROLE {quoted} LOGIN PASSWORD {password}")
    await connection.exec_driver_sql(f"GRANT {APP_ROLE}, {SYSTEM_ROLE} TO {quoted}")
    # Readable, so that `aforo doctor` can say which migrations are missing.
    await connection.exec_driver_sql(f"GRANT SELECT ON alembic_version TO {quoted}")
    await connection.commit()


def _applied(client: Client) -> set[str]:
    known = client.query("EXISTS TABLE schema_migrations").first_row
    if not known or not known[0]:
        return set()
    return {row[0] for row in client.query("SELECT name FROM schema_migrations").result_rows}


def _files() -> list[Path]:
    return sorted(CLICKHOUSE_FILES.glob("[0-9]*.sql"))


def _statements(file: Path) -> list[str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def _repeatable(statement: str) -> str:
    for kind in ("TABLE", "VIEW"):
        statement = statement.replace(f"CREATE {kind} ", f"CREATE {kind} IF NOT EXISTS ", 1)
    return statement
