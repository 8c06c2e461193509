"""GraphQL of the actions: what followed from signals, read and followed live."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.actions import models, queries
from aforo.actions.models import ActionMode, ActionState
from aforo.api.parts import live, relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, publish_enum, subscription
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.relay import After, Connection, First, Node, optional_id
from aforo.api.parts.scalars import JSON
from aforo.api.types.signals import CustomerId, Signal
from aforo.api.types.subscriptions import Customer, customer_of
from aforo.sdk.detection import Level
from aforo.signals.queries import signals_by_id
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    ActionMode,
    "Whether the ladder may act.",
    SHADOW="It only records what it would do.",
    AUTO="It acts.",
)
publish_enum(
    ActionState,
    "Where an action stands.",
    STANDBY="Nothing was done.",
    QUEUED="It is to be done.",
    TRIGGERED="It was done.",
    RELEASED="It was taken back.",
    OVERRIDDEN="A person decided otherwise.",
    EXPIRED="Its time is over.",
)


SignalId = Annotated[strawberry.ID | None, strawberry.argument(description="Only this signal's.")]


@relay.fetched_by(queries.actions_by_id)
@strawberry.type(description="One decision of the ladder, also the decision not to act.")
class Action(Node):
    signal_id: strawberry.Private[UUID]
    customer_id: strawberry.Private[UUID]
    tier: Level = strawberry.field(description="The rung of the ladder.")
    mode: ActionMode = strawberry.field(description="Whether the ladder may act.")
    state: ActionState = strawberry.field(description="Where it stands.")
    actor: str = strawberry.field(description="Who decided.")
    reason: str = strawberry.field(description="Why, for a person.")
    event_ids: list[strawberry.ID] = strawberry.field(description="Events behind the signal.")
    configuration: JSON = strawberry.field(description="What the decision went by.")
    before: JSON = strawberry.field(description="How it was.")
    after: JSON = strawberry.field(description="How it is, or would be.")
    result: str = strawberry.field(description="What came of it.")
    created_at: datetime = strawberry.field(description="When it was decided.")

    @classmethod
    def from_row(cls, row: models.OrchestrationAction) -> Self:
        return cls(
            id=relay.global_id("Action", row.id),
            signal_id=row.signal_id,
            customer_id=row.customer_id,
            tier=row.tier,
            mode=row.mode,
            state=row.state,
            actor=row.actor,
            reason=row.reason,
            event_ids=[strawberry.ID(each) for each in row.event_ids],
            configuration=JSON(row.configuration),
            before=JSON(row.before),
            after=JSON(row.after),
            result=row.result,
            created_at=row.created_at,
        )

    @field("The signal that led to it.")
    async def signal(self, info: Info) -> Signal:
        row = await info.context.load(signals_by_id, self.signal_id)
        assert row is not None, "a foreign key holds it"
        return Signal.from_row(row)

    @field("Whom it is about.")
    async def customer(self, info: Info) -> Customer:
        return await customer_of(info, self.customer_id)


@strawberry.type
class ActionQuery:
    @field("The actions.", needs=Permission.SIGNALS_READ)
    async def actions(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        signal_id: SignalId = None,
        tier: Annotated[
            Level | None, strawberry.argument(description="Only those of this tier.")
        ] = None,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Action]:
        listing = queries.actions(
            customer_id=optional_id("Customer", customer_id, field="customerId"),
            signal_id=optional_id("Signal", signal_id, field="signalId"),
            tier=tier,
            order=order_by,
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Action.from_row
        )


@strawberry.type
class ActionSubscription:
    @subscription("Actions as they are decided.", needs=Permission.SIGNALS_READ)
    async def actions(
        self,
        info: Info,
        *,
        customer_id: CustomerId = None,
        signal_id: SignalId = None,
        after: live.After = None,
    ) -> AsyncIterator[Action]:
        customer = optional_id("Customer", customer_id, field="customerId")
        signal = optional_id("Signal", signal_id, field="signalId")
        wants = live.matching(
            customerId=customer and str(customer), signalId=signal and str(signal)
        )
        async for message in live.follow(info.context, "actions", after=after, wants=wants):
            row = await live.row(info.context, message, queries.actions_by_id)
            if row is not None:
                yield Action.from_row(row)
