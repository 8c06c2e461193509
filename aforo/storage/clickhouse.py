"""ClickHouse: the projection of the event log, read through views that demand a tenant."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from anyio import CapacityLimiter, to_thread
from clickhouse_connect.driver.client import Client

from aforo.sdk.ids import CustomerId, TenantId
from aforo.telemetry.metrics import CLICKHOUSE_CALLS, timed
from aforo.telemetry.tracing import span

QUERIES_AT_ONCE = 8
QUERY_TIMEOUT_SECONDS = 120
STATEMENT_BYTES_MAX = 64 * 1024 * 1024
EVERY_PAYER = "00000000-0000-0000-0000-000000000000"
"""In place of a customer: the events of all."""
T = TypeVar("T")


class Events:
    """The process's client of ClickHouse. The driver blocks, so calls run in threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Client | None = None
        self._limiter: CapacityLimiter | None = None

    def of(self, tenant_id: TenantId, customer_id: CustomerId | None = None) -> "TenantEvents":
        """What one tenant may read; of one customer alone where one is named."""
        return TenantEvents(self, tenant_id, customer_id)

    async def run(self, call: Callable[[Client], T]) -> T:
        """Do something with the client, in a thread of its own.

        Raises: clickhouse_connect's errors; `OperationalError` where the engine is away.
        """
        if self._limiter is None:
            self._limiter = CapacityLimiter(QUERIES_AT_ONCE)
        with timed(CLICKHOUSE_CALLS), span("clickhouse", db_system="clickhouse"):
            return await to_thread.run_sync(
                lambda: call(self._connected()), limiter=self._limiter, abandon_on_cancel=True
            )

    async def ping(self) -> None:
        """Raise where ClickHouse cannot be reached."""
        await self.run(lambda client: client.query("SELECT 1"))

    async def insert_packed(
        self, statement: str, parameters: Mapping[str, Any], content: bytes
    ) -> None:
        """Run an INSERT that reads its `input(…)` from this content, frames of zstd; the statement
        and its parameters say whose rows they are."""
        await self.run(
            lambda client: client.command(
                statement,
                parameters=dict(parameters),
                data=content,
                transport_settings={"Content-Encoding": "zstd"},
            )
        )

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that gives no rows."""
        await self.run(lambda client: client.command(sql, parameters=dict(parameters or {})))

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a query over all tenants: for the sealer, which names the tenant itself."""
        result = await self.run(lambda client: client.query(sql, parameters=dict(parameters or {})))
        return list(result.named_results())

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        # Opened at first use: a process starts, and takes events, also while ClickHouse is away.
        if self._client is None:
            self._client = connect(self._url)
        return self._client


class TenantEvents:
    """One tenant's events. Every query gets the parameters `tenant` and `payer`, and the views
    demand them."""

    def __init__(
        self, events: Events, tenant_id: TenantId, customer_id: CustomerId | None = None
    ) -> None:
        self._events = events
        self._walls = {
            "tenant": str(tenant_id),
            "payer": EVERY_PAYER if customer_id is None else str(customer_id),
        }

    async def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query that reads `…_of(tenant = {tenant:UUID}, …)` views, as dictionaries."""
        return await self._events.query(sql, {**parameters, **self._walls})

    async def command(self, sql: str, **parameters: Any) -> None:
        """Run a statement about this tenant's rows that gives none back."""
        await self._events.command(sql, {**parameters, **self._walls})


def connect(url: str) -> Client:
    """A client for `http(s)://user:password@host:port/database`."""
    parts = urlsplit(url)
    return clickhouse_connect.get_client(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or (8443 if parts.scheme == "https" else 8123),
        username=parts.username or "default",
        password=parts.password or "",
        database=parts.path.strip("/") or "default",
        interface=parts.scheme,
        # Sessions would make the server refuse a second query at the same time.
        autogenerate_session_id=False,
        connect_timeout=5,
        send_receive_timeout=QUERY_TIMEOUT_SECONDS,
        tz_mode="aware",  # Else a column in UTC gives datetimes without a zone.
        settings={
            "session_timezone": "UTC",
            # An insert is answered once it is on the disk, not once it is in a buffer, and
            # whether it was there before is for the sealer to say.
            "async_insert": 0,
            "insert_deduplicate": 0,
            # Tables of cells stand in the text of a statement, about 300 bytes for each.
            "max_query_size": STATEMENT_BYTES_MAX,
        },
    )
