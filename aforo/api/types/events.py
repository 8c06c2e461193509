"""GraphQL of the events: those in the log, and those that stand behind an invoice line."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import strawberry

from aforo.api.parts.answers import decode_json
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.scalars import JSON
from aforo.api.types.catalog import Entitlement, Meter
from aforo.api.types.event_blocks import EventBlock, EventState, Shown, Told
from aforo.api.types.stages import TRACE, TRACE_COST, TakenEvent, TraceStep
from aforo.api.types.subscriptions import Customer, customer_of
from aforo.billing import traces
from aforo.billing.queries import SourceEvent
from aforo.metering.corrections import Correction, superseding
from aforo.metering.queries import EventRow


@strawberry.type(description="The event that takes the place of another one, or voids it.")
class EventCorrection:
    event_id: strawberry.ID = strawberry.field(description="Its `eventId`.")
    idempotency_key: str = strawberry.field(description="Its key.")
    is_void: bool = strawberry.field(
        description="Whether it only voids that one; else it takes its place."
    )
    reason: str | None = strawberry.field(description="Why, for people; null if nobody said so.")
    received_at: datetime = strawberry.field(description="When it arrived.")

    @classmethod
    def of(cls, correction: Correction) -> Self:
        return cls(
            event_id=strawberry.ID(str(correction.event_id)),
            idempotency_key=correction.idempotency_key,
            is_void=correction.is_void,
            reason=correction.reason or None,
            received_at=correction.received_at,
        )


def events_of(
    rows: Sequence[EventRow | SourceEvent],
) -> "Callable[[EventRow | SourceEvent], Event]":
    """What makes the events of one answer from their rows."""
    shown = Shown(rows)
    return lambda row: Event.from_row(row, shown)


@strawberry.type(description="A usage event that was accepted.")
class Event(TakenEvent):
    customer_id: strawberry.Private[UUID]
    shown: strawberry.Private[Shown]
    occurred_at: datetime = strawberry.field(description="When it happened.")
    properties: JSON = strawberry.field(description="What it says.")
    cost: Decimal | None = strawberry.field(
        description="What serving it cost, fixed when it arrived; null is unknown, not free."
    )
    cost_currency: str | None = strawberry.field(description="ISO 4217 code of the cost.")
    supersedes: str | None = strawberry.field(
        description="The key of the event whose place it takes; null if there is none."
    )

    @classmethod
    def from_row(cls, row: EventRow | SourceEvent, shown: Shown) -> Self:
        return cls(
            customer_id=row.customer_id,
            shown=shown,
            event_id=strawberry.ID(str(row.event_id)),
            idempotency_key=row.idempotency_key,
            type=row.type,
            occurred_at=row.occurred_at,
            received_at=row.received_at,
            properties=JSON(decode_json(row.properties)),
            cost=row.cost,
            cost_currency=row.cost_currency or None,
            supersedes=row.supersedes or None,
        )

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """The event of a live message."""
        cost = message["cost"]
        customer_id = UUID(message["customerId"])
        occurred_at = datetime.fromisoformat(message["occurredAt"])
        told = Told(UUID(message["id"]), message["type"], customer_id, occurred_at)
        return cls(
            customer_id=customer_id,
            shown=Shown([told]),
            event_id=strawberry.ID(message["id"]),
            idempotency_key=message["idempotencyKey"],
            type=message["type"],
            occurred_at=occurred_at,
            received_at=datetime.fromisoformat(message["receivedAt"]),
            properties=JSON(decode_json(message["properties"])),
            cost=None if cost is None else Decimal(cost),
            cost_currency=message["costCurrency"],
            supersedes=message.get("supersedes"),  # Older messages have none.
        )

    @field(
        "The event that takes its place, or voids it: then it does not count. Null while it counts."
    )
    async def superseded_by(self, info: Info) -> EventCorrection | None:
        found = await info.context.load(superseding, UUID(self.event_id))
        return None if found is None else EventCorrection.of(found)

    @field("The payer that it is counted for.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)

    @field("Whether it counts, by the log as it is now.", cost=2)
    async def state(self, info: Info) -> EventState:
        if await info.context.load(superseding, UUID(self.event_id)) is not None:
            return EventState.SUPERSEDED
        blocks = await self.shown.blocks(info, UUID(self.event_id))
        return EventState.BLOCKED if blocks else EventState.COUNTED

    @field("The quotas that block it; none where it counts.", cost=2)
    async def blocks(self, info: Info) -> list[EventBlock]:
        return [
            EventBlock(
                meter=Meter.from_row(each.meter),
                entitlement=Entitlement.from_row(each.entitlement),
                limit=each.limit,
                used_before=each.used_before,
            )
            for each in await self.shown.blocks(info, UUID(self.event_id))
        ]

    @field(TRACE, cost=TRACE_COST)
    async def trace(self, info: Info) -> list[TraceStep]:
        async with info.context.scope() as scope:
            steps = await traces.trace_in_log(
                scope,
                customer_id=self.customer_id,
                event_type=self.type,
                occurred_at=self.occurred_at,
                key=self.idempotency_key,
            )
        return [TraceStep.of(step) for step in steps]
