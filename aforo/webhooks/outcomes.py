"""Records how a call went, and all that follows: the next try, whose turn it is, a warning."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.storage.event_types import EventType
from aforo.storage.scope import Scope
from aforo.webhooks.models import (
    OPEN,
    DeliveryState,
    DisabledReason,
    EndpointState,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from aforo.webhooks.schedule import (
    DISABLED_AFTER,
    Health,
    Measure,
    Verdict,
    measure,
    next_try,
    retry_after,
    verdict,
)
from aforo.webhooks.turns import let_go_on, lock_endpoints

LEASES_MAX = 40
"""Calls that were begun; of those that end there are ten, so only a courier that dies of it gets
this far."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went."""

    started_at: datetime
    duration_ms: int
    status: int | None = None
    response: str | None = None
    retry_after: str | None = None
    """The header, as it was sent."""
    failure: str | None = None
    """None where it was a success."""


async def record(
    scope: Scope, endpoint_id: UUID, delivery_id: UUID, lease_id: UUID, outcome: Outcome
) -> None:
    """Write the attempt down, and decide what follows; nothing where the lease was lost."""
    await lock_endpoints(scope.db, [endpoint_id])
    delivery = await scope.db.scalar(
        sa.select(WebhookDelivery).where(
            col(WebhookDelivery.id) == delivery_id,
            col(WebhookDelivery.state) == DeliveryState.PENDING,
            col(WebhookDelivery.lease_id) == lease_id,
        )
    )
    if delivery is None:
        return
    endpoint = await scope.db.scalar(
        sa.select(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint_id)
    )
    assert endpoint is not None, "a foreign key holds it"
    delivery.tries += 1
    delivery.attempts += 1
    delivery.lease_until, delivery.lease_id = None, None
    delivery.failure = outcome.failure
    scope.db.add(
        WebhookAttempt(
            delivery_id=delivery.id,
            number=delivery.attempts,
            started_at=outcome.started_at,
            duration_ms=outcome.duration_ms,
            status=outcome.status,
            response=outcome.response,
            failure=outcome.failure,
        )
    )
    await _follow(scope, endpoint, delivery, outcome)
    await scope.db.flush()


async def disable(scope: Scope, endpoint: WebhookEndpoint, reason: DisabledReason) -> None:
    """Stop telling an endpoint, at once; what was under way to it is cancelled.

    The tenant's other endpoints are told. The caller holds the endpoint's lock.
    """
    endpoint.state = EndpointState.DISABLED
    endpoint.disabled_reason = reason
    endpoint.disabled_at = scope.now
    await scope.db.flush()
    await cancel(scope, endpoint, f"the endpoint was disabled ({reason.name})")
    await scope.publish(
        EventType.WEBHOOK_DISABLED,
        object_id=endpoint.id,
        data={"endpoint": endpoint.id, "url": shown_url(endpoint), "reason": reason.name},
    )
    log.warning("webhook endpoint disabled", endpoint_id=str(endpoint.id), reason=reason.name)


def shown_url(endpoint: WebhookEndpoint) -> str:
    """The URL as others get to see it: in a query there may be a token."""
    return endpoint.url.partition("?")[0]


async def cancel(scope: Scope, endpoint: WebhookEndpoint, why: str) -> None:
    """Give up all that is still to be delivered to an endpoint, whose lock the caller holds."""
    await scope.db.execute(
        sa.update(WebhookDelivery)
        .where(
            col(WebhookDelivery.endpoint_id) == endpoint.id, col(WebhookDelivery.state).in_(OPEN)
        )
        .values(
            state=DeliveryState.CANCELLED,
            finished_at=scope.now,
            failure=why,
            lease_until=None,
            lease_id=None,
        ),
        execution_options={"synchronize_session": False},
    )


async def _follow(
    scope: Scope, endpoint: WebhookEndpoint, delivery: WebhookDelivery, outcome: Outcome
) -> None:
    found = verdict(outcome.status, tries=delivery.tries)
    if found is Verdict.AGAIN and delivery.leases >= LEASES_MAX:
        found = Verdict.EXHAUSTED
    if found is Verdict.DELIVERED:
        _finish(scope, delivery, DeliveryState.DELIVERED)
        endpoint.failing_since, endpoint.warned_at, endpoint.exhausted = None, None, 0
        endpoint.quiet_until = None
        await _next_in_turn(scope, endpoint, delivery)
        return
    endpoint.failing_since = endpoint.failing_since or scope.now
    if found is Verdict.GONE:
        _finish(scope, delivery, DeliveryState.CANCELLED)
        await disable(scope, endpoint, DisabledReason.GONE)
        return
    await _keep_quiet(scope, endpoint, outcome)
    if found is Verdict.AGAIN:
        delivery.next_at = next_try(
            scope.now, tries=delivery.tries, quiet_until=endpoint.quiet_until
        )
        return
    _finish(scope, delivery, DeliveryState.EXHAUSTED)
    endpoint.exhausted += 1
    await _take_measures(scope, endpoint)
    if endpoint.is_enabled:
        await _next_in_turn(scope, endpoint, delivery)


def _finish(scope: Scope, delivery: WebhookDelivery, state: DeliveryState) -> None:
    delivery.state = state
    delivery.finished_at = scope.now


async def _next_in_turn(scope: Scope, endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> None:
    await scope.db.flush()
    await let_go_on(scope, endpoint, [delivery.object_id])


async def _keep_quiet(scope: Scope, endpoint: WebhookEndpoint, outcome: Outcome) -> None:
    """An endpoint that asks to be left alone is left alone by all of its deliveries."""
    until = retry_after(outcome.retry_after, status=outcome.status, now=scope.now)
    if until is None or (endpoint.quiet_until is not None and until <= endpoint.quiet_until):
        return
    endpoint.quiet_until = until
    await scope.db.flush()
    await scope.db.execute(
        sa.update(WebhookDelivery)
        .where(
            col(WebhookDelivery.endpoint_id) == endpoint.id,
            col(WebhookDelivery.state) == DeliveryState.PENDING,
            col(WebhookDelivery.next_at) < until,
        )
        .values(next_at=until),
        execution_options={"synchronize_session": False},
    )


async def _take_measures(scope: Scope, endpoint: WebhookEndpoint) -> None:
    match measure(Health(endpoint.exhausted, endpoint.warned_at), scope.now):
        case Measure.WARN:
            endpoint.warned_at = scope.now
            await scope.publish(
                EventType.WEBHOOK_FAILING,
                object_id=endpoint.id,
                data={
                    "endpoint": endpoint.id,
                    "url": shown_url(endpoint),
                    "disabledFrom": scope.now + DISABLED_AFTER,
                },
            )
            log.warning("webhook endpoint failing", endpoint_id=str(endpoint.id))
        case Measure.DISABLE:
            await disable(scope, endpoint, DisabledReason.FAILING)
        case Measure.NONE:
            pass
