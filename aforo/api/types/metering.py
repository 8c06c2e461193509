"""GraphQL of the metering: the event log."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import strawberry

from aforo.api.parts import live, relay
from aforo.api.parts.context import Info
from aforo.api.parts.cursors import bad_cursor, cursor_at, cursor_parts
from aforo.api.parts.fields import field, subscription
from aforo.api.parts.relay import After, Connection, First, local_id, optional_id
from aforo.api.types.events import Event, events_of
from aforo.api.types.quarantine import QuarantinedEvent
from aforo.api.types.stages import TakenEvent
from aforo.metering import queries, traces
from aforo.metering.models import QuarantineState
from aforo.metering.queries import EventRow
from aforo.sdk.errors import Invalid
from aforo.storage.listing import PAGE_DEFAULT
from aforo.tenants.permissions import Permission

CustomerId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only this customer's.")
]
EventType = Annotated[str | None, strawberry.argument(description="Only events of this type.")]


@strawberry.type
class MeteringQuery:
    @field(
        "The events of the log, newest first, also those that were amended or voided.",
        needs=Permission.USAGE_READ,
        cost=20,
    )
    async def events(
        self,
        info: Info,
        customer_id: CustomerId = None,
        type: EventType = None,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Event]:
        page = relay.page(first, after)
        position = None if after is None else _position(after)
        customer = optional_id("Customer", customer_id, field="customerId")
        async with info.context.scope() as scope:
            watermark = await queries.watermark(scope)
            rows = await queries.recent_events(
                scope,
                watermark=watermark,
                customer_id=customer,
                event_type=type,
                before=position,
                first=page.rows,
            )

        async def count() -> int:
            async with info.context.scope() as scope:
                return await queries.count_events(
                    scope, watermark=watermark, customer_id=customer, event_type=type
                )

        return relay.connection(rows, page, events_of(rows), cursor=_cursor, count=count)

    @field(
        "The event that was taken under a key, or has an id: an `Event` once it is in the log, a "
        "second or so after its batch was answered; a `QuarantinedEvent` while it waits, and "
        "where it was discarded. Null if there is none; a key is known for 97 days.",
        needs=Permission.USAGE_READ,
        cost=20,
    )
    async def event(
        self,
        info: Info,
        event_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Its `eventId`, or the id of a `QuarantinedEvent`."),
        ] = None,
        idempotency_key: Annotated[
            str | None, strawberry.argument(description="Its key, in place of that.")
        ] = None,
    ) -> TakenEvent | None:
        if (event_id is None) == (idempotency_key is None):
            raise Invalid("give either eventId or idempotencyKey", field="eventId")
        async with info.context.scope() as scope:
            if event_id is not None:
                found: UUID | None = _event_id(event_id)
            else:
                assert idempotency_key is not None, "one of the two is given"
                found = await traces.event_id_of(scope, idempotency_key)
            if found is None:
                return None
            aside = await traces.quarantined_event(scope, found)
            waits = aside is not None and aside.state is not QuarantineState.RELEASED
            row = None if waits else await traces.event_in_log(scope, found)
        if row is not None:
            return events_of([row])(row)
        return None if aside is None else QuarantinedEvent.from_row(aside)


@strawberry.type
class MeteringSubscription:
    @subscription(
        "Events as they enter the log; at most 500 of one segment are shown.",
        needs=Permission.USAGE_READ,
    )
    async def events(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        type: EventType = None,
        after: live.After = None,
    ) -> AsyncIterator[Event]:
        customer = optional_id("Customer", customer_id, field="customerId")
        wants = live.matching(customerId=customer and str(customer), type=type)
        async for message in live.follow(info.context, "events", after=after, wants=wants):
            if Event not in message.memo:
                message.memo[Event] = Event.from_message(message.data)
            yield message.memo[Event]


def _event_id(given: strawberry.ID) -> UUID:
    try:
        return UUID(given)
    except ValueError:
        return local_id("QuarantinedEvent", given, field="eventId")


def _cursor(event: EventRow) -> str:
    return cursor_at(event.segment_id, event.position)


def _position(cursor: str) -> tuple[int, int]:
    segment, position = cursor_parts(cursor, 2)
    if not (segment.isdecimal() and position.isdecimal()):
        raise bad_cursor()
    place = int(segment), int(position)
    if place[0] >= 2**63 or place[1] >= 2**32:
        raise bad_cursor()
    return place
