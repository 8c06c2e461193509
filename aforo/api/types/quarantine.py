"""GraphQL of what is quarantined: shown, released, discarded and corrected."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.answers import decode_json
from aforo.api.parts.context import Info
from aforo.api.parts.cursors import position_of
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, local_id
from aforo.api.parts.scalars import JSON
from aforo.api.types.stages import TRACE, TRACE_COST, TakenEvent, TraceStep
from aforo.billing import traces
from aforo.metering import models, quarantine, queries
from aforo.metering.models import QuarantineState
from aforo.metering.quarantine import SETTLED_AT_ONCE, Correction, Settled, Wanted
from aforo.sdk.encoding import encoded
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    QuarantineState,
    "What became of an event that could not be placed when it came.",
    QUARANTINED="It waits: its cause is to be mended, or it is to be discarded.",
    RELEASED="It counts, as of its own moment.",
    DISCARDED="It never counts; its key is free.",
)


@relay.fetched_by(queries.quarantined_events_by_id)
@strawberry.type(description="An event that is kept, but counts only once its cause is mended.")
class QuarantinedEvent(Node, TakenEvent):
    state: QuarantineState = strawberry.field(description="What became of it.")
    code: str = strawberry.field(
        description="What was unknown when it was last looked at, such as `UNKNOWN_CUSTOMER`."
    )
    message: str = strawberry.field(description="What to mend, for a person.")
    customer: str | None = strawberry.field(
        description="The customer that it names: as sent, unless it was corrected."
    )
    event: JSON = strawberry.field(
        description="The event as it was sent; of an API key there is only the hash."
    )
    corrected: JSON | None = strawberry.field(
        description="What it says in place of that by now; null where nothing was corrected."
    )
    settled_at: datetime | None = strawberry.field(
        description="When it was released or discarded; null where it was not."
    )
    settled_by: str | None = strawberry.field(
        description="By whom: the public id of a key, an address, or the name of a job."
    )

    @classmethod
    def from_row(cls, row: models.QuarantinedEvent) -> Self:
        return cls(
            id=relay.global_id("QuarantinedEvent", row.id),
            event_id=strawberry.ID(str(row.id)),
            idempotency_key=row.body["idempotencyKey"],
            state=row.state,
            code=row.code,
            message=row.message,
            type=row.event_type,
            customer=row.customer,
            event=JSON(_readable(row.body)),
            corrected=JSON(_readable(row.corrected)) if row.corrected else None,
            received_at=row.received_at,
            settled_at=row.settled_at,
            settled_by=row.settled_by,
        )

    @field(TRACE, cost=TRACE_COST)
    async def trace(self, info: Info) -> list[TraceStep]:
        async with info.context.scope() as scope:
            steps = await traces.trace_of_quarantined(scope, UUID(self.event_id))
        return [TraceStep.of(step) for step in steps]


@strawberry.input(
    description="Quarantined events to release: those that meet every condition, of which at least "
    f"one is given; the {SETTLED_AT_ONCE} oldest of them."
)
class ReleaseQuarantinedEventsInput:
    quarantined_event_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description=f"These, at most {SETTLED_AT_ONCE}."
    )
    code: str | None = strawberry.field(default=None, description="Only those with this code.")
    type: str | None = strawberry.field(default=None, description="Only those of this type.")
    customer: str | None = strawberry.field(
        default=None, description="Only those that name this customer."
    )
    after: str | None = strawberry.field(
        default=None, description="The `next` of the call before, to go on behind its events."
    )


@strawberry.input(
    description="Quarantined events to discard: those that meet every condition, of which at least "
    f"one is given; the {SETTLED_AT_ONCE} oldest of them."
)
class DiscardQuarantinedEventsInput(ReleaseQuarantinedEventsInput):
    pass


@strawberry.input(
    description="What a quarantined event should have said. What is not given stays as it is."
)
class CorrectQuarantinedEventInput:
    quarantined_event_id: strawberry.ID = strawberry.field(description="The event.")
    type: str | None = strawberry.field(default=strawberry.UNSET, description="Its type.")
    customer: str | None = strawberry.field(
        default=strawberry.UNSET, description="Its customer; null takes it away."
    )
    api_key: str | None = strawberry.field(
        default=strawberry.UNSET, description="Its API key; null takes it away."
    )
    properties: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="All of its properties."
    )


@strawberry.type(description="Quarantined events that are quarantined still, and why.")
class QuarantineFailure:
    code: str = strawberry.field(description="The code that they have now.")
    events: int = strawberry.field(description="How many of this call.")


@strawberry.type(description="What became of the events of one call.")
class ReleasedEvents:
    released: int = strawberry.field(description="How many count from now on.")
    failures: list[QuarantineFailure] = strawberry.field(
        description="Those that are quarantined still, by code; each says itself what to mend."
    )
    next: str | None = strawberry.field(
        description="Give it as `after` to go on; null where no more events meet the conditions."
    )

    @classmethod
    def of(cls, settled: Settled) -> Self:
        return cls(
            released=settled.events,
            failures=[
                QuarantineFailure(code=code, events=events)
                for code, events in sorted(settled.failures.items())
            ],
            next=_cursor(settled.last),
        )


@strawberry.type(description="Events that never count.")
class DiscardedEvents:
    discarded: int = strawberry.field(description="How many were discarded by this call.")
    next: str | None = strawberry.field(
        description="Give it as `after` to go on; null where no more events meet the conditions."
    )


ReleaseQuarantinedEventsResult = Annotated[
    ReleasedEvents | InvalidProblem | NotFoundProblem,
    strawberry.union("ReleaseQuarantinedEventsResult", description="In numbers, or why nothing."),
]
DiscardQuarantinedEventsResult = Annotated[
    DiscardedEvents | InvalidProblem | NotFoundProblem,
    strawberry.union("DiscardQuarantinedEventsResult", description="In numbers, or why nothing."),
]
CorrectQuarantinedEventResult = Annotated[
    QuarantinedEvent | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CorrectQuarantinedEventResult", description="It, or why it stays as it is."),
]


@strawberry.type
class QuarantineQuery:
    @field(
        "The events that could not be placed when they came; those that wait, unless asked "
        "otherwise.",
        needs=Permission.USAGE_READ,
    )
    async def quarantined_events(
        self,
        info: Info,
        *,
        state: Annotated[
            QuarantineState | None,
            strawberry.argument(description="Only those in this state; all of them for null."),
        ] = QuarantineState.QUARANTINED,
        code: Annotated[
            str | None, strawberry.argument(description="Only those with this code.")
        ] = None,
        type: Annotated[
            str | None, strawberry.argument(description="Only those of this type.")
        ] = None,
        customer: Annotated[
            str | None, strawberry.argument(description="Only those that name this customer.")
        ] = None,
        order_by: ByAge = AgeOrder.OLDEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[QuarantinedEvent]:
        listing = queries.quarantined_events(
            state=state, code=code, event_type=type, customer=customer, order=order_by
        )
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=QuarantinedEvent.from_row
        )


@strawberry.type
class QuarantineMutation:
    @mutation(
        "Let quarantined events count, as of their own moment, where their cause is mended. "
        "What was released or discarded before is left as it is.",
        needs=Permission.USAGE_WRITE,
        counted="quarantinedEventIds",
    )
    async def release_quarantined_events(
        self, info: Info, input: ReleaseQuarantinedEventsInput
    ) -> ReleaseQuarantinedEventsResult:
        async with info.context.scope() as scope:
            settled = await quarantine.release(scope, _wanted(input))
        return ReleasedEvents.of(settled)

    @mutation(
        "Decide that quarantined events never count. Their keys are free again, so that mended "
        "ones can be sent. What was released or discarded before is left as it is.",
        needs=Permission.USAGE_WRITE,
        counted="quarantinedEventIds",
    )
    async def discard_quarantined_events(
        self, info: Info, input: DiscardQuarantinedEventsInput
    ) -> DiscardQuarantinedEventsResult:
        async with info.context.scope() as scope:
            settled = await quarantine.discard(scope, _wanted(input))
        return DiscardedEvents(discarded=settled.events, next=_cursor(settled.last))

    @mutation(
        "Change what a quarantined event says, so that it can be released. What was sent first "
        "stays readable, and sent again it is a duplicate.",
        needs=Permission.USAGE_WRITE,
    )
    async def correct_quarantined_event(
        self, info: Info, input: CorrectQuarantinedEventInput
    ) -> CorrectQuarantinedEventResult:
        given = {
            name: getattr(input, name)
            for name in ("type", "customer", "api_key", "properties")
            if getattr(input, name) is not strawberry.UNSET
        }
        async with info.context.scope() as scope:
            row = await quarantine.correct(
                scope,
                local_id("QuarantinedEvent", input.quarantined_event_id, field=_ID),
                Correction(given=frozenset(given), **given),
                pepper=info.context.runtime.settings.key_pepper,
            )
        return QuarantinedEvent.from_row(row)


_ID = "quarantinedEventId"


def _wanted(input: ReleaseQuarantinedEventsInput) -> Wanted:
    ids = input.quarantined_event_ids
    return Wanted(
        ids=None if ids is None else _local_ids(ids),
        code=input.code,
        event_type=input.type,
        customer=input.customer,
        after=None
        if input.after is None
        else position_of(input.after, queries.quarantined_events()).id,
    )


def _local_ids(ids: list[strawberry.ID]) -> list[UUID]:
    return [local_id("QuarantinedEvent", each, field=f"{_ID}s.{at}") for at, each in enumerate(ids)]


def _cursor(last: UUID | None) -> str | None:
    return None if last is None else encoded(last.bytes)


def _readable(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event with its properties as an object."""
    shown = dict(event)
    if "properties" in shown:
        shown["properties"] = decode_json(shown["properties"])
    return shown
