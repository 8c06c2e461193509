"""Writes about endpoints: made, changed, tested, told again."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk import Period
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.storage.addresses import Walls
from aforo.storage.event_types import EventType
from aforo.storage.outbox import OutboxEvent, event_row
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.webhooks.fan_out import deliver_to
from aforo.webhooks.models import (
    DeliveryState,
    DisabledReason,
    EndpointState,
    WebhookDelivery,
    WebhookEndpoint,
)
from aforo.webhooks.outcomes import cancel, disable, shown_url
from aforo.webhooks.sealed import sealed, secrets_in_force
from aforo.webhooks.signing import make_secret
from aforo.webhooks.turns import lock_endpoints

ENDPOINTS_MAX = 20
DESCRIPTION_CHARACTERS_MAX = 500
OVERLAP_DEFAULT = timedelta(hours=24)
OVERLAP_MAX = timedelta(days=7)
REPLAYED_MAX = 1_000

_ONE_AT_A_TIME = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('aforo.webhooks.' || :tenant_id, 0))"
)


@dataclass(frozen=True, slots=True)
class NewSecret:
    """An endpoint with a new secret, which is in nobody's hands but the caller's: shown once."""

    endpoint: WebhookEndpoint
    secret: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What is told again."""

    endpoint: WebhookEndpoint
    events: int


async def create_endpoint(
    scope: Scope,
    *,
    walls: Walls,
    url: str,
    description: str = "",
    event_types: Collection[EventType] = (),
) -> NewSecret:
    """Tell a URL of events from now on, of all types or of those given.

    Raises: `Invalid`; `Conflict` where the tenant has 20 endpoints.
    """
    walls.target(url, field="url")
    await scope.db.execute(_ONE_AT_A_TIME, {"tenant_id": str(scope.tenant_id)})
    count = await scope.db.scalar(
        sa.select(sa.func.count())
        .select_from(WebhookEndpoint)
        .where(col(WebhookEndpoint.deleted_at).is_(None))
    )
    if (count or 0) >= ENDPOINTS_MAX:
        raise Conflict(
            f"there are {ENDPOINTS_MAX} endpoints, delete one first", code="TOO_MANY_ENDPOINTS"
        )
    endpoint_id, secret = new_id(), make_secret()
    endpoint = WebhookEndpoint(
        id=endpoint_id,
        url=url,
        description=_checked_description(description),
        event_types=_checked_types(event_types),
        secret=await sealed(scope, endpoint_id, secret, column="secret"),
    )
    scope.db.add(endpoint)
    await scope.db.flush()
    return NewSecret(endpoint, secret)


async def update_endpoint(
    scope: Scope,
    *,
    walls: Walls,
    endpoint_id: UUID,
    url: str | None = None,
    description: str | None = None,
    event_types: Collection[EventType] | None = None,
) -> WebhookEndpoint:
    """Change what is given. What is under way goes to the new URL; the filter is for new events.

    Raises: `Invalid`, `NotFound`.
    """
    endpoint = await _locked(scope, endpoint_id)
    if url is not None:
        walls.target(url, field="url")
        endpoint.url = url
    if description is not None:
        endpoint.description = _checked_description(description)
    if event_types is not None:
        endpoint.event_types = _checked_types(event_types)
    await scope.db.flush()
    return endpoint


async def delete_endpoint(scope: Scope, *, endpoint_id: UUID) -> WebhookEndpoint:
    """Forget an endpoint with its secrets; what is under way is cancelled, the log stays.

    Raises: `NotFound`.
    """
    endpoint = await _locked(scope, endpoint_id)
    endpoint.deleted_at = scope.now
    endpoint.state, endpoint.disabled_reason = EndpointState.DISABLED, DisabledReason.OWNER
    endpoint.secret, endpoint.previous_secret = b"", None
    await scope.db.flush()
    await cancel(scope, endpoint, "the endpoint was deleted")
    return endpoint


async def disable_endpoint(scope: Scope, *, endpoint_id: UUID) -> WebhookEndpoint:
    """Stop telling an endpoint; one that is disabled stays as it is. Raises: `NotFound`."""
    endpoint = await _locked(scope, endpoint_id)
    if endpoint.is_enabled:
        await disable(scope, endpoint, DisabledReason.OWNER)
        await scope.db.flush()
    return endpoint


async def enable_endpoint(scope: Scope, *, endpoint_id: UUID) -> WebhookEndpoint:
    """Tell an endpoint again, of what happens from now on; what it missed can be replayed.

    Raises: `NotFound`.
    """
    endpoint = await _locked(scope, endpoint_id)
    if not endpoint.is_enabled:
        endpoint.state = EndpointState.ENABLED
        endpoint.disabled_reason = endpoint.disabled_at = None
        endpoint.failing_since = endpoint.warned_at = endpoint.quiet_until = None
        endpoint.exhausted = 0
        await scope.db.flush()
    return endpoint


async def rotate_secret(
    scope: Scope, *, endpoint_id: UUID, overlap: timedelta = OVERLAP_DEFAULT
) -> NewSecret:
    """Give an endpoint a new secret; for the time of the overlap both sign each call.

    A secret that was overlapping already ends at once. Raises: `Invalid`, `NotFound`.
    """
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise Invalid("an overlap is 0 to 604,800 seconds", field="overlapSeconds")
    endpoint = await _locked(scope, endpoint_id)
    current, *_ = await secrets_in_force(scope, endpoint)
    secret = make_secret()
    endpoint.previous_secret = (
        await sealed(scope, endpoint.id, current, column="previous_secret") if overlap else None
    )
    endpoint.previous_until = scope.now + overlap if overlap else None
    endpoint.secret = await sealed(scope, endpoint.id, secret, column="secret")
    await scope.db.flush()
    return NewSecret(endpoint, secret)


async def send_test(scope: Scope, *, endpoint_id: UUID) -> WebhookDelivery:
    """Send an endpoint an event of the type `webhook.test`, whatever it filters.

    Raises: `NotFound`; `Conflict` where it is disabled.
    """
    endpoint = await _enabled(scope, endpoint_id)
    data = {"endpoint": endpoint.id, "url": shown_url(endpoint)}
    row = event_row(new_id(), EventType.WEBHOOK_TEST, endpoint.id, data, scope.now)
    event = await scope.db.scalar(
        sa.insert(OutboxEvent).values(**row, fanned_out_at=scope.now).returning(OutboxEvent)
    )
    assert event is not None, "it was just written"
    await deliver_to(scope, endpoint, [event])
    return await _delivery(scope, endpoint_id, event.id)


async def resend(scope: Scope, *, delivery_id: UUID) -> WebhookDelivery:
    """Deliver again, from the first try on: the same id, the same bytes.

    One that waits for its next try makes it now. Raises: `NotFound`; `Conflict` where the endpoint
    is disabled, or the delivery waits for an earlier one of its object.
    """
    found = await scope.db.scalar(
        sa.select(WebhookDelivery).where(col(WebhookDelivery.id) == delivery_id)
    )
    if found is None:
        raise NotFound("there is no delivery with this id", field="webhookDeliveryId")
    endpoint = await _enabled(scope, found.endpoint_id)
    event = await scope.db.scalar(
        sa.select(OutboxEvent).where(col(OutboxEvent.id) == found.event_id)
    )
    assert event is not None, "a foreign key holds it"
    await scope.db.refresh(found)  # As it is under the endpoint's lock.
    if found.state is DeliveryState.WAITING:
        raise Conflict(
            "it waits for an earlier event of the same object: resend that one",
            code="DELIVERY_WAITS",
            field="webhookDeliveryId",
        )
    if found.state is DeliveryState.PENDING:
        found.next_at = scope.now
        await scope.db.flush()
    await deliver_to(scope, endpoint, [event])
    return await _delivery(scope, endpoint.id, event.id)


async def replay(
    scope: Scope,
    *,
    endpoint_id: UUID,
    period: Period,
    event_types: Collection[EventType] = (),
) -> Replayed:
    """Deliver the events that were published in a period again, or for the first time.

    Of the types given, or of those that the endpoint filters. Each keeps its id and its bytes.
    Raises: `Invalid`, also for more than 1,000 events; `NotFound`; `Conflict` where the endpoint
    is disabled.
    """
    endpoint = await _enabled(scope, endpoint_id)
    names = _checked_types(event_types) or endpoint.event_types
    kinds = {EventType(name) for name in names} or set(EventType)
    events = list(
        await scope.db.scalars(
            sa.select(OutboxEvent)
            .where(
                col(OutboxEvent.created_at) >= period.start,
                col(OutboxEvent.created_at) < period.end,
                col(OutboxEvent.type).in_(kinds - {EventType.WEBHOOK_TEST}),
                col(OutboxEvent.object_id) != endpoint.id,
            )
            .order_by(col(OutboxEvent.position))
            .limit(REPLAYED_MAX + 1)
        )
    )
    if len(events) > REPLAYED_MAX:
        raise Invalid(
            f"these are more than {REPLAYED_MAX:,} events: choose a shorter time, or fewer types",
            code="TOO_MANY_EVENTS",
            field="until",
        )
    await deliver_to(scope, endpoint, events)
    return Replayed(endpoint, len(events))


async def _locked(scope: Scope, endpoint_id: UUID) -> WebhookEndpoint:
    await lock_endpoints(scope.db, [endpoint_id])
    endpoint = await scope.db.scalar(
        sa.select(WebhookEndpoint).where(
            col(WebhookEndpoint.id) == endpoint_id, col(WebhookEndpoint.deleted_at).is_(None)
        ),
        execution_options={"populate_existing": True},
    )
    if endpoint is None:
        raise NotFound("there is no webhook endpoint with this id", field="webhookEndpointId")
    return endpoint


async def _enabled(scope: Scope, endpoint_id: UUID) -> WebhookEndpoint:
    endpoint = await _locked(scope, endpoint_id)
    if not endpoint.is_enabled:
        raise Conflict("the endpoint is disabled, enable it first", code="ENDPOINT_DISABLED")
    return endpoint


async def _delivery(scope: Scope, endpoint_id: UUID, event_id: UUID) -> WebhookDelivery:
    row = await scope.db.scalar(
        sa.select(WebhookDelivery).where(
            col(WebhookDelivery.endpoint_id) == endpoint_id,
            col(WebhookDelivery.event_id) == event_id,
        ),
        execution_options={"populate_existing": True},
    )
    assert row is not None, "it was just written"
    return row


def _checked_description(text: str) -> str:
    cleaned = text.strip()
    if len(cleaned) > DESCRIPTION_CHARACTERS_MAX:
        raise Invalid(
            f"a description has at most {DESCRIPTION_CHARACTERS_MAX} characters",
            field="description",
        )
    return cleaned


def _checked_types(kinds: Collection[EventType]) -> list[str]:
    if EventType.WEBHOOK_TEST in kinds:
        raise Invalid(
            "webhook.test is sent by the test button alone, leave it out", field="eventTypes"
        )
    return [kind.value for kind in EventType if kind in kinds]
