"""GraphQL of backfills: events that arrive over a while, and begin or cease to count at once."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem, NotFoundProblem
from aforo.api.parts.relay import After, Connection, First, Node, local_id
from aforo.api.parts.scalars import BigInt
from aforo.metering import backfills, models
from aforo.metering.models import BackfillState
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    BackfillState,
    "Whether the events of a backfill count.",
    OPEN="Not yet: events are added.",
    CLOSED="Yes; none is added any more.",
    REVERTED="Not any more, and never again.",
)


@relay.fetched_by(backfills.backfills_by_id)
@strawberry.type(
    description="Events that arrive over a while, and begin or cease to count all at once."
)
class Backfill(Node):
    name: str = strawberry.field(description="By which events are added to it.")
    reason: str = strawberry.field(description="Why it was started.")
    state: BackfillState = strawberry.field(description="Whether its events count.")
    created_at: datetime = strawberry.field(description="When it was started.")
    closed_at: datetime | None = strawberry.field(description="When it was closed.")
    reverted_at: datetime | None = strawberry.field(description="When it was reverted.")
    revert_reason: str | None = strawberry.field(description="Why it was reverted.")
    keys_freed_at: datetime | None = strawberry.field(
        description="Since when the keys of its events may be used anew, once it is reverted."
    )

    @classmethod
    def from_row(cls, row: models.Backfill) -> Self:
        return cls(
            id=relay.global_id("Backfill", row.id),
            name=row.name,
            reason=row.reason,
            state=row.state,
            created_at=row.created_at,
            closed_at=row.closed_at,
            reverted_at=row.reverted_at,
            revert_reason=row.revert_reason,
            keys_freed_at=row.keys_freed_at,
        )

    @field("How many events of it have reached the log, whether they count or not.", cost=2)
    async def events(self, info: Info) -> BigInt:
        id_ = local_id("Backfill", self.id, field="id")
        return BigInt(await info.context.load(backfills.events_in, id_) or 0)


@strawberry.input(description="A backfill to start.")
class StartBackfillInput:
    name: str = strawberry.field(
        description="By which events are added to it, 1 to 255 characters; no other has it."
    )
    reason: str = strawberry.field(description="Why, for people; 1 to 500 characters.")


@strawberry.input(description="A backfill whose events are to count.")
class CloseBackfillInput:
    backfill_id: strawberry.ID = strawberry.field(description="The backfill.")


@strawberry.input(description="A backfill whose events are to count no more.")
class RevertBackfillInput:
    backfill_id: strawberry.ID = strawberry.field(description="The backfill.")
    reason: str = strawberry.field(description="Why, for people; 1 to 500 characters.")


_RESULT = "The backfill as it is now, or why nothing was done."
StartBackfillResult = Annotated[
    Backfill | InvalidProblem | ConflictProblem,
    strawberry.union("StartBackfillResult", description=_RESULT),
]
CloseBackfillResult = Annotated[
    Backfill | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("CloseBackfillResult", description=_RESULT),
]
RevertBackfillResult = Annotated[
    Backfill | InvalidProblem | NotFoundProblem | ConflictProblem,
    strawberry.union("RevertBackfillResult", description=_RESULT),
]


@strawberry.type
class BackfillQuery:
    @field("The backfills, whatever became of them.", needs=Permission.USAGE_READ)
    async def backfills(
        self,
        info: Info,
        *,
        state: Annotated[
            BackfillState | None, strawberry.argument(description="Only those in this state.")
        ] = None,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[Backfill]:
        listing = backfills.listed(state=state, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=Backfill.from_row
        )


@strawberry.type
class BackfillMutation:
    @mutation(
        "Start a backfill: events that are added to it count for nothing until it is closed.",
        needs=Permission.USAGE_WRITE,
    )
    async def start_backfill(self, info: Info, input: StartBackfillInput) -> StartBackfillResult:
        async with info.context.scope() as scope:
            row = await backfills.start(scope, name=input.name, reason=input.reason)
        return Backfill.from_row(row)

    @mutation(
        "Let the events of an open backfill count, all at once; none is added to it any more.",
        needs=Permission.USAGE_WRITE,
    )
    async def close_backfill(self, info: Info, input: CloseBackfillInput) -> CloseBackfillResult:
        backfill_id = local_id("Backfill", input.backfill_id, field="backfillId")
        async with info.context.scope() as scope:
            row = await backfills.close(scope, backfill_id)
        return Backfill.from_row(row)

    @mutation(
        "Let the events of a backfill, open or closed, count no more, all at once and for good. "
        "Their keys may be used anew some seconds later.",
        needs=Permission.USAGE_WRITE,
    )
    async def revert_backfill(self, info: Info, input: RevertBackfillInput) -> RevertBackfillResult:
        backfill_id = local_id("Backfill", input.backfill_id, field="backfillId")
        async with info.context.scope() as scope:
            row = await backfills.revert(scope, backfill_id, reason=input.reason)
        return Backfill.from_row(row)
