"""GraphQL of the webhooks: endpoints, and the log of what was delivered to them."""

import json
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, publish_enum
from aforo.api.parts.pages import ByAge, children_in_pages, rows_in_pages
from aforo.api.parts.relay import After, Connection, First, Node, optional_id
from aforo.api.parts.scalars import JSON
from aforo.storage.event_types import SHAPES, EventType
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.storage.outbox import message_id
from aforo.tenants.permissions import Permission
from aforo.webhooks import models, queries
from aforo.webhooks.models import DeliveryState, DisabledReason, EndpointState
from aforo.webhooks.schedule import DISABLED_AFTER

publish_enum(
    EventType,
    "What has happened.",
    called="WebhookEventType",
    **{kind.name: f"`{kind.value}`: {SHAPES[kind].description}" for kind in EventType},
)
publish_enum(
    EndpointState,
    "Whether an endpoint is told of events.",
    called="WebhookEndpointState",
    ENABLED="It is.",
    DISABLED="It is not.",
)
publish_enum(
    DisabledReason,
    "Why an endpoint is disabled.",
    called="WebhookDisabledReason",
    OWNER="By `disableWebhookEndpoint`.",
    GONE="It answered with status 410.",
    FAILING="It went on failing for five days after a warning.",
)
publish_enum(
    DeliveryState,
    "Where a delivery stands.",
    called="WebhookDeliveryState",
    WAITING="An earlier event of the same object goes first.",
    PENDING="It is due, or waits for its next try.",
    DELIVERED="The endpoint answered with a status of 200 to 299.",
    EXHAUSTED="It was given up after its last try.",
    CANCELLED="The endpoint was disabled or deleted meanwhile.",
)

EndpointId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only to this endpoint.")
]


@relay.fetched_by(queries.endpoints_by_id)
@strawberry.type(description="A URL of yours that is told of events. Its secret is not shown.")
class WebhookEndpoint(Node):
    url: str = strawberry.field(description="Where it is.")
    description: str = strawberry.field(description="What it is for.")
    event_types: list[EventType] = strawberry.field(
        description="It is told of events of these types; of every type where the list is empty."
    )
    state: EndpointState = strawberry.field(description="Whether it is told of events.")
    disabled_reason: DisabledReason | None = strawberry.field(description="Why it is not.")
    disabled_at: datetime | None = strawberry.field(description="Since when it is not.")
    created_at: datetime = strawberry.field(description="When it was created.")
    deleted_at: datetime | None = strawberry.field(
        description="When it was deleted; the log of its deliveries stays for 30 days."
    )
    previous_secret_until: datetime | None = strawberry.field(
        description="Until when the secret before the last rotation signs as well."
    )
    failing_from: datetime | None = strawberry.field(
        description="The first failure after the last success."
    )
    exhausted_deliveries: int = strawberry.field(
        description="Deliveries that were given up since the last success."
    )
    warned_at: datetime | None = strawberry.field(
        description="When its owner was warned that it is going to be disabled."
    )
    warning: str | None = strawberry.field(description="The warning, for a person.")
    quiet_until: datetime | None = strawberry.field(
        description="Until when it asked, by `Retry-After`, to be left alone."
    )

    @classmethod
    def from_row(cls, row: models.WebhookEndpoint) -> Self:
        return cls(
            id=relay.global_id("WebhookEndpoint", row.id),
            url=row.url,
            description=row.description,
            event_types=[EventType(kind) for kind in row.event_types],
            state=row.state,
            disabled_reason=row.disabled_reason,
            disabled_at=row.disabled_at,
            created_at=row.created_at,
            deleted_at=row.deleted_at,
            previous_secret_until=row.previous_until,
            failing_from=row.failing_since,
            exhausted_deliveries=row.exhausted,
            warned_at=row.warned_at,
            warning=_warning(row),
            quiet_until=row.quiet_until,
        )


@strawberry.type(description="One call of an endpoint that came to an end.")
class WebhookAttempt:
    number: int = strawberry.field(description="Its number, from 1 on.")
    started_at: datetime = strawberry.field(description="When it was begun.")
    duration_milliseconds: int = strawberry.field(description="How long it took.")
    status: int | None = strawberry.field(description="The HTTP status that came back.")
    response: str | None = strawberry.field(
        description="The first 1,024 bytes of the body that came back."
    )
    failure: str | None = strawberry.field(description="Why it is no success.")

    @classmethod
    def from_row(cls, row: models.WebhookAttempt) -> Self:
        return cls(
            number=row.number,
            started_at=row.started_at,
            duration_milliseconds=row.duration_ms,
            status=row.status,
            response=row.response,
            failure=row.failure,
        )


@relay.fetched_by(queries.deliveries_by_id)
@strawberry.type(description="One event on its way to one endpoint; kept for 30 days.")
class WebhookDelivery(Node):
    row_id: strawberry.Private[UUID]
    endpoint_id: strawberry.Private[UUID]
    event_row_id: strawberry.Private[UUID]
    event_id: str = strawberry.field(
        description="The header `webhook-id`: the same in every delivery of the event."
    )
    event_type: EventType = strawberry.field(description="What has happened.")
    state: DeliveryState = strawberry.field(description="Where it stands.")
    attempt_count: int = strawberry.field(description="Calls that came to an end.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is tried next; null where that is not planned."
    )
    finished_at: datetime | None = strawberry.field(
        description="When it was delivered, given up or cancelled."
    )
    failure: str | None = strawberry.field(description="Why it is not delivered, so far.")
    created_at: datetime = strawberry.field(description="When it was first to be delivered.")

    @classmethod
    def from_row(cls, row: models.WebhookDelivery) -> Self:
        is_pending = row.state is DeliveryState.PENDING
        return cls(
            id=relay.global_id("WebhookDelivery", row.id),
            row_id=row.id,
            endpoint_id=row.endpoint_id,
            event_row_id=row.event_id,
            event_id=message_id(row.event_id),
            event_type=row.type,
            state=row.state,
            attempt_count=row.attempts,
            next_attempt_at=row.next_at if is_pending else None,
            finished_at=row.finished_at,
            failure=row.failure,
            created_at=row.created_at,
        )

    @field("Where it goes.")
    async def endpoint(self, info: Info) -> WebhookEndpoint:
        row = await info.context.load(queries.endpoints_by_id, self.endpoint_id)
        assert row is not None, "a foreign key holds it"
        return WebhookEndpoint.from_row(row)

    @field("What is sent, as the receiver reads it.")
    async def payload(self, info: Info) -> JSON:
        row = await info.context.load(queries.events_by_id, self.event_row_id)
        assert row is not None, "a foreign key holds it"
        return JSON(json.loads(row.body))

    @field("Its calls, the first one first.")
    async def attempts(
        self, info: Info, first: First = PAGE_DEFAULT, after: After = None
    ) -> Connection[WebhookAttempt]:
        return await children_in_pages(
            info.context,
            queries.ATTEMPTS_BY_DELIVERY,
            self.row_id,
            first=first,
            after=after,
            of=WebhookAttempt.from_row,
        )


@strawberry.type
class WebhookQuery:
    @field("The endpoints that are told of events.", needs=Permission.WEBHOOKS_READ)
    async def webhook_endpoints(
        self,
        info: Info,
        *,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[WebhookEndpoint]:
        listing = queries.endpoints(order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=WebhookEndpoint.from_row
        )

    @field("What is and was delivered to endpoints.", needs=Permission.WEBHOOKS_READ)
    async def webhook_deliveries(
        self,
        info: Info,
        *,
        webhook_endpoint_id: EndpointId = None,
        state: Annotated[
            DeliveryState | None, strawberry.argument(description="Only those that stand so.")
        ] = None,
        event_type: Annotated[
            EventType | None, strawberry.argument(description="Only of events of this type.")
        ] = None,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[WebhookDelivery]:
        endpoint = optional_id("WebhookEndpoint", webhook_endpoint_id, field="webhookEndpointId")
        listing = queries.deliveries(
            endpoint_id=endpoint, state=state, kind=event_type, order=order_by
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=WebhookDelivery.from_row
        )


def _warning(row: models.WebhookEndpoint) -> str | None:
    is_over = row.state is not EndpointState.ENABLED or row.deleted_at is not None
    if row.warned_at is None or is_over:
        return None
    return (
        f"{row.exhausted} deliveries were given up without a success in between. If no call "
        f"succeeds, the endpoint is disabled from {(row.warned_at + DISABLED_AFTER).isoformat()} on"
    )
