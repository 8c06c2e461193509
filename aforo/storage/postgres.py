"""PostgreSQL: the pools of a process, and the session that knows whose rows it may touch."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    ORMExecuteState,
    Session,
    SessionTransaction,
    UOWTransaction,
    with_loader_criteria,
)

from aforo.storage.lately import CHANGES, WATCHED
from aforo.storage.statements import trace_statements
from aforo.storage.tables import TenantRow, TenantTable
from aforo.telemetry import tracing

APP_ROLE = "aforo_app"
SYSTEM_ROLE = "aforo_system"

STATEMENT_TIMEOUT_MS = 60_000
CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 10
_PLAIN = re.compile(r"[\w:.+-]+", re.ASCII)
_BEGIN = "BEGIN;"
"""How asyncpg begins a transaction whose isolation was not chosen."""


class TenantSession(Session):
    """A session that is about the tenant in `info["tenant_id"]`, or, without one, about the
    system's few tables under the system role. `info["told"]` are PostgreSQL's settings for the
    time of its transaction."""


class _Connection(asyncpg.Connection):
    """Sends with BEGIN what the transaction is to be told: one way there and back, not two."""

    __slots__ = ("opening",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opening = ""

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        if query == _BEGIN and self.opening:
            query, self.opening = query + self.opening, ""
        return await super().execute(query, *arguments, **options)


def connect(
    url: str, *, role: str, connections_max: int, idle_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> AsyncEngine:
    """Open a pool whose connections have taken on `role`; the login itself owns nothing.

    PostgreSQL ends a transaction in which it was asked nothing for `idle_timeout_ms`: whoever is
    frozen in the middle of one holds up all others.
    """
    engine = create_async_engine(
        url,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        hide_parameters=True,  # Names and addresses of customers are none of the log's business.
        connect_args={
            "async_creator_fn": _reach,
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "server_settings": {
                "role": role,
                "application_name": f"aforo:{role}",
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "idle_in_transaction_session_timeout": str(idle_timeout_ms),
                "timezone": "UTC",
            },
        },
    )
    if tracing.is_on():
        trace_statements(engine.sync_engine)
    return engine


async def ping(engine: AsyncEngine) -> None:
    """Raise where PostgreSQL cannot be reached."""
    async with engine.connect() as connection:
        await connection.execute(sa.text("SELECT 1"))


def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions over a pool; their rows stay readable after the commit."""
    return async_sessionmaker(engine, sync_session_class=TenantSession, expire_on_commit=False)


@asynccontextmanager
async def listening(
    engine: AsyncEngine, channel: str, hear: Callable[[str], None]
) -> AsyncIterator[asyncpg.Connection]:
    """Have `hear` called with what is told on a channel, on a connection of its own, which is
    given: whoever listens has to see to it that it lives."""
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None, "a connection that was just made has a driver"

        def heard(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            hear(payload)

        await driver.add_listener(channel, heard)
        try:
            yield driver
        finally:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if not driver.is_closed():
                    await driver.remove_listener(channel, heard)


async def tell(db: AsyncSession, settings: Mapping[str, str]) -> None:
    """Change what a transaction that has begun was told."""
    connection = await db.connection()
    await connection.exec_driver_sql(_setting(settings))


async def _reach(*address: Any, **options: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(*address, connection_class=_Connection, **options)
    except OSError as error:
        # A socket that is missing or a name that nobody knows: the server is away, no file is.
        raise ConnectionError(f"{error}") from error


@event.listens_for(TenantSession, "after_begin")
def _open(session: Session, transaction: SessionTransaction, connection: sa.Connection) -> None:
    """Before the first statement, which sends BEGIN, and again for each savepoint."""
    if not transaction.nested:
        driver: Any = connection.connection.driver_connection
        driver.opening = _setting(session.info.get("told", {}))


def _setting(settings: Mapping[str, str]) -> str:
    if not settings:
        return ""
    calls = (f"set_config('{name}', '{_quoted(value)}', true)" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


def _quoted(value: str) -> str:
    assert _PLAIN.fullmatch(value), "only ids and moments are told, and no caller's words"
    return value


@event.listens_for(TenantSession, "do_orm_execute")
def _add_the_tenant(state: ORMExecuteState) -> None:
    """Add `tenant_id = :tenant` to every statement: the first wall, beside row security. In the
    scope of one customer add that as well."""
    tenant_id = state.session.info.get("tenant_id")
    if tenant_id is None or not (state.is_select or state.is_update or state.is_delete):
        return
    state.statement = state.statement.options(
        with_loader_criteria(
            TenantRow, lambda table: _owner(table) == tenant_id, include_aliases=True
        )
    )
    info = state.session.info
    if (customer_id := info.get("customer_id")) is not None:
        if "only" not in info:
            info["only"] = _only(tenant_id, customer_id)
        state.statement = state.statement.options(*info["only"])


def _owner(table: Any) -> Any:
    # SQLAlchemy tries the criterion on the unmapped base class once, which has no column.
    return getattr(table, "tenant_id", sa.null())


@event.listens_for(TenantSession, "do_orm_execute")
def _note_statement(state: ORMExecuteState) -> None:
    """What an UPDATE or DELETE changes past the session's own rows."""
    if (state.is_update or state.is_delete) and state.bind_mapper is not None:
        _note_change(state.session, state.bind_mapper.local_table)


@event.listens_for(TenantSession, "after_flush")
def _note_rows(session: Session, _flush: UOWTransaction) -> None:
    for row in (*session.new, *session.dirty, *session.deleted):
        _note_change(session, sa.inspect(row).mapper.local_table)


def _note_change(session: Session, table: Any) -> None:
    if table.name in WATCHED:
        session.info["changed"] = True


@event.listens_for(TenantSession, "after_commit")
def _tell_change(session: Session) -> None:
    """Also after a savepoint, which is too early, and then again after the whole."""
    if session.info.get("changed") and (tenant_id := session.info.get("tenant_id")) is not None:
        CHANGES.note(tenant_id)


def _only(tenant_id: UUID, customer_id: UUID) -> list[Any]:
    """Criteria for every table that leave the rows of one customer, and what no customer's is."""
    return [
        with_loader_criteria(
            kind,
            _in_portal(kind, inspect(kind).local_table, tenant_id, customer_id),
            include_aliases=True,
        )
        for kind in _kinds().values()
        if not kind.__portal__.shows_all
    ]


def _in_portal(kind: type[TenantRow], columns: Any, tenant_id: UUID, customer_id: UUID) -> Any:
    portal = kind.__portal__
    if portal.column is None:
        return sa.true() if portal.shows_all else sa.false()
    column = columns.c[portal.column]
    if portal.table is None:
        return column == customer_id
    parent = _kinds()[portal.table]
    rows = inspect(parent).local_table.alias()
    inside = _in_portal(parent, rows, tenant_id, customer_id)
    return column.in_(sa.select(rows.c[portal.of]).where(rows.c.tenant_id == tenant_id, inside))


def _kinds() -> dict[str, type[TenantRow]]:
    """The tables of rows by name."""
    found: list[type[TenantRow]] = [TenantRow]
    for kind in found:
        found += kind.__subclasses__()
    return {str(kind.__tablename__): kind for kind in found if hasattr(kind, "__table__")}


@event.listens_for(TenantSession, "before_flush")
def _stamp(session: Session, _flush: UOWTransaction, _instances: object) -> None:
    """Give new rows the scope's tenant and moment; a row of another tenant is a bug."""
    if (tenant_id := session.info.get("tenant_id")) is None:
        return
    for row in session.new:
        if isinstance(row, TenantRow) and row.tenant_id is None:
            row.tenant_id = tenant_id
        if isinstance(row, TenantTable) and row.created_at is None:
            row.created_at = session.info["now"]
        _assert_own(row, tenant_id)


@event.listens_for(TenantRow, "load", propagate=True)
def _check_loaded(row: TenantRow, context: Any) -> None:
    """The last wall: a foreign row that came this far is a bug, and goes no further."""
    if (tenant_id := context.session.info.get("tenant_id")) is not None:
        _assert_own(row, tenant_id)


def _assert_own(row: object, tenant_id: object) -> None:
    owner = getattr(row, "tenant_id", tenant_id)
    if owner not in {None, tenant_id}:
        raise AssertionError(f"a {type(row).__name__} of another tenant in this tenant's scope")
