"""GraphQL of suspected duplicates: events that look like copies of others."""

from typing import Annotated, Self
from uuid import UUID

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.relay import local_id
from aforo.api.parts.scalars import BigInt
from aforo.api.types.events import Event, events_of
from aforo.api.types.periods import PeriodInput
from aforo.metering import queries
from aforo.metering.suspects import (
    EVENTS_MAX,
    Suspects,
    suspected_duplicates,
)
from aforo.sdk import Period
from aforo.stages.queries import in_force
from aforo.stages.registry import SUSPECTED_SECONDS_MAX
from aforo.storage.scope import Scope
from aforo.subscriptions.queries import customers_by_id
from aforo.tenants.permissions import Permission


@strawberry.type(description="An event that says the same as one before it, under another key.")
class SuspectedDuplicate:
    event: Event = strawberry.field(description="The event that may be a copy.")
    before: Event = strawberry.field(description="The event before it that says the same.")


@strawberry.type(
    description="Events that look like copies: of one customer, with the type and all properties "
    "of another one that occurred seconds before. They count."
)
class SuspectedDuplicates:
    count: BigInt = strawberry.field(
        description="How many there are; the first of each run of copies is none."
    )
    pairs: list[SuspectedDuplicate] = strawberry.field(
        description="The latest of them, at most 100."
    )

    @classmethod
    def of(cls, suspects: Suspects) -> Self:
        event_of = events_of([event for pair in suspects.pairs for event in pair])
        return cls(
            count=BigInt(suspects.count),
            pairs=[
                SuspectedDuplicate(event=event_of(event), before=event_of(before))
                for before, event in suspects.pairs
            ],
        )


@strawberry.type
class SuspectQuery:
    @field(
        "Events of a customer that look like copies of others, of those that occurred in a period; "
        f"of more than {EVENTS_MAX:,} events the latest are looked at. Null if there is no such "
        "customer.",
        needs=Permission.USAGE_READ,
        cost=20,
    )
    async def suspected_duplicates(
        self,
        info: Info,
        customer_id: Annotated[strawberry.ID, strawberry.argument(description="The customer.")],
        period: Annotated[PeriodInput, strawberry.argument(description="When they occurred.")],
        within_seconds: Annotated[
            int | None,
            strawberry.argument(
                description="How far apart they are at most, up to "
                f"{SUSPECTED_SECONDS_MAX}; what the stage DEDUPLICATION is set to, if not given."
            ),
        ] = None,
    ) -> SuspectedDuplicates | None:
        customer = local_id("Customer", customer_id, field="customerId")
        async with info.context.scope() as scope:
            if customer not in await customers_by_id(scope, [customer]):
                return None
            if within_seconds is None:
                settings = (await in_force(scope)).deduplication
                within_seconds = settings.suspected_within_seconds
            found = await _suspects(scope, customer, period.to_period(), within_seconds)
        return SuspectedDuplicates.of(found)


async def suspects_of(info: Info, customer_id: UUID, period: Period) -> SuspectedDuplicates | None:
    """Those among the events that an invoice is about; None where the tenant does not look."""
    async with info.context.scope() as scope:
        settings = (await in_force(scope)).deduplication
        if not settings.suspects_duplicates:
            return None
        found = await _suspects(scope, customer_id, period, settings.suspected_within_seconds)
    return SuspectedDuplicates.of(found)


async def _suspects(
    scope: Scope, customer_id: UUID, period: Period, within_seconds: int
) -> Suspects:
    return await suspected_duplicates(
        scope,
        period,
        watermark=await queries.watermark(scope),
        customer_id=customer_id,
        within_seconds=within_seconds,
    )
