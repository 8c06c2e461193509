"""Whether a process may start on these databases: reachable, migrated, and as a harmless login."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import sqlalchemy as sa
import structlog
from anyio import to_thread
from clickhouse_connect.driver.exceptions import ClickHouseError
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aforo.plugins import load_registry
from aforo.sdk.errors import AforoError, Unavailable
from aforo.settings import Settings
from aforo.storage import clickhouse
from aforo.storage.faults import engine_faults
from aforo.storage.migrate import migrate, pending_in_clickhouse, pending_in_postgres
from aforo.storage.scope import Runtime, open_runtime

NAMES_MAX = 3
log = structlog.get_logger()


class NotReady(AforoError):
    """The databases are not as this process needs them; the sentence says what to do."""

    code = "NOT_READY"


@dataclass(frozen=True, slots=True)
class Login:
    """What the login in AFORO_DATABASE_URL could do, by itself or by a role that it may take."""

    server_version: str
    name: str
    is_superuser: bool
    passes_row_security: bool
    owns_tables: bool

    @property
    def fault(self) -> str | None:
        """Why it must not be used: each of these would open the wall between the tenants."""
        if self.is_superuser:
            why = "is a superuser, or may become one"
        elif self.passes_row_security:
            why = "may bypass row-level security"
        elif self.owns_tables:
            why = "owns tables, or may act as their owner, and could take their policies off"
        else:
            return None
        return (
            f"the login {self.name} in AFORO_DATABASE_URL {why}: use one that owns nothing "
            "(`aforo migrate` makes it), and keep the owner for AFORO_OWNER_DATABASE_URL"
        )


@dataclass(frozen=True, slots=True)
class Projection:
    """What ClickHouse is, and what it lacks."""

    server_version: str
    missing: list[str]
    """Names of the migrations that have not been applied."""


@asynccontextmanager
async def ready_runtime(
    settings: Settings, *, plugin_files: Sequence[Path] = ()
) -> AsyncIterator[Runtime]:
    """The runtime of a process on its own, once its databases are checked as by `check_ready`."""
    plugins = load_registry(files=plugin_files)
    await check_ready(database_url=settings.database_url, clickhouse_url=settings.clickhouse_url)
    runtime = open_runtime(settings, plugins)
    try:
        yield runtime
    finally:
        await runtime.close()


async def check_ready(*, database_url: str, clickhouse_url: str) -> None:
    """Raise `NotReady` unless PostgreSQL answers and keeps this login in bounds, and both
    databases are migrated. ClickHouse may be away: events are taken without it, and wait.
    """
    if fault := (await login(database_url)).fault:
        raise NotReady(fault)
    missing = await pending_in_postgres(database_url)
    try:
        missing += (await projection(clickhouse_url)).missing
    except Unavailable as error:
        log.warning("starting without ClickHouse", error=error.message)
    if missing:
        raise NotReady(f"{named(missing)}: run `aforo migrate`")


async def bring_up_to_date(settings: Settings) -> list[str]:
    """Apply the migrations that are missing, as the owner; their names.

    Raises: `NotReady`, also where one of the databases cannot be reached.
    """
    owner_url = settings.owner_database_url
    if owner_url is None:
        raise NotReady(
            "AFORO_OWNER_DATABASE_URL must be set to migrate: the login that owns the schema"
        )
    try:
        with _worded(owner_url, "AFORO_OWNER_DATABASE_URL"):
            missing = await pending_in_postgres(owner_url)
            missing += (await projection(settings.clickhouse_url)).missing
            await migrate(
                owner_database_url=owner_url,
                database_url=settings.database_url,
                clickhouse_url=settings.clickhouse_url,
            )
    except Unavailable as error:
        raise NotReady(
            "ClickHouse cannot be reached: start it, or correct AFORO_CLICKHOUSE_URL"
        ) from error
    return missing


def named(missing: list[str]) -> str:
    """Missing migrations as the beginning of a sentence."""
    shown = ", ".join(missing[:NAMES_MAX])
    more = f" and {len(missing) - NAMES_MAX} more" if len(missing) > NAMES_MAX else ""
    noun = "migration has" if len(missing) == 1 else "migrations have"
    return f"{len(missing)} {noun} not been applied ({shown}{more})"


async def login(database_url: str) -> Login:
    """Who we are to PostgreSQL, and what that login could do.

    Raises: `NotReady` where it cannot be reached or lets us not in.
    """
    engine = create_async_engine(database_url, poolclass=NullPool)
    try:
        with _worded(database_url, "AFORO_DATABASE_URL"):
            async with engine.connect() as connection:
                row = (await connection.execute(_LOGIN)).one()
    finally:
        await engine.dispose()
    return Login(*row)


@contextmanager
def _worded(database_url: str, variable: str) -> Iterator[None]:
    """Raise `NotReady` where PostgreSQL is away or refuses the login, or what the login does."""
    url = make_url(database_url)
    who = f"PostgreSQL on {url.host or url.query.get('host', 'its socket')}"
    try:
        yield
    except sa.exc.DBAPIError as error:
        refusal = error.orig.__cause__ if error.orig else None
        if error.connection_invalidated or isinstance(refusal, OSError):
            raise _away(who, variable) from error
        if isinstance(refusal, asyncpg.InsufficientPrivilegeError):
            raise NotReady(
                f"{who} does not let {url.username} do what is needed: {refusal}; "
                f"name the owner of the database in {variable}"
            ) from error
        if not isinstance(refusal, _NO_ENTRY):
            raise
        raise NotReady(
            f"{who} does not let {url.username} in: {refusal}; correct {variable}, "
            "or run `aforo migrate`, which makes the application's login"
        ) from error
    except OSError as error:
        raise _away(who, variable) from error


def _away(who: str, variable: str) -> NotReady:
    return NotReady(f"{who} cannot be reached: start it, or correct {variable}")


async def projection(clickhouse_url: str) -> Projection:
    """What ClickHouse is, and what it lacks.

    Raises: `Unavailable` where it gives no answer, `NotReady` where it lets us not in.
    """
    try:
        with engine_faults():
            return await to_thread.run_sync(
                _look_at_clickhouse, clickhouse_url, abandon_on_cancel=True
            )
    except ClickHouseError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise NotReady(
            f"ClickHouse refuses AFORO_CLICKHOUSE_URL: {first_line}; correct it, or let it in"
        ) from error


def _look_at_clickhouse(url: str) -> Projection:
    client = clickhouse.connect(url)
    try:
        return Projection(str(client.server_version), pending_in_clickhouse(client))
    finally:
        client.close()


_NO_ENTRY = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_LOGIN = sa.text(
    "SELECT current_setting('server_version'), session_user::text, "
    "EXISTS (SELECT FROM pg_roles AS r WHERE r.rolsuper "
    "AND pg_has_role(session_user, r.oid, 'MEMBER')), "
    "EXISTS (SELECT FROM pg_roles AS r WHERE r.rolbypassrls "
    "AND pg_has_role(session_user, r.oid, 'MEMBER')), "
    "EXISTS (SELECT FROM pg_class AS c WHERE c.relkind IN ('r', 'p') "
    "AND c.relnamespace = to_regnamespace('public') "
    "AND pg_has_role(session_user, c.relowner, 'MEMBER'))"
)
