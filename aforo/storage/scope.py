"""The one door: a scope is one tenant, one transaction, one moment."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from aforo.plugins import Registry
from aforo.sdk.ids import CustomerId, TenantId
from aforo.settings import Settings, SettingsError
from aforo.storage import clickhouse, postgres, redis
from aforo.storage.actors import INSTALLATION, Actor
from aforo.storage.addresses import Walls
from aforo.storage.audit import Outcome, Thing, record, write_trail
from aforo.storage.background import Background
from aforo.storage.buckets import Buckets
from aforo.storage.clock import Clock, SystemClock
from aforo.storage.egress import Egress
from aforo.storage.event_types import MOVE_FIGURES, EventType
from aforo.storage.failpoints import reached
from aforo.storage.faults import engine_faults
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.lately import Lately
from aforo.storage.outbox import OutboxEvent, event_row
from aforo.storage.refusals import Refusals
from aforo.storage.remembered import CHANNEL, Remembered
from aforo.storage.secrets import DataKey, MasterKey, WrappedKey
from aforo.storage.tables import new_id
from aforo.storage.trail import follow
from aforo.telemetry import tracing
from aforo.telemetry.metrics import TRANSACTIONS, timed
from aforo.telemetry.tracing import span

if TYPE_CHECKING:
    from aforo.storage.topic import Topic

APP_CONNECTIONS_MAX = 20
SYSTEM_CONNECTIONS_MAX = 10
SYSTEM_IDLE_TIMEOUT_MS = 20_000
"""Of the transactions that everybody's events wait for."""
PUBLISHED_AT_ONCE = 500
CLOSE_SECONDS_MAX = 15.0
"""For each of the things that a process closes at its end."""

_THIS_TRANSACTION = sa.cast(sa.func.pg_current_xact_id(), sa.String)
EVERYONE = "everyone"
"""In place of a customer's id: rows of all customers."""

GATES = "gates"
"""The live stream of the customers about whom decisions have changed."""
_ACCOUNT = "aforo.account_id"
_NO_TENANT = TenantId(UUID(int=0))

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Scope:
    """One tenant, one transaction, one moment: all that a query or command may touch."""

    tenant_id: TenantId
    customer_id: CustomerId | None
    """The one customer whose data is in scope, for its portal; None for everyone's."""
    now: datetime
    db: AsyncSession
    events: clickhouse.TenantEvents
    live: redis.TenantLive
    plugins: Registry
    master_key: MasterKey

    async def enter_account(self, account_id: UUID) -> None:
        """See the row of this account too, in this transaction: for what must happen to a member
        and to the member's account together."""
        await postgres.tell(self.db, {_ACCOUNT: str(account_id)})

    async def data_key(self) -> DataKey:
        """The key for the tenant's secrets at rest, made at its first use.

        `data_key.seal(secret, Place("table", "column", row.id))` gives what to store.
        """
        query = sa.select(WrappedKey)
        row: WrappedKey | None = await self.db.scalar(query)
        if row is None:
            wrapped = self.master_key.new_wrapped(self.tenant_id)
            made = insert(WrappedKey).values(wrapped=wrapped)
            await self.db.execute(made.on_conflict_do_nothing())  # Another made it meanwhile.
            row = await self.db.scalar(query)
        assert row is not None, "there is one by now"
        return self.master_key.unwrap(row.wrapped, self.tenant_id)

    async def enqueue(
        self,
        name: JobName,
        *,
        unique_key: str | sa.ColumnElement[str] | None = None,
        run_at: datetime | None = None,
        **arguments: Any,
    ) -> None:
        """Ask for a background job; it exists only if this transaction commits.

        While a job of the same name and `unique_key` waits, asking again changes nothing.
        """
        row = insert(Job).values(
            id=new_id(),
            name=name,
            arguments=arguments,
            unique_key=unique_key,
            state=JobState.QUEUED,
            run_at=run_at or self.now,
            tries=0,
            traceparent=tracing.traceparent(),
        )
        await self.db.execute(row.on_conflict_do_nothing())

    async def tell_gates(self, customer_id: UUID) -> None:
        """What entitlement checks decide about a customer changes once this commits: every process
        forgets what it remembers, and gateways that follow the changes are told."""
        about = f"{self.tenant_id}:{customer_id}"
        await self.db.execute(sa.select(sa.func.pg_notify(CHANNEL, about)))
        self.live.announce(GATES, {"customerId": str(customer_id)})

    @property
    def actor(self) -> Actor | None:
        """Who opened the scope; None where nobody said."""
        actor: Actor | None = self.db.sync_session.info.get("actor")
        return actor

    async def record(
        self,
        action: str,
        *things: Thing,
        by: Actor | None = None,
        outcome: Outcome = Outcome.DONE,
        reason: str | None = None,
    ) -> None:
        """Write an entry of the audit log about something that is no mutation, such as a sign-in.

        No secret may be among its values. `by` is the scope's actor unless given; where nobody
        opened it by name, whoever runs this installation.
        """
        actor = by or self.actor or INSTALLATION
        await record(self.db, actor, action, *things, outcome=outcome, reason=reason)

    async def publish(self, kind: EventType, *, object_id: UUID, data: Mapping[str, Any]) -> None:
        """Tell the world what has happened to an object; it is told only if this commits.

        `data` has the members that `SHAPES` lists for the type, as plain values.
        """
        await self.publish_all(kind, [(object_id, data)])

    async def publish_all(
        self, kind: EventType, events: Sequence[tuple[UUID, Mapping[str, Any]]]
    ) -> None:
        """Like `publish`, for many objects at once."""
        if not events:
            return
        rows = [event_row(new_id(), kind, object_id, data, self.now) for object_id, data in events]
        for start in range(0, len(rows), PUBLISHED_AT_ONCE):
            await self.db.execute(sa.insert(OutboxEvent), rows[start : start + PUBLISHED_AT_ONCE])
        if kind in MOVE_FIGURES:
            self.live.announce("kpis", {"after": kind.value})
        # One per transaction, and not one that waits already: it could begin, and look, before
        # this transaction commits.
        await self.enqueue(JobName.FAN_OUT_EVENTS, unique_key=_THIS_TRANSACTION)


@dataclass(frozen=True, slots=True)
class AccountScope:
    """One account, one transaction, one moment: its row, its memberships and its sessions."""

    account_id: UUID
    now: datetime
    db: AsyncSession


@dataclass(frozen=True, slots=True)
class Runtime:
    """What one process shares: connection pools, the way out, the plugin registry, the clock."""

    settings: Settings
    plugins: Registry
    clock: Clock
    app: AsyncEngine
    cross_tenant: AsyncEngine
    events: clickhouse.Events
    live: redis.Live
    master_key: MasterKey
    egress: Egress
    background: Background
    lately: Lately
    buckets: Buckets
    app_sessions: async_sessionmaker[AsyncSession]
    system_sessions: async_sessionmaker[AsyncSession]
    topic: "Topic | None" = None
    """Where events go through a topic on their way to PostgreSQL."""
    refusals: Refusals = field(default_factory=Refusals)
    common: dict[Hashable, Any] = field(default_factory=dict)
    """What the requests of this process have in common."""
    remembered: Remembered = field(default_factory=Remembered)

    @asynccontextmanager
    async def scope(
        self,
        tenant_id: TenantId,
        by: Actor | None = None,
        *,
        customer_id: CustomerId | None = None,
    ) -> AsyncIterator[Scope]:
        """Open a transaction that can see only this tenant; commit unless it raises.

        What an actor changes in an operation that has a name is written into the audit log.
        With a customer it sees of the rows of customers only this one's.

        Raises: `Unavailable` where PostgreSQL or ClickHouse cannot be reached.
        """
        live = self.live.of(tenant_id)
        now = self.clock.now()
        with engine_faults(), timed(TRANSACTIONS, "app"), span("scope"):
            async with self.app_sessions.begin() as db:
                db.sync_session.info.update(
                    tenant_id=tenant_id,
                    customer_id=customer_id,
                    now=now,
                    told=_told(tenant_id, now, customer_id),
                )
                if by is not None:
                    follow(db.sync_session, by)
                yield Scope(
                    tenant_id=tenant_id,
                    customer_id=customer_id,
                    now=now,
                    db=db,
                    events=self.events.of(tenant_id, customer_id),
                    live=live,
                    plugins=self.plugins,
                    master_key=self.master_key,
                )
                await write_trail(db)
        reached("scope.committed")
        await live.flush()

    @asynccontextmanager
    async def founded(self, scope: Scope, tenant_id: TenantId) -> AsyncIterator[Scope]:
        """In the transaction of a scope be in the scope of a tenant that is new in it: for making
        both or neither. Not for one that exists, whose rows are no other tenant's affair.

        Each of the two has what was changed in it in its own audit log.
        """
        info = scope.db.sync_session.info
        await write_trail(scope.db)
        await scope.db.flush()
        info["tenant_id"] = tenant_id
        try:
            await postgres.tell(scope.db, _told(tenant_id, scope.now))
            yield dataclasses.replace(
                scope,
                tenant_id=tenant_id,
                events=self.events.of(tenant_id),
                live=self.live.of(tenant_id),  # Nobody listens to it yet.
            )
            await write_trail(scope.db)
            await scope.db.flush()
            # If it raises the transaction is over, and what it was told with it.
            await postgres.tell(scope.db, _told(scope.tenant_id, scope.now))
        finally:
            for row in list(scope.db.sync_session):
                if getattr(row, "tenant_id", None) == tenant_id:
                    scope.db.expunge(row)
            info["tenant_id"] = scope.tenant_id

    @asynccontextmanager
    async def account(self, account_id: UUID) -> AsyncIterator[AccountScope]:
        """Open a transaction that can see only this account, with its own rows in every tenant;
        commit unless it raises.

        Raises: `Unavailable` where PostgreSQL cannot be reached.
        """
        now = self.clock.now()
        with engine_faults():
            async with self.app_sessions.begin() as db:
                db.sync_session.info["told"] = {
                    **_told(_NO_TENANT, now),
                    _ACCOUNT: str(account_id),
                }
                yield AccountScope(account_id, now, db)

    @asynccontextmanager
    async def system(self, reason: str) -> AsyncIterator[AsyncSession]:
        """Open a transaction across tenants, under a role that sees only the system's tables.

        `reason` says in the log of a failure who asked. Each row written names its tenant.
        """
        with engine_faults(), timed(TRANSACTIONS, "system"), span("system", reason=reason):
            try:
                async with self.system_sessions.begin() as db:
                    yield db
            except sa.exc.ProgrammingError:
                log.exception("the system role was refused", reason=reason)
                raise

    async def close(self) -> None:
        """Finish what runs beside requests, and give every connection back.

        An engine that hangs holds nobody up: what takes too long is left to the end of the process.
        """
        for name, close in (
            ("background", self.background.close),
            ("remembered", self.remembered.close),
            ("app", self.app.dispose),
            ("cross_tenant", self.cross_tenant.dispose),
            ("live", self.live.close),
            ("buckets", self.buckets.close),
        ):
            try:
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await close()
            except TimeoutError:
                log.warning("was not closed in time", what=name)
        if self.topic is not None:
            await self.topic.close()
        self.events.close()


def open_runtime(settings: Settings, plugins: Registry, clock: Clock | None = None) -> Runtime:
    """Make the pools of a process. Nothing is connected before the first use."""
    app = postgres.connect(
        settings.database_url, role=postgres.APP_ROLE, connections_max=APP_CONNECTIONS_MAX
    )
    cross_tenant = postgres.connect(
        settings.database_url,
        role=postgres.SYSTEM_ROLE,
        connections_max=SYSTEM_CONNECTIONS_MAX,
        idle_timeout_ms=SYSTEM_IDLE_TIMEOUT_MS,
    )
    return Runtime(
        settings=settings,
        plugins=plugins,
        clock=clock or SystemClock(),
        app=app,
        cross_tenant=cross_tenant,
        events=clickhouse.Events(settings.clickhouse_url),
        live=redis.Live(settings.redis_url),
        master_key=MasterKey.of(settings),
        egress=Egress(
            Walls(
                production=settings.production,
                allow_loopback=settings.allow_loopback_calls,
            )
        ),
        background=Background(),
        lately=Lately(),
        buckets=Buckets(settings.redis_url),
        app_sessions=postgres.sessions(app),
        system_sessions=postgres.sessions(cross_tenant),
        topic=_topic(settings),
    )


def _topic(settings: Settings) -> "Topic | None":
    if not settings.kafka_brokers:
        return None
    try:
        from aforo.storage.topic import Topic  # noqa: PLC0415 — it needs an extra.
    except ModuleNotFoundError as error:
        raise SettingsError(
            "AFORO_KAFKA_BROKERS needs Kafka's client: run `pip install 'aforo[kafka]'`"
        ) from error
    return Topic(settings)


def _told(
    tenant_id: TenantId, now: datetime, customer_id: CustomerId | None = None
) -> dict[str, str]:
    """What PostgreSQL's policies and defaults know of a transaction."""
    return {
        "aforo.tenant_id": str(tenant_id),
        "aforo.now": now.isoformat(),
        "aforo.customer_id": EVERYONE if customer_id is None else str(customer_id),
    }
