"""A log of a test's own in ClickHouse, and a plain model of what meters count of it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.catalog.models import Aggregation, Meter
from aforo.metering import queries
from aforo.metering.canonical import canonical
from aforo.metering.projection import INSERT_EVENTS, repacked
from aforo.metering.queries import MeterUsage
from aforo.metering.stored import StoredEvent, hash_of_key
from aforo.sdk.ids import TenantId
from aforo.sdk.money import exact
from aforo.sdk.period import Period
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
CUSTOMERS = [UUID(int=1), UUID(int=2), UUID(int=3)]
BIG = Decimal("999999999999999.999999999999")
PLAIN = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a test says of an event; the rest does not matter."""

    properties: Mapping[str, Any]
    customer_id: UUID = CUSTOMERS[0]
    occurred_at: datetime = START
    type: str = "call"


@dataclass(frozen=True, slots=True)
class Log:
    """A tenant of its own with these events in ClickHouse."""

    runtime: Runtime
    tenant_id: TenantId
    events: Sequence[Sent]
    segments: int

    @classmethod
    async def write(cls, runtime: Runtime, *segments: Sequence[Sent]) -> "Log":
        """Insert as the sealer does, one segment after the other."""
        tenant_id = TenantId(new_id())
        for number, segment in enumerate(segments, 1):
            if segment:
                events = [stored(sent, f"{number}:{at}") for at, sent in enumerate(segment)]
                await insert(runtime, tenant_id, number, events)
        return cls(runtime, tenant_id, [sent for one in segments for sent in one], len(segments))

    async def usage(
        self,
        meter: Meter,
        period: Period,
        *,
        watermark: int | None = None,
        customer_ids: Sequence[UUID] | None = None,
    ) -> dict[UUID, MeterUsage]:
        async with self.runtime.scope(self.tenant_id) as scope:
            found = await queries.usage_by_customer(
                scope,
                meter,
                period,
                watermark=self.segments if watermark is None else watermark,
                customer_ids=customer_ids,
            )
        # Which keys are in the xor has a test of its own.
        return {who: MeterUsage(use.quantity, use.events, 0) for who, use in found.items()}

    async def values(self, meter: Meter, period: Period, customer: UUID) -> tuple[Decimal, ...]:
        async with self.runtime.scope(self.tenant_id) as scope:
            return await queries.event_values(
                scope, meter, period, watermark=self.segments, customer_id=customer
            )


def meter_of(aggregation: Aggregation, name: str | None = None, **settings: Any) -> Meter:
    return Meter(
        id=new_id(),
        code="m",
        name="m",
        event_type="call",
        aggregation=aggregation,
        property=name,
        **settings,
    )


def summing(name: str, *, allows_negative: bool = False) -> Meter:
    return meter_of(Aggregation.SUM, name, allows_negative=allows_negative)


def key_of(segment: int, position: int) -> bytes:
    return hash_of_key(f"{segment}:{position}")


async def insert(
    runtime: Runtime, tenant_id: UUID, segment_id: int, events: Sequence[StoredEvent]
) -> None:
    """Put events into ClickHouse, as the sealer does."""
    of = {"tenant": str(tenant_id), "segment": segment_id}
    await runtime.events.insert_packed(INSERT_EVENTS, of, repacked(events))


def stored(sent: Sent, key: str) -> StoredEvent:
    return StoredEvent(
        event_id=new_id(),
        idempotency_key=key,
        type=sent.type,
        customer_id=sent.customer_id,
        team_id=None,
        agent_id=None,
        customer_key_id=None,
        subscription_id=UUID(int=9),
        product_id=UUID(int=8),
        occurred_at=sent.occurred_at,
        received_at=sent.occurred_at,
        properties=canonical(sent.properties),
        cost=None,
        cost_currency="",
        cost_rates=(),
    )


# The model: from here on nothing is shared with the code under test but the shape of a meter.


def counted(meter: Meter, events: Sequence[Sent]) -> dict[UUID, list[Sent]]:
    """The events of the period that the meter counts, by customer."""
    found: dict[UUID, list[Sent]] = defaultdict(list)
    for event in events:
        passes = all(
            text_of(event.properties.get(one["property"])) in one["values"] for one in meter.filters
        )
        in_period = START <= event.occurred_at < END
        if event.type == meter.event_type and in_period and passes and has_value(meter, event):
            found[event.customer_id].append(event)
    return found


def has_value(meter: Meter, event: Sent) -> bool:
    if meter.property is None:
        return True
    value = event.properties.get(meter.property)
    if meter.aggregation is Aggregation.UNIQUE:
        return value is not None
    text = text_of(value)
    is_number = text is not None and PLAIN.fullmatch(text) and not isinstance(value, bool)
    return bool(is_number) and (meter.allows_negative or not str(text).startswith("-"))


def value_of(meter: Meter, event: Sent) -> Decimal:
    if meter.aggregation in {Aggregation.COUNT, Aggregation.UNIQUE}:
        return Decimal(1)
    return Decimal(str(text_of(event.properties[str(meter.property)])))


def total_of(meter: Meter, events: Sequence[Sent]) -> MeterUsage:
    with exact():
        if meter.aggregation is Aggregation.UNIQUE:
            texts = [text_of(event.properties[str(meter.property)]) for event in events]
            kinds = [isinstance(event.properties[str(meter.property)], str) for event in events]
            quantity = Decimal(len(set(zip(kinds, texts, strict=True))))
        elif meter.aggregation is Aggregation.MAX:
            quantity = max(value_of(meter, event) for event in events)
        elif meter.aggregation is Aggregation.LATEST:
            # Of events of one moment the last one of the log, which is the order of `events`.
            last = max(enumerate(events), key=lambda each: (each[1].occurred_at, each[0]))
            quantity = value_of(meter, last[1])
        else:
            quantity = sum((value_of(meter, event) for event in events), Decimal(0))
    return MeterUsage(max(quantity, Decimal(0)), len(events), 0)


def text_of(value: Any) -> str | None:
    """A property as an operator would write it into a filter."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal) and abs(Decimal(value).adjusted()) < 40:
        with exact():
            number = Decimal(value).normalize()
        return "0" if not number else format(number, "f")
    return canonical(value)
