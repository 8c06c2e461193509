"""GraphQL of the metering: the event log."""

from collections.abc import AsyncIterator
from typing import Annotated

import strawberry

from aforo.api.parts import live, relay
from aforo.api.parts.context import Info
from aforo.api.parts.cursors import bad_cursor, cursor_at, cursor_parts
from aforo.api.parts.fields import field, subscription
from aforo.api.parts.relay import After, Connection, First, optional_id
from aforo.api.types.events import Event
from aforo.metering import queries
from aforo.metering.queries import EventRow
from aforo.storage.listing import PAGE_DEFAULT
from aforo.tenants.permissions import Permission

CustomerId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only this customer's.")
]
EventType = Annotated[str | None, strawberry.argument(description="Only events of this type.")]


@strawberry.type
class MeteringQuery:
    @field("The events that count, newest first.", needs=Permission.USAGE_READ, cost=20)
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

        return relay.connection(rows, page, Event.from_row, cursor=_cursor, count=count)


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
