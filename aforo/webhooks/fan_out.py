"""From the outbox to deliveries: one for each enabled endpoint that wants to know; and forgetting.

Fan-outs of a tenant take turns, and take the events in the order of their positions.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.storage.event_types import EventType
from aforo.storage.jobs import JobName
from aforo.storage.outbox import OutboxEvent
from aforo.storage.rows import one_of
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.webhooks.models import (
    OPEN,
    DeliveryState,
    EndpointState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from aforo.webhooks.turns import let_go_on, lock_endpoints, tell_couriers

EVENTS_AT_ONCE = 500
ROWS_AT_ONCE = 1_000
BACKLOG_MAX = 100_000
"""Open deliveries of an endpoint; what comes on top is given up at once, and can be replayed."""
KEPT = timedelta(days=30)
FORGOTTEN_AT_ONCE = 5_000

_ONE_AT_A_TIME = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('aforo.fan_out.' || :tenant_id, 0))"
)
_OVERFLOW = (
    f"{BACKLOG_MAX:,} deliveries were waiting for this endpoint; replay the event once it keeps up"
)


async def fan_out(scope: Scope) -> int:
    """Write the deliveries of the events that wait in the outbox: the body of a job.

    Gives the number of events; what is left for another round is asked for.
    """
    await scope.db.execute(_ONE_AT_A_TIME, {"tenant_id": str(scope.tenant_id)})
    events = list(
        await scope.db.scalars(
            sa.select(OutboxEvent)
            .where(col(OutboxEvent.fanned_out_at).is_(None))
            .order_by(col(OutboxEvent.position))
            .limit(EVENTS_AT_ONCE)
        )
    )
    if not events:
        return 0
    for endpoint in await locked_endpoints(scope):
        wanted = [event for event in events if is_wanted(endpoint, event)]
        await deliver_to(scope, endpoint, wanted)
    await scope.db.execute(
        sa.update(OutboxEvent)
        .where(one_of(OutboxEvent.id, [event.id for event in events]))
        .values(fanned_out_at=scope.now),
        execution_options={"synchronize_session": False},
    )
    if len(events) == EVENTS_AT_ONCE:
        await scope.enqueue(JobName.FAN_OUT_EVENTS)
    tomorrow = scope.now + timedelta(days=1)
    await scope.enqueue(JobName.FORGET_EVENTS, unique_key="daily", run_at=tomorrow)
    return len(events)


def is_wanted(endpoint: WebhookEndpoint, event: OutboxEvent) -> bool:
    """Whether an endpoint is to be told of an event."""
    if event.type is EventType.WEBHOOK_TEST or event.object_id == endpoint.id:
        return False  # A test goes where it was asked for; of its own state it knows.
    return not endpoint.event_types or event.type.value in endpoint.event_types


async def locked_endpoints(scope: Scope) -> list[WebhookEndpoint]:
    """The tenant's enabled endpoints, each locked, as they are once they are."""
    enabled = sa.select(WebhookEndpoint).where(
        col(WebhookEndpoint.state) == EndpointState.ENABLED,
        col(WebhookEndpoint.deleted_at).is_(None),
    )
    await lock_endpoints(
        scope.db, await scope.db.scalars(enabled.with_only_columns(col(WebhookEndpoint.id)))
    )
    rows = await scope.db.scalars(enabled, execution_options={"populate_existing": True})
    return list(rows)


async def deliver_to(
    scope: Scope, endpoint: WebhookEndpoint, events: Sequence[OutboxEvent]
) -> None:
    """Write the deliveries of events to an endpoint, whose lock the caller holds.

    An event that was delivered, given up or cancelled before is delivered again, under the same
    row; one that is on its way stays as it is.
    """
    if not events:
        return
    room = BACKLOG_MAX - await _open_deliveries(scope, endpoint.id)
    rows = [_row(scope, endpoint, event, fits=number < room) for number, event in enumerate(events)]
    statement = insert(WebhookDelivery)
    new = statement.excluded
    again = statement.on_conflict_do_update(
        index_elements=["tenant_id", "endpoint_id", "event_id"],
        set_={
            "state": new.state,
            "next_at": new.next_at,
            "finished_at": new.finished_at,
            "failure": new.failure,
            "tries": 0,
            "leases": 0,
            "lease_until": None,
            "lease_id": None,
        },
        where=col(WebhookDelivery.finished_at).is_not(None),
    )
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await scope.db.execute(again, rows[start : start + ROWS_AT_ONCE])
    await let_go_on(scope, endpoint, {event.object_id for event in events})
    await tell_couriers(scope)


async def forget(scope: Scope) -> Counter[str]:
    """Delete what is older than 30 days and finished: the body of a job.

    Gives the number of rows by table; what is left for another round is asked for.
    """
    before = scope.now - KEPT
    old = (
        sa.select(col(WebhookDelivery.id))
        .where(col(WebhookDelivery.created_at) < before, col(WebhookDelivery.state).not_in(OPEN))
        .order_by(col(WebhookDelivery.id))
        .limit(FORGOTTEN_AT_ONCE)
    )
    ids = list(await scope.db.scalars(old))
    in_use = sa.select(sa.literal(1)).where(col(WebhookDelivery.event_id) == col(OutboxEvent.id))
    still_told = sa.select(sa.literal(1)).where(
        col(WebhookDelivery.endpoint_id) == col(WebhookEndpoint.id)
    )
    counts = Counter(
        attempts=await _delete(scope, WebhookAttempt, one_of(WebhookAttempt.delivery_id, ids)),
        deliveries=await _delete(scope, WebhookDelivery, one_of(WebhookDelivery.id, ids)),
    )
    events = (
        sa.select(col(OutboxEvent.id))
        .where(
            col(OutboxEvent.created_at) < before,
            col(OutboxEvent.fanned_out_at).is_not(None),
            ~in_use.exists(),
        )
        .order_by(col(OutboxEvent.created_at))
        .limit(FORGOTTEN_AT_ONCE)
    )
    event_ids = list(await scope.db.scalars(events))
    counts["events"] = await _delete(scope, OutboxEvent, one_of(OutboxEvent.id, event_ids))
    counts["endpoints"] = await _delete(
        scope,
        WebhookEndpoint,
        col(WebhookEndpoint.deleted_at) < before,
        ~still_told.exists(),
    )
    is_more = FORGOTTEN_AT_ONCE in {counts["deliveries"], counts["events"]}
    if is_more or counts["events"] or await _keeps_events(scope):
        pause = timedelta(0) if is_more else timedelta(days=1)
        await scope.enqueue(JobName.FORGET_EVENTS, unique_key="daily", run_at=scope.now + pause)
    return counts


def _row(
    scope: Scope, endpoint: WebhookEndpoint, event: OutboxEvent, *, fits: bool
) -> dict[str, Any]:
    return {
        "id": new_id(),
        "endpoint_id": endpoint.id,
        "event_id": event.id,
        "type": event.type,
        "object_id": event.object_id,
        "position": event.position,
        "state": DeliveryState.WAITING if fits else DeliveryState.EXHAUSTED,
        "tries": 0,
        "attempts": 0,
        "leases": 0,
        "next_at": scope.now,
        "finished_at": None if fits else scope.now,
        "failure": None if fits else _OVERFLOW,
    }


async def _open_deliveries(scope: Scope, endpoint_id: UUID) -> int:
    return (
        await scope.db.scalar(
            sa.select(sa.func.count())
            .select_from(WebhookDelivery)
            .where(
                col(WebhookDelivery.endpoint_id) == endpoint_id,
                col(WebhookDelivery.state).in_(OPEN),
            )
        )
        or 0
    )


async def _keeps_events(scope: Scope) -> bool:
    return bool(await scope.db.scalar(sa.select(sa.exists(sa.select(col(OutboxEvent.id))))))


async def _delete(scope: Scope, table: Any, *where: sa.ColumnElement[bool]) -> int:
    gone = await scope.db.execute(
        sa.delete(table).where(*where), execution_options={"synchronize_session": False}
    )
    return int(gone.rowcount)  # type: ignore[attr-defined]
