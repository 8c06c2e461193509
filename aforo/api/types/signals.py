"""GraphQL of the signals: detections, read and followed live."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts import live, relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum, subscription
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, optional_id
from aforo.api.parts.scalars import JSON, BigInt
from aforo.api.types.subscriptions import Customer, customer_of
from aforo.sdk.detection import Level
from aforo.sdk.errors import Invalid
from aforo.signals import commands, models, queries
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    Level,
    "The rungs of the ladder; a deeper one includes the milder actions.",
    ALERT="Tell people.",
    THROTTLE="Slow the customer down.",
    BLOCK="Stop the customer.",
)

CustomerId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only this customer's.")
]
DetectorKey = Annotated[
    str | None, strawberry.argument(description="Only of the detector with this key.")
]


@strawberry.input(description="Settings of a detector, for all customers or for one.")
class SetDetectorSettingsInput:
    detector: str = strawberry.field(description="Key of a detector; see `detectors`.")
    settings: JSON = strawberry.field(
        description="The settings to choose, as an object; the others stay as the level above."
    )
    customer_id: strawberry.ID | None = strawberry.field(
        default=None, description="The customer they are for; without it, every customer."
    )


@strawberry.type(description="Settings of a detector that a tenant has chosen.")
class DetectorSettings:
    detector: str = strawberry.field(description="Key of the detector.")
    settings: JSON = strawberry.field(description="What was chosen, by name.")
    created_at: datetime = strawberry.field(description="Since when it is in force.")

    @classmethod
    def from_row(cls, row: models.DetectorSettings) -> Self:
        return cls(detector=row.detector, settings=JSON(row.settings), created_at=row.created_at)


SetDetectorSettingsResult = Annotated[
    DetectorSettings | InvalidProblem | NotFoundProblem,
    strawberry.union(
        "SetDetectorSettingsResult", description="The settings, or why they are refused."
    ),
]


@relay.fetched_by(queries.signals_by_id)
@strawberry.type(description="A detection; it fires once per period and threshold.")
class Signal(Node):
    customer_id: strawberry.Private[UUID]
    detector: str = strawberry.field(description="Key of the detector.")
    subject: str = strawberry.field(description="What it is about; `*` is the customer as a whole.")
    threshold: str = strawberry.field(description="Which of the detector's limits was breached.")
    period_start: datetime = strawberry.field(description="The first moment of its period.")
    period_end: datetime = strawberry.field(description="The first moment after its period.")
    level: Level = strawberry.field(description="How far up the ladder it reaches.")
    value: Decimal | None = strawberry.field(description="What was measured; null if undefined.")
    limit: Decimal | None = strawberry.field(description="The limit, in the unit of the value.")
    numbers: JSON = strawberry.field(description="All numbers behind it, by name.")
    explanation: str = strawberry.field(description="What was found, for a person.")
    event_ids: list[strawberry.ID] = strawberry.field(
        description="Events that weigh most, at most 100."
    )
    event_count: BigInt = strawberry.field(description="All events that were looked at.")
    settings: JSON = strawberry.field(description="The detector's settings at that moment.")
    created_at: datetime = strawberry.field(description="When it fired.")

    @classmethod
    def from_row(cls, row: models.Signal) -> Self:
        return cls(
            id=relay.global_id("Signal", row.id),
            customer_id=row.customer_id,
            detector=row.detector,
            subject=row.subject,
            threshold=row.threshold,
            period_start=row.period_start,
            period_end=row.period_end,
            level=row.level,
            value=row.value,
            limit=row.limit,
            numbers=JSON(row.numbers),
            explanation=row.explanation,
            event_ids=[strawberry.ID(each) for each in row.event_ids],
            event_count=BigInt(row.event_count),
            settings=JSON(row.settings),
            created_at=row.created_at,
        )

    @field("Whom it is about.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)


@strawberry.type
class SignalQuery:
    @field("The signals.", needs=Permission.SIGNALS_READ)
    async def signals(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        detector: DetectorKey = None,
        level: Annotated[
            Level | None, strawberry.argument(description="Only those of this level.")
        ] = None,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Signal]:
        listing = queries.signals(
            customer_id=optional_id("Customer", customer_id, field="customerId"),
            detector=detector,
            level=level,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Signal.from_row
        )


@strawberry.type
class SignalMutation:
    @mutation(
        "Choose settings of a detector; signals that have fired stay as they are.",
        needs=Permission.SIGNALS_WRITE,
    )
    async def set_detector_settings(
        self, info: Info, input: SetDetectorSettingsInput
    ) -> SetDetectorSettingsResult:
        if not isinstance(input.settings, dict):
            raise Invalid("settings are a JSON object", field="settings")
        customer_id = optional_id("Customer", input.customer_id, field="customerId")
        async with info.context.scope() as scope:
            row = await commands.set_detector_settings(
                scope,
                detector=input.detector,
                settings=input.settings,
                customer_id=customer_id,
            )
        return DetectorSettings.from_row(row)


@strawberry.type
class SignalSubscription:
    @subscription("Signals as they fire.", needs=Permission.SIGNALS_READ)
    async def signals(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        detector: DetectorKey = None,
        level: Annotated[
            Level | None, strawberry.argument(description="Only those of this level.")
        ] = None,
        after: live.After = None,
    ) -> AsyncIterator[Signal]:
        customer = optional_id("Customer", customer_id, field="customerId")
        wants = live.matching(
            customerId=customer and str(customer),
            detector=detector,
            level=level and level.name,
        )
        async for message in live.follow(info.context, "signals", after=after, wants=wants):
            row = await live.row(info.context, message, queries.signals_by_id)
            if row is not None:
                yield Signal.from_row(row)
