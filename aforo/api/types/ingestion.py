"""GraphQL of sending events: a few at a time, with the verdicts that `POST /v1/events` gives."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry

from aforo.api.auth.requests import Refused
from aforo.api.parts.context import Info
from aforo.api.parts.fields import mutation, publish_enum
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem, Problem
from aforo.api.parts.scalars import JSON, show_moment
from aforo.api.parts.taking import take
from aforo.api.protocol.rates import take_events
from aforo.metering.commands import BatchRefused
from aforo.metering.corrections import superseded, void_key
from aforo.metering.telling import Source
from aforo.metering.verdicts import IngestAnswer, Stage, Verdict, VerdictKind
from aforo.sdk.errors import Invalid, Unavailable
from aforo.storage.audit import Thing
from aforo.tenants.permissions import Permission

EVENTS_MAX = 100
VOIDS_MAX = 1_000

publish_enum(
    VerdictKind,
    "What becomes of an event.",
    ACCEPTED="It is kept, and billed if a price covers it.",
    DUPLICATE="The same event was taken before.",
    CONFLICT="Another event was sent under this key, or superseded the same one, before; that "
    "first one stands.",
    REJECTED="It is wrong. Its key stays free: mend it and send it again.",
    QUARANTINED="Its customer, meter, key or subscription is unknown; it is kept, with its key.",
)
publish_enum(
    Stage,
    "The stage that spoke the verdict on an event.",
    called="IngestionStage",
    INGESTION="Its shape.",
    VALIDATION="Its time, its meters, its customer and subscription.",
    DEDUPLICATION="Whether its key was seen before, and what it supersedes.",
    ENRICHMENT="Whose API key it names.",
)


@strawberry.input(description="A usage event, with the rules of `POST /v1/events`.")
class UsageEventInput:
    idempotency_key: str = strawberry.field(
        description="1 to 255 characters, of your choice; the same event has the same key."
    )
    type: str = strawberry.field(description="What meters select it by, 1 to 128 characters.")
    customer: str | None = strawberry.field(
        default=None, description="Your own id of the customer."
    )
    api_key: str | None = strawberry.field(
        default=None, description="A key of the customer, beside `customer` or in its place."
    )
    occurred_at: datetime | None = strawberry.field(
        default=None,
        description="When it happened. Always send it: it is the moment of receipt otherwise.",
    )
    properties: JSON | None = strawberry.field(
        default=None, description="An object of what it says; numbers stay exact."
    )

    def sent(self) -> dict[str, Any]:
        """The event as `POST /v1/events` has it."""
        return {
            "idempotencyKey": self.idempotency_key,
            "type": self.type,
            "customer": self.customer,
            "apiKey": self.api_key,
            "occurredAt": show_moment(self.occurred_at) if self.occurred_at else None,
            "properties": self.properties,
        }


@strawberry.input(description="Usage events to send.")
class IngestEventsInput:
    events: list[UsageEventInput] = strawberry.field(description=f"At most {EVENTS_MAX}.")
    atomic: bool = strawberry.field(
        default=False,
        description="Whether none is kept unless each is accepted or a duplicate.",
    )
    backfill: str | None = strawberry.field(
        default=None, description="The name of the open backfill that they are added to."
    )


@strawberry.input(description="An event that takes the place of another one.")
class AmendEventInput:
    supersedes: str = strawberry.field(description="The key of that one, which counts no more.")
    event: UsageEventInput = strawberry.field(
        description="What counts in its place: all that it says, under a key of its own."
    )
    reason: str | None = strawberry.field(
        default=None, description="Why, for people; at most 500 characters."
    )


@strawberry.input(description="Events that are to count no more.")
class VoidEventsInput:
    idempotency_keys: list[str] = strawberry.field(description=f"Their keys, at most {VOIDS_MAX}.")
    reason: str = strawberry.field(description="Why, for people; 1 to 500 characters.")
    atomic: bool = strawberry.field(
        default=False, description="Whether none is voided unless each can be, or was by this."
    )


@strawberry.type(description="What became of one event that was not simply accepted.")
class EventVerdict:
    index: int = strawberry.field(description="Its place among those sent, from 0.")
    idempotency_key: str | None = strawberry.field(
        description="Its key; null where it is none that can be shown."
    )
    verdict: VerdictKind = strawberry.field(description="What became of it.")
    stage: Stage = strawberry.field(description="Where that was found.")
    code: str = strawberry.field(description="A stable name of the reason, such as `BAD_VALUE`.")
    message: str = strawberry.field(description="What is wrong and what to do, for a person.")
    event_id: strawberry.ID | None = strawberry.field(
        description="The `eventId` of the first event, for a DUPLICATE or CONFLICT."
    )

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        return cls(
            index=verdict.index,
            idempotency_key=verdict.idempotency_key,
            verdict=verdict.kind,
            stage=verdict.stage,
            code=verdict.code,
            message=verdict.message,
            event_id=strawberry.ID(str(verdict.event_id)) if verdict.event_id else None,
        )


_VERDICTS = "Every verdict that is not ACCEPTED, in the order of the events."


@strawberry.type(description="Events that were taken, in numbers; what was accepted is durable.")
class IngestedEvents:
    accepted: int = strawberry.field(description="How many were accepted.")
    duplicates: int = strawberry.field(description="How many were taken before.")
    conflicts: int = strawberry.field(description="How many have the key of another one.")
    rejected: int = strawberry.field(description="How many are wrong.")
    quarantined: int = strawberry.field(description="How many wait for what is unknown.")
    verdicts: list[EventVerdict] = strawberry.field(description=_VERDICTS)

    @classmethod
    def of(cls, answer: IngestAnswer) -> Self:
        return cls(
            accepted=answer.accepted,
            duplicates=answer.duplicates,
            conflicts=answer.conflicts,
            rejected=answer.rejected,
            quarantined=answer.quarantined,
            verdicts=_told(answer.verdicts),
        )


@strawberry.type(description="Not every event was good, so none was kept: says why of each.")
class EventsRefusedProblem(Problem):
    verdicts: list[EventVerdict] = strawberry.field(description=_VERDICTS)


_RESULT = "The verdicts, or why nothing was taken."
IngestEventsResult = Annotated[
    IngestedEvents | EventsRefusedProblem | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("IngestEventsResult", description=_RESULT),
]
AmendEventResult = Annotated[
    IngestedEvents | InvalidProblem,
    strawberry.union("AmendEventResult", description=_RESULT),
]
VoidEventsResult = Annotated[
    IngestedEvents | EventsRefusedProblem | InvalidProblem,
    strawberry.union("VoidEventsResult", description=_RESULT),
]


@strawberry.type
class IngestionMutation:
    @mutation(
        f"Send up to {EVENTS_MAX} events; for more there is `POST /v1/events`. They are kept by "
        "themselves, under keys of their own: sent again they are duplicates, whatever became of "
        "the operation.",
        needs=Permission.INGEST,
        counted="events",
    )
    async def ingest_events(self, info: Info, input: IngestEventsInput) -> IngestEventsResult:
        _demand_at_most(EVENTS_MAX, input.events, field="events")
        sent = [event.sent() for event in input.events]
        return await _send(info, sent, atomic=input.atomic, field="events", backfill=input.backfill)

    @mutation(
        "Send an event that takes the place of another one: from now on it counts in its stead. "
        "Like every event it is kept by itself; sent again it is a duplicate.",
        needs=Permission.INGEST,
    )
    async def amend_event(self, info: Info, input: AmendEventInput) -> AmendEventResult:
        event = input.event.sent() | {"supersedes": input.supersedes, "reason": input.reason}
        answer = await _send(info, [event], atomic=False, field="event")
        assert isinstance(answer, IngestedEvents), "only what is atomic is refused as a whole"
        await _record(info, [input.supersedes], answer, reason=input.reason)
        return answer

    @mutation(
        f"Take up to {VOIDS_MAX:,} events out of the count, from now on. Each is voided by an "
        "event with the key `void`, a space and its key; done again those are duplicates.",
        needs=Permission.INGEST,
    )
    async def void_events(self, info: Info, input: VoidEventsInput) -> VoidEventsResult:
        keys = input.idempotency_keys
        _demand_at_most(VOIDS_MAX, keys, field="idempotencyKeys")
        sent = [
            {"idempotencyKey": void_key(key), "voids": key, "reason": input.reason} for key in keys
        ]
        answer = await _send(info, sent, atomic=input.atomic, field="idempotencyKeys")
        await _record(info, keys, answer, reason=input.reason)
        return answer


def _demand_at_most(most: int, given: Sequence[object], *, field: str) -> None:
    if len(given) > most:
        raise Invalid(
            f"at most {most} events are sent at once, not {len(given)}: "
            "send them in parts, or with POST /v1/events",
            code="TOO_MANY_EVENTS",
            field=field,
        )


async def _send(
    info: Info, events: Sequence[object], *, atomic: bool, field: str, backfill: str | None = None
) -> IngestedEvents | EventsRefusedProblem:
    runtime, caller = info.context.runtime, info.context.caller
    try:
        await take_events(runtime, caller, len(events))
    except Refused as refused:  # As an error that says: nothing was done, try again.
        wait = int(refused.headers["Retry-After"])
        raise Unavailable(refused.message, code=refused.code, retry_after_seconds=wait) from refused
    try:
        answer = await take(
            runtime,
            caller.tenant_id,
            events,
            source=Source.GRAPHQL,
            atomic=atomic,
            backfill=backfill,
        )
    except BatchRefused as error:
        return EventsRefusedProblem(
            code="BATCH_REFUSED",
            message="not every event is good, so none was kept: mend them and send all again",
            field=field,
            verdicts=_told(error.answer.verdicts),
        )
    return IngestedEvents.of(answer)


async def _record(
    info: Info,
    keys: Sequence[str],
    answer: IngestedEvents | EventsRefusedProblem,
    *,
    reason: str | None,
) -> None:
    """Write into the audit log which events were superseded by what was sent."""
    if isinstance(answer, EventsRefusedProblem):
        return
    refused = {
        verdict.index
        for verdict in answer.verdicts
        if verdict.verdict is not VerdictKind.QUARANTINED
    }
    done = [key for index, key in enumerate(keys) if index not in refused]
    if not done:
        return
    async with info.context.scope() as scope:
        things = [
            Thing(
                "Event",
                event_id,
                after={"idempotencyKey": key, "supersededBy": str(by), "reason": reason},
            )
            for key, (event_id, by) in (await superseded(scope, done)).items()
        ]
        await scope.record(info.field_name, *things)


def _told(verdicts: Sequence[Verdict]) -> list[EventVerdict]:
    return [EventVerdict.of(verdict) for verdict in verdicts]
