"""A log of confirmed segments with meters, written past ingestion, and a plain model of usage."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from aforo.catalog.commands import create_meter
from aforo.catalog.models import Aggregation, Meter
from aforo.metering import corrections, usage
from aforo.metering.canonical import canonical
from aforo.metering.models import Segment, SegmentState
from aforo.metering.stored import VOID, StoredEvent
from aforo.metering.usage import Attribute, UsageBy, UsageOf
from aforo.sdk.ids import TenantId
from aforo.sdk.money import exact
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from tests.metering.model import insert

MODEL = Attribute(UsageBy.PROPERTY, "model")
REGION = Attribute(UsageBy.PROPERTY, "region")
CUSTOMER, TEAM, AGENT = (Attribute(by) for by in (UsageBy.CUSTOMER, UsageBy.TEAM, UsageBy.AGENT))
ACME, BOUGHT = UUID(int=1), UUID(int=9)
KEY, SUBSCRIPTION = Attribute(UsageBy.CUSTOMER_KEY), Attribute(UsageBy.SUBSCRIPTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """An event as far as usage goes."""

    at: datetime
    customer: UUID = ACME
    team: UUID | None = None
    agent: UUID | None = None
    key: UUID | None = None
    subscription: UUID = BOUGHT
    properties: dict[str, Any] = field(default_factory=lambda: {"v": 1})
    name: str | None = None
    """Its idempotency key; one of its own if not given."""
    supersedes: str = ""
    """The key of the event whose place it takes."""
    is_void: bool = False


@dataclass(slots=True)
class UsageLog:
    """A tenant's log, and what was written into it, by segment."""

    runtime: Runtime
    tenant_id: TenantId
    segments: dict[int, Sequence[Used]] = field(default_factory=dict)

    async def meter(
        self, aggregation: Aggregation, dimensions: Sequence[str] = ("model", "region")
    ) -> Meter:
        """A meter over all that is written here."""
        async with self.runtime.scope(self.tenant_id) as scope:
            return await create_meter(
                scope,
                code=f"{aggregation.lower()}-{new_id().hex}",
                name="m",
                event_type="call",
                aggregation=aggregation,
                property_name=None if aggregation is Aggregation.COUNT else "v",
                allows_negative=aggregation is Aggregation.SUM,
                dimensions=dimensions,
            )

    async def write(self, *segments: Sequence[Used]) -> None:
        """Confirmed segments, one after the other."""
        for events in segments:
            async with self.runtime.system("write a segment") as db:
                segment = Segment(
                    tenant_id=self.tenant_id,
                    state=SegmentState.CONFIRMED,
                    events=len(events),
                    corrections=sum(1 for one in events if one.supersedes),
                    sha256=bytes(32),
                    previous_sha256=bytes(32),
                    sealed_at=self.runtime.clock.now(),
                    confirmed_at=self.runtime.clock.now(),
                )
                db.add(segment)
                await db.flush()
                segment_id = segment.segment_id
            self.segments[segment_id] = events
            await self.write_again(segment_id)

    async def write_again(self, *segment_ids: int) -> None:
        """Put the rows of segments into ClickHouse, whether they are there already or not."""
        for segment_id in segment_ids:
            stored = [_stored(one) for one in self.segments[segment_id]]
            await insert(self.runtime, self.tenant_id, segment_id, stored)
            if any(one.supersedes for one in stored):
                await corrections.correct(self.runtime.events, self.tenant_id, segment_id)

    @property
    def watermark(self) -> int:
        return max(self.segments, default=0)

    def of(self, meter: Meter, period: Period, zone: str = "UTC", **more: Any) -> UsageOf:
        """A question about all that is here, unless it says otherwise."""
        return UsageOf(
            **{"watermark": self.watermark}
            | more
            | {"meter": meter, "period": period, "zone": ZoneInfo(zone)}
        )

    async def total(self, of: UsageOf) -> tuple[Decimal, int]:
        async with self.runtime.scope(self.tenant_id) as scope:
            found = await usage.usage_total(scope, of)
        return found.quantity, found.events

    async def by(self, of: UsageOf, *by: Attribute) -> dict[tuple[str | None, ...], Any]:
        async with self.runtime.scope(self.tenant_id) as scope:
            found = await usage.usage_by(scope, of, by, first=1_000)
        assert found.count == len(found.groups)
        return {one.values: (one.quantity, one.events) for one in found.groups}

    def expected(self, of: UsageOf, *by: Attribute) -> dict[tuple[str | None, ...], Any]:
        """The same by the model."""
        groups = self.grouped(of, lambda one: tuple(value_of(one, attribute) for attribute in by))
        return {values: counted(of.meter, events) for values, events in groups.items()}

    def grouped(self, of: UsageOf, key: Callable[[Used], Any]) -> dict[Any, list[Used]]:
        """The events that are asked for and counted, in the log's order, by something."""
        groups: dict[Any, list[Used]] = defaultdict(list)
        superseded = {
            one.supersedes
            for segment_id, events in self.segments.items()
            if segment_id <= of.watermark
            for one in events
        }
        for segment_id, events in sorted(self.segments.items()):
            for one in events:
                if (
                    segment_id <= of.watermark
                    and not one.is_void
                    and (one.name is None or one.name not in superseded)
                    and of.period.contains(one.at)
                    and (of.meter.property is None or one.properties.get("v") is not None)
                    and all(value_of(one, attribute) in among for attribute, among in of.where)
                ):
                    groups[key(one)].append(one)
        return groups


def counted(meter: Meter, events: Sequence[Used]) -> tuple[Decimal, int]:
    """Quantity and number, by the model."""
    values = [one.properties.get("v") for one in events]
    with exact():
        match meter.aggregation:
            case Aggregation.COUNT:
                quantity = Decimal(len(events))
            case Aggregation.UNIQUE:
                quantity = Decimal(len({(type(value), value) for value in values}))
            case Aggregation.SUM:
                quantity = sum((Decimal(str(value)) for value in values), Decimal(0))
            case Aggregation.MAX:
                quantity = max(Decimal(str(value)) for value in values)
            case Aggregation.LATEST:
                last = max(range(len(events)), key=lambda at: (events[at].at, at))
                quantity = Decimal(str(values[last]))
    return quantity, len(events)


def value_of(one: Used, attribute: Attribute) -> str | None:
    """What an event has of an attribute."""
    if attribute.by is UsageBy.PROPERTY:
        value = one.properties.get(str(attribute.property))
        return None if value is None else str(value)
    found = {
        UsageBy.CUSTOMER: one.customer,
        UsageBy.TEAM: one.team,
        UsageBy.AGENT: one.agent,
        UsageBy.CUSTOMER_KEY: one.key,
        UsageBy.SUBSCRIPTION: one.subscription,
    }[attribute.by]
    return None if found is None else str(found)


def split(events: Iterable[Used], size: int) -> list[list[Used]]:
    """Segments of so many events."""
    every = list(events)
    return [every[at : at + size] for at in range(0, len(every), size)]


def _stored(one: Used) -> StoredEvent:
    return StoredEvent(
        event_id=new_id(),
        idempotency_key=one.name or new_id().hex,
        type=VOID if one.is_void else "call",
        customer_id=one.customer,
        team_id=one.team,
        agent_id=one.agent,
        customer_key_id=one.key,
        subscription_id=one.subscription,
        product_id=UUID(int=8),
        occurred_at=one.at,
        received_at=one.at,
        properties=canonical(one.properties),
        cost=None,
        cost_currency="",
        cost_rates=(),
        supersedes=one.supersedes,
    )
