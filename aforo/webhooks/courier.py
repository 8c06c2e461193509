"""Calls the endpoints: takes deliveries that are due, sends them, and records what came back.

A delivery is a row with a lease. It is sent outside of any transaction, so that a slow endpoint
holds no connection; a courier that dies leaves a lease that runs out, and another one sends the
same bytes under the same id again.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.storage import queue
from aforo.storage.addresses import UrlNotAllowed
from aforo.storage.egress import Answer, CallFailed
from aforo.storage.endings import end_all
from aforo.storage.failpoints import reached
from aforo.storage.outbox import OutboxEvent, message_id
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.telemetry.metrics import WEBHOOK_CALLS
from aforo.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from aforo.webhooks.outcomes import LEASES_MAX, Outcome, record
from aforo.webhooks.sealed import secrets_in_force
from aforo.webhooks.signing import headers_of
from aforo.webhooks.turns import CHANNEL, lock_endpoints

IN_FLIGHT_PER_ENDPOINT = 2
IN_FLIGHT_PER_TENANT = 16
IN_FLIGHT_MAX = 128
CALL_SECONDS = 10.0
RESPONSE_BYTES_MAX = 1_024
LEASE_SECONDS = 40
"""A call, and all that is done before and after it."""
SWEEP_SECONDS = 1.0
FINISH_SECONDS = 10.0
"""A call that is cut off may have arrived: it would be made again."""
DRAINED_MAX = 10_000

# Of each endpoint with something to deliver the two that are due first. The endpoints are found
# one after the other by the index, however many deliveries each has; of several tenants each
# gets its first turn before any gets its second.
_DUE = sa.text(f"""
WITH RECURSIVE busy AS (
    (SELECT tenant_id, endpoint_id FROM webhook_delivery
      WHERE state = 'PENDING' AND (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
      ORDER BY tenant_id, endpoint_id LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.endpoint_id FROM busy CROSS JOIN LATERAL (
        SELECT tenant_id, endpoint_id FROM webhook_delivery
         WHERE state = 'PENDING' AND (CAST(:tenant_id AS uuid) IS NULL OR tenant_id = :tenant_id)
           AND (tenant_id, endpoint_id) > (busy.tenant_id, busy.endpoint_id)
         ORDER BY tenant_id, endpoint_id LIMIT 1) AS following
)
SELECT busy.tenant_id, busy.endpoint_id, min(due.next_at) AS since,
       row_number() OVER (PARTITION BY busy.tenant_id ORDER BY min(due.next_at)) AS turn
  FROM busy CROSS JOIN LATERAL (
       SELECT next_at FROM webhook_delivery
        WHERE tenant_id = busy.tenant_id AND endpoint_id = busy.endpoint_id AND state = 'PENDING'
          AND next_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
        ORDER BY next_at LIMIT {IN_FLIGHT_PER_ENDPOINT}) AS due
 GROUP BY busy.tenant_id, busy.endpoint_id
 ORDER BY turn, since LIMIT :limit
""")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery that this courier has leased."""

    tenant_id: TenantId
    endpoint_id: UUID
    delivery_id: UUID
    lease_id: UUID


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that a call needs, so that no transaction is open meanwhile."""

    url: str
    message_id: str
    body: bytes
    leases: int
    secrets_in_force: tuple[str, ...]


async def run(runtime: Runtime) -> None:
    """Deliver until cancelled; then let calls finish for a while, and hand back the others."""
    flights: dict[asyncio.Task[None], TenantId] = {}
    try:
        async with queue.told(runtime, CHANNEL) as news:
            while True:
                news.clear()
                await _start(runtime, flights, news)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS):
                        await news.wait()
    finally:
        if flights:
            await asyncio.wait(flights, timeout=FINISH_SECONDS)
        await end_all(flights)


async def deliver_due(runtime: Runtime, tenant_id: TenantId | None = None) -> int:
    """Deliver all that is due now, and what that makes due; the number of calls."""
    calls = 0
    while calls < DRAINED_MAX:
        taken = [
            one
            for owner, endpoint_id in await due_endpoints(runtime, tenant_id=tenant_id)
            for one in await take(runtime, owner, endpoint_id)
        ]
        if not taken:
            return calls
        calls += len(taken)
        await asyncio.gather(*(deliver(runtime, one) for one in taken))
    raise RuntimeError(f"after {DRAINED_MAX} deliveries there are still some that are due")


async def due_endpoints(
    runtime: Runtime, *, tenant_id: TenantId | None = None, limit: int = IN_FLIGHT_MAX
) -> list[tuple[TenantId, UUID]]:
    """Endpoints, each with its tenant, for which a delivery is due and not under way."""
    async with runtime.system("list the endpoints with deliveries that are due") as db:
        rows = await db.execute(
            _DUE, {"now": runtime.clock.now(), "limit": limit, "tenant_id": tenant_id}
        )
        return [(TenantId(row.tenant_id), row.endpoint_id) for row in rows]


async def take(
    runtime: Runtime, tenant_id: TenantId, endpoint_id: UUID, *, room: int | None = None
) -> list[Taken]:
    """Lease what is due, so that no more than two deliveries to the endpoint are under way.

    At most `room` where it is given.
    """
    now, lease_id = runtime.clock.now(), new_id()
    delivery = WebhookDelivery
    mine = (
        col(delivery.tenant_id) == tenant_id,
        col(delivery.endpoint_id) == endpoint_id,
        col(delivery.state) == DeliveryState.PENDING,
    )
    async with runtime.system("take deliveries") as db:
        await lock_endpoints(db, [endpoint_id])
        under_way = await db.scalar(
            sa.select(sa.func.count())
            .select_from(delivery)
            .where(*mine, col(delivery.lease_until) > now)
        )
        free = IN_FLIGHT_PER_ENDPOINT - (under_way or 0)
        due = (
            sa.select(col(delivery.id))
            .where(
                *mine,
                col(delivery.next_at) <= now,
                sa.or_(col(delivery.lease_until).is_(None), col(delivery.lease_until) <= now),
            )
            .order_by(col(delivery.next_at), col(delivery.position))
            .limit(max(0, free if room is None else min(free, room)))
        )
        rows = await db.scalars(
            sa.update(delivery)
            .where(col(delivery.tenant_id) == tenant_id, col(delivery.id).in_(due))
            .values(
                lease_until=now + timedelta(seconds=LEASE_SECONDS),
                lease_id=lease_id,
                leases=col(delivery.leases) + 1,
            )
            .returning(col(delivery.id))
        )
        return [Taken(tenant_id, endpoint_id, one, lease_id) for one in rows]


async def deliver(runtime: Runtime, taken: Taken) -> None:
    """Make one call, and record how it went; cut off, the delivery is handed back."""
    try:
        parcel = await _packed(runtime, taken)
        if parcel is None:
            return
        if parcel.leases > LEASES_MAX:
            gone = f"its courier was gone {LEASES_MAX} times before the call came to an end"
            outcome = Outcome(runtime.clock.now(), 0, failure=gone)
        else:
            outcome = await _call(runtime, taken.tenant_id, parcel)
        reached("webhook.sent")
        async with runtime.scope(taken.tenant_id) as scope:
            await record(scope, taken.endpoint_id, taken.delivery_id, taken.lease_id, outcome)
    except asyncio.CancelledError:
        await asyncio.shield(_hand_back(runtime, taken))
        raise
    except AforoError as error:
        # An engine is away: the lease runs out, and the delivery is made again.
        log.warning(
            "delivery not recorded", delivery_id=str(taken.delivery_id), error=error.message
        )


async def _start(
    runtime: Runtime, flights: dict[asyncio.Task[None], TenantId], news: asyncio.Event
) -> None:
    def landed(flight: asyncio.Task[None]) -> None:
        del flights[flight]
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            log.error("a delivery failed on our side", exc_info=fault)
        news.set()  # There may be another one for the same endpoint.

    under_way = Counter(flights.values())
    if len(flights) >= IN_FLIGHT_MAX:
        return
    for tenant_id, endpoint_id in await due_endpoints(runtime):
        room = min(IN_FLIGHT_MAX - len(flights), IN_FLIGHT_PER_TENANT - under_way[tenant_id])
        if room <= 0:
            continue
        for taken in await take(runtime, tenant_id, endpoint_id, room=room):
            flight = asyncio.create_task(deliver(runtime, taken))
            flights[flight] = tenant_id
            under_way[tenant_id] += 1
            flight.add_done_callback(landed)


async def _packed(runtime: Runtime, taken: Taken) -> Parcel | None:
    """What is to be sent; None where the lease was lost meanwhile, as by a disabled endpoint."""
    async with runtime.scope(taken.tenant_id) as scope:
        row = (
            await scope.db.execute(
                sa.select(WebhookEndpoint, WebhookDelivery, col(OutboxEvent.body))
                .join(WebhookDelivery, col(WebhookDelivery.endpoint_id) == col(WebhookEndpoint.id))
                .join(OutboxEvent, col(OutboxEvent.id) == col(WebhookDelivery.event_id))
                .where(
                    col(WebhookDelivery.id) == taken.delivery_id,
                    col(WebhookDelivery.state) == DeliveryState.PENDING,
                    col(WebhookDelivery.lease_id) == taken.lease_id,
                )
            )
        ).first()
        if row is None:
            return None
        endpoint, delivery, body = row
        return Parcel(
            url=endpoint.url,
            message_id=message_id(delivery.event_id),
            body=body.encode(),
            leases=delivery.leases,
            secrets_in_force=await secrets_in_force(scope, endpoint),
        )


async def _call(runtime: Runtime, tenant_id: TenantId, parcel: Parcel) -> Outcome:
    started_at = runtime.clock.now()
    began = asyncio.get_running_loop().time()
    signed = headers_of(
        message_id=parcel.message_id,
        body=parcel.body,
        now=started_at,
        secrets_in_force=parcel.secrets_in_force,
    )
    answer, failure = None, None
    try:
        answer = await runtime.egress.call(
            "POST",
            parcel.url,
            tenant_id=tenant_id,
            headers={"content-type": "application/json", **signed},
            body=parcel.body,
            seconds=CALL_SECONDS,
            bytes_max=RESPONSE_BYTES_MAX,
            cuts=True,
        )
    except (CallFailed, UrlNotAllowed) as error:
        failure = error.message
    took = asyncio.get_running_loop().time() - began
    is_success = answer is not None and 200 <= answer.status < 300
    WEBHOOK_CALLS.labels("delivered" if is_success else "failed").observe(took)
    return _outcome(answer, failure, started_at, round(took * 1_000))


def _outcome(
    answer: Answer | None, failure: str | None, started_at: datetime, duration_ms: int
) -> Outcome:
    if answer is None:
        return Outcome(started_at, duration_ms, failure=failure)
    if not 200 <= answer.status < 300:
        failure = f"it answered with status {answer.status}"
        if 300 <= answer.status < 400:
            failure += "; redirects are not followed: give the address that they lead to"
    # What PostgreSQL cannot hold is replaced: a body may be anything.
    text = answer.body.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return Outcome(
        started_at,
        duration_ms,
        status=answer.status,
        response=text,
        retry_after=answer.headers.get("retry-after"),
        failure=failure,
    )


async def _hand_back(runtime: Runtime, taken: Taken) -> None:
    async with runtime.system("hand a delivery back") as db:
        await db.execute(
            sa.update(WebhookDelivery)
            .where(
                col(WebhookDelivery.tenant_id) == taken.tenant_id,
                col(WebhookDelivery.id) == taken.delivery_id,
                col(WebhookDelivery.lease_id) == taken.lease_id,
            )
            .values(lease_until=None, lease_id=None, leases=col(WebhookDelivery.leases) - 1)
        )
