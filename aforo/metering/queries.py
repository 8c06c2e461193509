"""Reads of the metering stage: keys and meters for ingestion, usage and costs for what follows."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import CostRate, Meter
from aforo.metering.aggregate import EVENTS, WHOLE_LOG, Selection, selection
from aforo.metering.canonical import number
from aforo.metering.cuts import Cut, counted_events
from aforo.metering.enrich import RateInForce
from aforo.metering.models import (
    EventInbox,
    QuarantinedEvent,
    QuarantineState,
    Segment,
    SegmentState,
)
from aforo.metering.validate import MeterRule
from aforo.sdk.ids import CustomerId, SubscriptionId
from aforo.sdk.period import Period
from aforo.storage.listing import PAGE_MAX, AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope

IN_PERIOD = (
    "occurred_at >= {start:DateTime64(6, 'UTC')} AND occurred_at < {end:DateTime64(6, 'UTC')}"
)


@dataclass(frozen=True, slots=True)
class MeterUsage:
    """One customer's billable units of one meter, and the events behind them."""

    quantity: Decimal
    """Never below 0."""
    events: int
    xor: int
    """XOR of the counted events' hashes: two equal sets have equal ones."""


@dataclass(frozen=True, slots=True)
class Costs:
    """COGS of a set of events, in one currency."""

    amount: Decimal
    currency: str | None
    uncosted_events: int
    """Events without a cost rate: UNKNOWN_COST, never free."""
    events: int
    """All of them."""

    def within(self, currency: str) -> "Costs":
        """The same as far as one currency goes: what was costed in another is unknown in it."""
        if self.currency in {None, currency}:
            return self
        return Costs(Decimal(0), None, self.events, self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event of the log, with its place in it."""

    segment_id: int
    position: int
    event_id: UUID
    idempotency_key: str
    type: str
    customer_id: UUID
    subscription_id: UUID
    occurred_at: datetime
    received_at: datetime
    properties: str
    """Canonical JSON."""
    cost: Decimal | None
    """COGS in `cost_currency`; None is UNKNOWN_COST."""
    cost_currency: str
    trace: str = ""
    """As `aforo.metering.trace` writes it."""
    supersedes: str = ""
    """The key of the event whose place it takes; empty where there is none."""


EVENT_COLUMNS = (
    "segment_id, position, event_id, idempotency_key, type, customer_id, subscription_id, "
    "occurred_at, received_at, properties, cost, cost_currency, trace, "
    "supersedes"
)
"""What an `EventRow` is made of."""


def rule_of(meter: Meter) -> MeterRule:
    """The part of a meter that events are held against."""
    return MeterRule(
        meter_id=meter.id,
        code=meter.code,
        event_type=meter.event_type,
        aggregation=meter.aggregation,
        property=meter.property,
        filters=tuple((item["property"], frozenset(item["values"])) for item in meter.filters),
        allows_negative=meter.allows_negative,
        dimensions=tuple(meter.dimensions),
    )


async def meter_rules(scope: Scope, event_types: Collection[str]) -> dict[str, list[MeterRule]]:
    """The published meters of some event types, by type."""
    if not event_types:
        return {}
    rows = await scope.db.scalars(
        sa.select(Meter).where(col(Meter.event_type).in_(event_types)).order_by(col(Meter.id))
    )
    rules: dict[str, list[MeterRule]] = defaultdict(list)
    for meter in rows:
        rules[meter.event_type].append(rule_of(meter))
    return dict(rules)


async def cost_rates(scope: Scope, rules: Collection[MeterRule]) -> dict[UUID, list[RateInForce]]:
    """The versions of each meter's cost rate, oldest first, by meter id."""
    if not rules:
        return {}
    rows = await scope.db.scalars(
        sa.select(CostRate)
        .where(col(CostRate.meter_code).in_({rule.code for rule in rules}))
        .order_by(col(CostRate.effective_from), col(CostRate.version))
    )
    by_code: dict[str, list[CostRate]] = defaultdict(list)
    for row in rows:
        by_code[row.meter_code].append(row)
    return {
        rule.meter_id: [
            RateInForce(
                row.id,
                row.unit_cost,
                row.currency,
                row.effective_from,
                measure=rule.property,
                filters=len(rule.filters),
            )
            for row in by_code[rule.code]
        ]
        for rule in rules
        if rule.code in by_code
    }


async def watermark(scope: Scope) -> int:
    """The last segment up to which everything is confirmed; 0 before the first."""
    return int(await scope.db.scalar(watermark_of()) or 0)


def watermark_of() -> sa.Select[tuple[int]]:
    """The statement for it, which may be a part of another."""
    unconfirmed = col(Segment.state) == SegmentState.SEALED
    first_unconfirmed = sa.func.min(col(Segment.segment_id)).filter(unconfirmed)
    last = sa.func.max(col(Segment.segment_id))
    return sa.select(sa.func.coalesce(first_unconfirmed - 1, last, 0))


async def last_received(scope: Scope) -> int:
    """The place in the inbox of the last event that was acknowledged; 0 where it is empty."""
    return int(await scope.db.scalar(sa.select(sa.func.max(col(EventInbox.seq)))) or 0)


async def is_in_log(scope: Scope, received: int) -> bool:
    """Whether every event up to that place in the inbox has reached the confirmed log."""
    waiting = sa.select(col(EventInbox.seq)).where(col(EventInbox.seq) <= received).limit(1)
    return await scope.db.scalar(waiting) is None


async def usage_by_customer(
    scope: Scope,
    meter: Meter,
    period: Period,
    *,
    watermark: int,
    customer_ids: Sequence[UUID] | None = None,
    without: Sequence[Cut] = (),
) -> dict[CustomerId, MeterUsage]:
    """Units of one meter in a period, less what is blocked by the cuts that are given: with those
    of `limits.blocked` they are billable. Customers without an event are absent."""
    counted = selection(rule_of(meter))
    asked = f"{IN_PERIOD}{_among('customer_id', customer_ids)}"
    rows = await scope.events.query(
        f"SELECT customer_id, {_MEASURES.format(quantity=counted.quantity)} "
        f"FROM {counted_events(counted, asked, without)} GROUP BY customer_id",
        **_parameters(counted, period, watermark),
        **_ids(customer_ids),
    )
    return {
        CustomerId(row["customer_id"]): MeterUsage(
            max(shortest(row["quantity"]), Decimal(0)), row["events"], row["xor"]
        )
        for row in rows
    }


async def event_values(
    scope: Scope,
    meter: Meter,
    period: Period,
    *,
    watermark: int,
    customer_id: UUID,
    without: Sequence[Cut] = (),
) -> tuple[Decimal, ...]:
    """The value of each counted event of one customer, in the log's order; as above."""
    counted = selection(rule_of(meter))
    asked = f"{IN_PERIOD} AND customer_id = {{customer:UUID}}"
    rows = await scope.events.query(
        f"SELECT {counted.value} AS value FROM {counted_events(counted, asked, without)} "
        "ORDER BY segment_id, position",
        **_parameters(counted, period, watermark),
        customer=str(customer_id),
    )
    return tuple(shortest(row["value"]) for row in rows)


async def costs_by_subscription(
    scope: Scope,
    period: Period,
    *,
    watermark: int,
    subscription_ids: Sequence[UUID] | None = None,
) -> dict[SubscriptionId, Costs]:
    """COGS of a period by the subscription that each event was attributed to."""
    rows = await scope.events.query(
        "SELECT subscription_id, sum(ifNull(cost, toDecimal256(0, 30))) AS amount, "
        "max(cost_currency) AS currency, countIf(isNull(cost)) AS uncosted, "
        "count() AS events "
        f"FROM {EVENTS} WHERE {IN_PERIOD}{_among('subscription_id', subscription_ids)} "
        "GROUP BY subscription_id",
        **_bounds(period, watermark),
        **_ids(subscription_ids),
    )
    return {
        SubscriptionId(row["subscription_id"]): Costs(
            shortest(row["amount"]), row["currency"] or None, row["uncosted"], row["events"]
        )
        for row in rows
    }


async def recent_events(
    scope: Scope,
    *,
    watermark: int,
    customer_id: UUID | None = None,
    event_type: str | None = None,
    before: tuple[int, int] | None = None,
    first: int,
) -> list[EventRow]:
    """A page of the log, the newest first: also of events that are superseded, but for voids.

    `before` is the segment and position of the last event on the page before; `first` is at most
    one more than a page.
    """
    assert 0 < first <= PAGE_MAX + 1, "the caller bounds the page"
    wanted, parameters = _wanted(customer_id, event_type)
    if before is not None:
        wanted.append("(segment_id, position) < ({segment:UInt64}, {place:UInt32})")
        parameters |= {"segment": before[0], "place": before[1]}
    rows = await scope.events.query(
        f"SELECT {EVENT_COLUMNS} FROM {WHOLE_LOG} WHERE {' AND '.join(wanted)} "
        "ORDER BY segment_id DESC, position DESC LIMIT {first:UInt32}",
        watermark=watermark,
        first=first,
        **parameters,
    )
    return [EventRow(**row) for row in rows]


async def count_events(
    scope: Scope,
    *,
    watermark: int,
    customer_id: UUID | None = None,
    event_type: str | None = None,
) -> int:
    """How many events of the log there are, on all pages of `recent_events`."""
    wanted, parameters = _wanted(customer_id, event_type)
    rows = await scope.events.query(
        f"SELECT count() AS events FROM {WHOLE_LOG} WHERE {' AND '.join(wanted)}",
        watermark=watermark,
        **parameters,
    )
    return int(rows[0]["events"])


def _wanted(customer_id: UUID | None, event_type: str | None) -> tuple[list[str], dict[str, Any]]:
    wanted, parameters = ["type != '' AND is_shown"], dict[str, Any]()
    if customer_id is not None:
        wanted.append("customer_id = {customer:UUID}")
        parameters["customer"] = str(customer_id)
    if event_type is not None:
        wanted.append("type = {type:String}")
        parameters["type"] = event_type
    return wanted, parameters


async def quarantined_events_by_id(
    scope: Scope, ids: Collection[UUID]
) -> dict[UUID, QuarantinedEvent]:
    return await rows_by_id(scope, QuarantinedEvent, ids)


def quarantined_events(
    *,
    state: QuarantineState | None = None,
    code: str | None = None,
    event_type: str | None = None,
    customer: str | None = None,
    order: AgeOrder = AgeOrder.OLDEST_FIRST,
) -> Listing[QuarantinedEvent]:
    """The events that could not be placed when they came, also those that are settled.

    Type and customer are those of the event as it stands: as sent, unless it was corrected.
    """
    where = (
        *equal(QuarantinedEvent.state, state),
        *equal(QuarantinedEvent.code, code),
        *equal(QuarantinedEvent.event_type, event_type),
        *equal(QuarantinedEvent.customer, customer),
    )
    return Listing(QuarantinedEvent, where, order)


_MEASURES = "{quantity} AS quantity, count() AS events, groupBitXor(key_xor) AS xor"


def shortest(value: Decimal) -> Decimal:
    """The same number without the zeros that a column's scale pads it with."""
    return Decimal(number(value))


def _parameters(counted: Selection, period: Period, watermark: int) -> dict[str, Any]:
    return {**counted.parameters, **_bounds(period, watermark)}


def _bounds(period: Period, watermark: int) -> dict[str, Any]:
    return {"start": moment(period.start), "end": moment(period.end), "watermark": watermark}


def moment(at: datetime) -> str:
    """A moment as a DateTime64(6, 'UTC') parameter: the driver would cut a datetime's micros."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def _among(column: str, ids: Sequence[UUID] | None) -> str:
    return "" if ids is None else f" AND {column} IN {{ids:Array(UUID)}}"


def _ids(ids: Sequence[UUID] | None) -> dict[str, Any]:
    return {} if ids is None else {"ids": [str(one) for one in ids]}
