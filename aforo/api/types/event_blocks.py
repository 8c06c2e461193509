"""GraphQL of what blocks events: looked up once for all events of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import anyio
import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import publish_enum
from aforo.api.types.catalog import Entitlement, Meter
from aforo.metering.blocks import Block, Placed, blocks_of


class EventState(Enum):
    """Whether an event counts."""

    COUNTED = "COUNTED"
    BLOCKED = "BLOCKED"
    SUPERSEDED = "SUPERSEDED"


publish_enum(
    EventState,
    "Whether an event counts.",
    COUNTED="Every meter that selects it counts it.",
    BLOCKED="It did not fit into a quota that blocks: the meter of that quota does not count it.",
    SUPERSEDED="Another event takes its place, or voids it: no meter counts it.",
)


@strawberry.type(
    description="A quota that blocks an event: its meter does not count it, so it is not billed."
)
class EventBlock:
    meter: Meter = strawberry.field(description="The meter that does not count it.")
    entitlement: Entitlement = strawberry.field(
        description="The version of the entitlement that grants the quota."
    )
    limit: Decimal = strawberry.field(
        description="The units of its window, with those that were carried on."
    )
    used_before: Decimal = strawberry.field(
        description="What was used of them before it, in the order of the log."
    )


class Shown:
    """The events of one answer: why they are blocked is looked up once for all of them."""

    def __init__(self, events: Sequence[Placed]) -> None:
        self._events = events
        self._lock = anyio.Lock()
        self._found: Mapping[UUID, Sequence[Block]] | None = None

    async def blocks(self, info: Info, event_id: UUID) -> Sequence[Block]:
        async with self._lock:
            if self._found is None:
                async with info.context.scope() as scope:
                    self._found = await blocks_of(scope, self._events)
        return self._found.get(event_id, ())


@dataclass(frozen=True, slots=True)
class Told:
    """As much of a live message as it takes to find its event."""

    event_id: UUID
    type: str
    customer_id: UUID
    occurred_at: datetime
