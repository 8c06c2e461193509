"""Stages 2 and 4 for the events of one batch: what they bring to each meter, whose they are, and
what they cost, as of their moment. Pure: what the tenant sells, and to whom, is given."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
from msgspec.structs import replace

from aforo.metering.canonical import texts
from aforo.metering.deduplicate import KeyedEvent
from aforo.metering.enrich import RateInForce, cost_of
from aforo.metering.stored import NOBODY, VOID, StoredEvent
from aforo.metering.trace import AS_DELIVERED, passage
from aforo.metering.validate import MeterRule, check_meters
from aforo.metering.verdicts import Refusal, Stage, VerdictKind, quarantined
from aforo.sdk.ids import CustomerId
from aforo.subscriptions.hierarchy import Hierarchy, Unplaced
from aforo.subscriptions.lives import SubscriptionLife


class Known(NamedTuple):
    """What a tenant sells, and to whom, as far as some events need it."""

    meters: Mapping[str, Sequence[MeterRule]]
    """By the type of the events that they select."""
    rates: Mapping[UUID, Sequence[RateInForce]]
    """By meter."""
    hierarchy: Hierarchy
    lives: Mapping[CustomerId, Sequence[SubscriptionLife]]


class Prepared(msgspec.Struct, frozen=True):
    """An event of which everything is known but whether its key is taken."""

    item: KeyedEvent
    event_id: UUID
    at: datetime
    """When it happened: what was sent, else when it was received."""
    received_at: datetime
    api_key_hash: bytes | None
    result: StoredEvent | Refusal
    trace: str = AS_DELIVERED
    """How it passed the stages, as far as it came."""

    @property
    def takes_key(self) -> bool:
        """Whether it holds its key from now on; what is rejected leaves it to the next."""
        result = self.result
        return isinstance(result, StoredEvent) or result.kind is not VerdictKind.REJECTED


def prepare(
    items: Sequence[KeyedEvent],
    event_ids: Sequence[UUID],
    known: Known,
    *,
    key_hashes: Mapping[str, bytes],
    now: datetime,
    trace: str = AS_DELIVERED,
) -> list[Prepared]:
    """Give each event its result. `key_hashes` are those of the customers' API keys as sent, and
    `trace` is how a trace of theirs begins."""
    batch = _Batch(known, key_hashes, now, trace)
    return [
        _prepared(item, event_id, batch) for item, event_id in zip(items, event_ids, strict=True)
    ]


def uncertain(prepared: Collection[Prepared]) -> list[KeyedEvent]:
    """Events that would be set aside for what is not known of the tenant: it may be known since."""
    return [
        one.item
        for one in prepared
        if isinstance(one.result, Refusal) and one.result.kind is VerdictKind.QUARANTINED
    ]


class _Batch(NamedTuple):
    """What the events of a batch have in common."""

    known: Known
    key_hashes: Mapping[str, bytes]
    now: datetime
    trace: str


def _prepared(item: KeyedEvent, event_id: UUID, batch: _Batch) -> Prepared:
    known, key_hashes, now, begun = batch
    event = item.event
    at = event.occurred_at or now
    if event.is_void:
        return Prepared(item, event_id, at, now, None, _void(item, event_id, batch), begun)
    key_hash = key_hashes[event.api_key] if event.api_key else None
    trace = passage(begun, event, known.hierarchy)
    units = check_meters(event, known.meters)
    if isinstance(units, Refusal):
        return Prepared(item, event_id, at, now, key_hash, units, trace)
    place = known.hierarchy.lookup(customer=event.customer, key_hash=key_hash, at=at)
    if isinstance(place, Unplaced):
        return Prepared(item, event_id, at, now, key_hash, _unplaced(place, item, at), trace)
    life = _life(known.lives.get(place.customer_id, ()), units, at)
    if life is None:
        return Prepared(item, event_id, at, now, key_hash, _unsubscribed(at), trace)
    cost = cost_of(units, known.rates, at, preferred=life.meter_ids)
    stored = StoredEvent(
        event_id=event_id,
        idempotency_key=event.key,
        type=event.type,
        customer_id=place.customer_id,
        team_id=place.team_id,
        agent_id=place.agent_id,
        customer_key_id=place.customer_key_id,
        subscription_id=life.subscription_id,
        product_id=life.product_id,
        occurred_at=at,
        received_at=now,
        properties=item.properties,
        cost=cost.amount if cost else None,
        cost_currency=cost.currency if cost else "",
        cost_rates=cost.rates if cost else (),
        trace=trace,
        supersedes=event.supersedes or "",
        reason=event.reason or "",
        texts=texts(event.properties),
    )
    return Prepared(item, event_id, at, now, key_hash, stored, trace)


def in_backfill(one: Prepared, backfill_id: UUID) -> Prepared:
    """The same event in a backfill, where nothing is set aside: whoever sends it is told what is
    unknown, and sends it again."""
    if isinstance(one.result, StoredEvent):
        result: StoredEvent | Refusal = replace(one.result, backfill=str(backfill_id))
    else:
        why = one.result
        result = Refusal(VerdictKind.REJECTED, why.stage, why.code, why.message)
    return replace(one, result=result)


def change_of_backfill(
    event_id: UUID, backfill_id: UUID, at: datetime, *, is_shown: bool
) -> StoredEvent:
    """What says in the log that a backfill counts from now on, or not any more."""
    said = "true" if is_shown else "false"
    return _nobodys(
        event_id,
        f"backfill {backfill_id} {'closed' if is_shown else 'reverted'}",
        at,
        properties=f'{{"shown":{said}}}',
        texts={"shown": said},
        backfill=str(backfill_id),
    )


def _void(item: KeyedEvent, event_id: UUID, batch: _Batch) -> StoredEvent:
    """A void as it stands in the log. What it voids is known by its key alone."""
    return _nobodys(
        event_id,
        item.event.key,
        batch.now,
        properties=item.properties,
        trace=batch.trace,
        supersedes=item.event.supersedes or "",
        reason=item.event.reason or "",
    )


def _nobodys(
    event_id: UUID,
    key: str,
    at: datetime,
    *,
    properties: str,
    texts: dict[str, str] | None = None,
    **more: str,
) -> StoredEvent:
    return StoredEvent(
        event_id=event_id,
        idempotency_key=key,
        type=VOID,
        customer_id=NOBODY,
        team_id=None,
        agent_id=None,
        customer_key_id=None,
        subscription_id=NOBODY,
        product_id=NOBODY,
        occurred_at=at,
        received_at=at,
        properties=properties,
        cost=None,
        cost_currency="",
        cost_rates=(),
        texts=texts or {},
        **more,
    )


def _life(
    lives: Sequence[SubscriptionLife], units: Mapping[UUID, Decimal], at: datetime
) -> SubscriptionLife | None:
    """The subscription that an event belongs to. Its cost goes to the one that prices it; of
    several, to the oldest."""
    oldest = None
    for life in lives:
        if life.contains(at):
            if not life.meter_ids.isdisjoint(units):
                return life
            oldest = oldest or life
    return oldest


def _unplaced(place: Unplaced, item: KeyedEvent, at: datetime) -> Refusal:
    if place is Unplaced.UNKNOWN_CUSTOMER:
        message = f"no customer has the id {item.event.customer}"
        return quarantined(Stage.VALIDATION, place.value, message)
    message = f"apiKey was not this customer's at {at.isoformat()}"
    return quarantined(Stage.ENRICHMENT, place.value, message)


def _unsubscribed(at: datetime) -> Refusal:
    message = f"the customer has no subscription that is active at {at.isoformat()}"
    return quarantined(Stage.VALIDATION, "NO_ACTIVE_SUBSCRIPTION", message)
