"""GraphQL of the metering: usage over time, the event log, and what is quarantined."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Self

import strawberry

from aforo.api.parts import live, relay
from aforo.api.parts.context import Info
from aforo.api.parts.cursors import bad_cursor, cursor_at, cursor_parts
from aforo.api.parts.fields import field, publish_enum, subscription
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.relay import After, Connection, First, Node, optional_id
from aforo.api.parts.scalars import JSON, BigInt
from aforo.api.types.events import Event
from aforo.api.types.periods import PeriodInput
from aforo.catalog.queries import latest_meter, meters_by_id
from aforo.metering import models, queries
from aforo.metering.queries import Bucket, EventRow
from aforo.sdk import Invalid, Period
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.subscriptions.validate import check_time_zone
from aforo.tenants.permissions import Permission

BUCKETS_MAX = 10_000

publish_enum(
    Bucket,
    "Width of a step of a usage series.",
    HOUR="An hour.",
    DAY="A day of the time zone, which has 23 or 25 hours when clocks change.",
    MONTH="A month of the time zone.",
)


@strawberry.type(description="The billable units of one step of a series.")
class UsagePoint:
    start: datetime = strawberry.field(description="When the step starts.")
    quantity: Decimal = strawberry.field(description="Billable units.")
    events: BigInt = strawberry.field(description="Events that were counted.")


@relay.fetched_by(queries.quarantined_events_by_id)
@strawberry.type(description="An event that is kept, but counts only once its cause is mended.")
class QuarantinedEvent(Node):
    code: str = strawberry.field(description="What was unknown, such as `UNKNOWN_CUSTOMER`.")
    message: str = strawberry.field(description="What to mend, for a person.")
    event: JSON = strawberry.field(description="The event as it was sent.")
    received_at: datetime = strawberry.field(description="When it arrived.")

    @classmethod
    def from_row(cls, row: models.QuarantinedEvent) -> Self:
        return cls(
            id=relay.global_id("QuarantinedEvent", row.id),
            code=row.code,
            message=row.message,
            event=JSON(row.body),
            received_at=row.received_at,
        )


CustomerId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only this customer's.")
]
EventType = Annotated[str | None, strawberry.argument(description="Only events of this type.")]


@strawberry.type
class MeteringQuery:
    @field(
        "Usage of a meter over time; null if there is no such meter. Empty steps are left out.",
        needs=Permission.USAGE_READ,
        cost=50,
    )
    async def usage(
        self,
        info: Info,
        *,
        meter_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="The meter, by its id,")
        ] = None,
        meter_code: Annotated[
            str | None,
            strawberry.argument(description="or by its code: then the latest version."),
        ] = None,
        customer_id: CustomerId = None,
        period: Annotated[
            PeriodInput | None,
            strawberry.argument(description="Over which time; the last 30 days if not given."),
        ] = None,
        bucket: Annotated[Bucket, strawberry.argument(description="In steps of.")] = Bucket.DAY,
        time_zone: Annotated[
            str, strawberry.argument(description="IANA zone whose midnights bound the steps.")
        ] = "UTC",
    ) -> list[UsagePoint] | None:
        if (meter_id is None) == (meter_code is None):
            raise Invalid("give either meterId or meterCode", code="BAD_ARGUMENTS", field="meterId")
        check_time_zone(time_zone)
        customer = optional_id("Customer", customer_id, field="customerId")
        id_ = optional_id("Meter", meter_id, field="meterId")
        async with info.context.scope() as scope:
            wanted = period.to_period() if period else Period(scope.now - _MONTH, scope.now)
            _check_steps(wanted, bucket)
            meter = (
                (await meters_by_id(scope, [id_])).get(id_)
                if id_
                else await latest_meter(scope, meter_code or "")
            )
            if meter is None:
                return None
            points = await queries.usage_over_time(
                scope,
                meter,
                wanted,
                watermark=await queries.watermark(scope),
                bucket=bucket,
                time_zone=time_zone,
                customer_id=customer,
            )
        return [
            UsagePoint(start=point.start, quantity=point.quantity, events=BigInt(point.events))
            for point in points
        ]

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

    @field(
        "The events that wait for their cause to be mended.",
        needs=Permission.USAGE_READ,
    )
    async def quarantined_events(
        self,
        info: Info,
        *,
        code: Annotated[
            str | None, strawberry.argument(description="Only those with this code.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[QuarantinedEvent]:
        listing = queries.quarantined_events(code=code, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=QuarantinedEvent.from_row
        )


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


_MONTH = timedelta(days=30)
_SECONDS = {Bucket.HOUR: 3_600, Bucket.DAY: 86_400, Bucket.MONTH: 28 * 86_400}


def _check_steps(period: Period, bucket: Bucket) -> None:
    if period.seconds > BUCKETS_MAX * _SECONDS[bucket]:
        raise Invalid(
            f"the period has more than {BUCKETS_MAX} steps: choose wider ones", field="period"
        )


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
