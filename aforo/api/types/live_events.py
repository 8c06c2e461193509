"""GraphQL of ingestion as it happens: what becomes of each event, in frames with exact counts."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Self
from uuid import UUID

import strawberry

from aforo.api.parts import live
from aforo.api.parts.answers import decode_json
from aforo.api.parts.context import Info
from aforo.api.parts.fields import publish_enum, subscription
from aforo.api.parts.relay import global_id, optional_id
from aforo.api.parts.scalars import JSON, BigInt
from aforo.metering.commands import VERDICTS
from aforo.metering.telling import Source, Validation
from aforo.metering.verdicts import Stage, VerdictKind
from aforo.metering.watching import Counts, Frame, Frames, Wanted
from aforo.sdk.errors import Invalid
from aforo.storage.live_log import Message
from aforo.tenants.permissions import Permission

FRAME_SECONDS = 0.1
"""At least, between two frames of a watcher."""
WINDOWS_MAX = 200
"""Of one frame; a reader that was slow for longer gets several."""
SHOWN_DEFAULT = 100
SHOWN_MAX = 500
ALL: list[VerdictKind] = []

publish_enum(
    Source,
    "What brought an event.",
    called="EventSource",
    JSON="`POST /v1/events`, as an array.",
    LINES="`POST /v1/events`, an event on each line.",
    CLOUD_EVENTS="`POST /v1/events`, as CloudEvents.",
    GRAPHQL="The mutation `ingestEvents`.",
    IMPORT="The command `aforo import`.",
    INTERNAL="This installation itself, such as its demonstration.",
)
publish_enum(
    Validation,
    "How far the stage VALIDATION came with an event.",
    called="ValidationState",
    PASSED="Nothing was wrong there.",
    FAILED="Something was: see the code.",
    NOT_REACHED="The event was refused for its shape.",
)


@strawberry.type(description="What became of one event, and what it was placed as.")
class LiveEvent:
    received_at: datetime = strawberry.field(description="When it arrived.")
    verdict: VerdictKind = strawberry.field(description="What became of it.")
    source: Source = strawberry.field(description="What brought it.")
    stage: Stage | None = strawberry.field(
        description="Where the verdict was found; null if it is ACCEPTED."
    )
    code: str | None = strawberry.field(
        description="A stable name of the reason, as in the answer to its batch; `BATCH_REFUSED` "
        "if it was good itself in an atomic batch that was not kept. Null if it is ACCEPTED."
    )
    message: str | None = strawberry.field(description="The reason, for a person.")
    validation: Validation = strawberry.field(description="How far its validation came.")
    event_id: strawberry.ID | None = strawberry.field(
        description="Of the event that is kept: for a DUPLICATE or CONFLICT the first one."
    )
    idempotency_key: str | None = strawberry.field(
        description="Its key; null where it is none that can be shown."
    )
    type: str | None = strawberry.field(description="What meters select it by.")
    customer: str | None = strawberry.field(description="Your own id of the customer, as sent.")
    customer_id: strawberry.ID | None = strawberry.field(
        description="The `Customer`; null where there is none of that id."
    )
    team_id: strawberry.ID | None = strawberry.field(description="The `Team`, by its API key.")
    agent_id: strawberry.ID | None = strawberry.field(description="The `Agent`, by its API key.")
    customer_key_id: strawberry.ID | None = strawberry.field(
        description="The `CustomerKey` that it names; the key itself is never shown."
    )
    subscription_id: strawberry.ID | None = strawberry.field(
        description="The `CustomerSubscription` that it belongs to."
    )
    product_id: strawberry.ID | None = strawberry.field(description="The `Product` of that.")
    meters: list[str] = strawberry.field(
        description="Codes of the meters that count it, or would if it were accepted."
    )
    occurred_at: datetime | None = strawberry.field(description="When it happened.")
    properties: JSON | None = strawberry.field(
        description="What it says; null if it was refused for its shape or time."
    )
    cost: Decimal | None = strawberry.field(description="What serving it cost; null is unknown.")
    cost_currency: str | None = strawberry.field(description="ISO 4217 code of the cost.")
    supersedes: str | None = strawberry.field(
        description="The key of the event whose place it takes, or that it voids."
    )
    is_void: bool = strawberry.field(description="Whether it only voids that one.")

    @classmethod
    def from_message(cls, told: Mapping[str, Any]) -> Self:
        return cls(
            received_at=datetime.fromisoformat(told["receivedAt"]),
            verdict=VerdictKind(told["verdict"]),
            source=Source(told["source"]),
            stage=None if told["stage"] is None else Stage(told["stage"]),
            code=told["code"],
            message=told["message"],
            validation=Validation(told["validation"]),
            event_id=told["eventId"] and strawberry.ID(told["eventId"]),
            idempotency_key=told["idempotencyKey"],
            type=told["type"],
            customer=told["customer"],
            customer_id=_id("Customer", told["customerId"]),
            team_id=_id("Team", told["teamId"]),
            agent_id=_id("Agent", told["agentId"]),
            customer_key_id=_id("CustomerKey", told["customerKeyId"]),
            subscription_id=_id("CustomerSubscription", told["subscriptionId"]),
            product_id=_id("Product", told["productId"]),
            meters=told["meters"],
            occurred_at=told["occurredAt"] and datetime.fromisoformat(told["occurredAt"]),
            properties=told["properties"] and JSON(decode_json(told["properties"])),
            cost=None if told["cost"] is None else Decimal(told["cost"]),
            cost_currency=told["costCurrency"],
            supersedes=told["supersedes"],
            is_void=told["isVoid"],
        )


@strawberry.type(description="Events that meet the filters, in exact numbers.")
class LiveCounts:
    received: BigInt = strawberry.field(description="All of them.")
    shown: BigInt = strawberry.field(description="Those that were shown.")
    dropped: BigInt = strawberry.field(description="Those that were counted and not shown.")
    accepted: BigInt = strawberry.field(description="Those that were accepted.")
    duplicates: BigInt = strawberry.field(description="Those that were taken before.")
    conflicts: BigInt = strawberry.field(description="Those that have the key of another one.")
    rejected: BigInt = strawberry.field(description="Those that are wrong.")
    quarantined: BigInt = strawberry.field(description="Those that wait for what is unknown.")

    @classmethod
    def of(cls, counts: Counts) -> Self:
        return cls(
            received=BigInt(counts.received),
            shown=BigInt(counts.shown),
            dropped=BigInt(counts.dropped),
            accepted=BigInt(counts.by_verdict[VerdictKind.ACCEPTED]),
            duplicates=BigInt(counts.by_verdict[VerdictKind.DUPLICATE]),
            conflicts=BigInt(counts.by_verdict[VerdictKind.CONFLICT]),
            rejected=BigInt(counts.by_verdict[VerdictKind.REJECTED]),
            quarantined=BigInt(counts.by_verdict[VerdictKind.QUARANTINED]),
        )


@strawberry.type(description="What happened since the frame before.")
class LiveFrame:
    counts: LiveCounts = strawberry.field(description="The events of this frame.")
    totals: LiveCounts = strawberry.field(
        description="The events of all frames of this subscription so far."
    )
    events: list[LiveEvent] = strawberry.field(
        description="The newest of them in full, in the order in which they came."
    )

    @classmethod
    def of(cls, frame: Frame, messages: list[Message]) -> Self:
        return cls(
            counts=LiveCounts.of(frame.counts),
            totals=LiveCounts.of(frame.totals),
            events=[_shared(messages[place].memo, told) for place, told in frame.shown],
        )


@strawberry.type
class LiveEventsSubscription:
    @subscription(
        "Every event as it gets its verdict, also those that are refused, in at most 10 frames a "
        "second. The counts are exact, whatever is shown.",
        needs=Permission.USAGE_READ,
    )
    async def live_events(
        self,
        info: Info,
        *,
        product_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this product's.")
        ] = None,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
        type: Annotated[
            str | None, strawberry.argument(description="Only events of this type.")
        ] = None,
        verdicts: Annotated[
            list[VerdictKind],
            strawberry.argument(description="Only these verdicts; all if it is empty."),
        ] = ALL,
        shown_max: Annotated[
            int,
            strawberry.argument(description=f"At most so many are shown, up to {SHOWN_MAX}."),
        ] = SHOWN_DEFAULT,
        after: live.After = None,
    ) -> AsyncIterator[LiveFrame]:
        if not 0 <= shown_max <= SHOWN_MAX:
            raise Invalid(f"shownMax is 0 to {SHOWN_MAX}", code="BAD_PAGE", field="shownMax")
        product = optional_id("Product", product_id, field="productId")
        customer = optional_id("Customer", customer_id, field="customerId")
        wanted = Wanted(
            verdicts=frozenset(verdicts) or None,
            product_id=None if product is None else str(product),
            customer_id=None if customer is None else str(customer),
            type=type,
        )
        frames, clock = Frames(wanted, shown_max), asyncio.get_running_loop().time
        tenant = info.context.runtime.live.of(info.context.caller.tenant_id)
        async with (
            tenant.watching(VERDICTS),
            live.opened(info.context, VERDICTS, after=after, wants=wanted.any_in) as follower,
        ):
            not_before = 0.0
            while True:
                # The pause comes first: what is taken is told at once, and its cursor is true.
                await asyncio.sleep(max(0.0, not_before - clock()))
                messages = await follower.several(most=WINDOWS_MAX)
                not_before = clock() + FRAME_SECONDS
                frame = frames.of([message.data for message in messages])
                if frame.counts.received:
                    yield LiveFrame.of(frame, messages)


def _shared(memo: dict[Any, Any], told: Mapping[str, Any]) -> LiveEvent:
    """The event, made once for all who watch; it lives as long as its window."""
    made: dict[int, LiveEvent] = memo.setdefault(LiveEvent, {})
    if id(told) not in made:
        made[id(told)] = LiveEvent.from_message(told)
    return made[id(told)]


def _id(kind: str, id_: str | None) -> strawberry.ID | None:
    return None if id_ is None else global_id(kind, UUID(id_))
