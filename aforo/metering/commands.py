"""Ingestion: a batch goes through stages 1 to 4 and is kept, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from aforo.metering import queries
from aforo.metering.deduplicate import KeyedEvent, against, keyed
from aforo.metering.enrich import RateInForce, cost_of
from aforo.metering.ingest import key_of, read_event
from aforo.metering.models import EventConflict, IngestBatch, KeyState, QuarantinedEvent
from aforo.metering.stored import StoredEvent, to_line
from aforo.metering.validate import MeterRule, check_meters, check_time
from aforo.metering.verdicts import (
    IngestAnswer,
    Refusal,
    Stage,
    Verdict,
    VerdictKind,
    answer,
    quarantined,
)
from aforo.sdk.ids import CustomerId
from aforo.storage.failpoints import reached
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.subscriptions.hierarchy import Place, Unplaced, hash_customer_key
from aforo.subscriptions.queries import SubscriptionLife, active_subscriptions, resolve


class BatchRefused(Exception):
    """An atomic batch in which not every event was good; nothing of it is kept."""

    def __init__(self, answer: IngestAnswer) -> None:
        super().__init__("an atomic batch was refused")
        self.answer = answer


_Units = Mapping[UUID, Decimal] | Refusal
"""What an event brings to each meter, or why it is set aside."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An event that takes its key, as accepted or as quarantined."""

    item: KeyedEvent
    event_id: UUID
    result: StoredEvent | Refusal


async def ingest(
    scope: Scope, events: Sequence[object], *, key_pepper: str, atomic: bool = False
) -> IngestAnswer:
    """Give every event of a decoded batch its verdict, and keep the good ones.

    What is accepted is durable once the scope's transaction has committed. `key_pepper` is the
    secret under which customers' API keys are hashed.

    Raises: `BatchRefused` where `atomic` is set and an event was rejected, in conflict or
    quarantined.
    """
    verdicts: list[Verdict] = []
    items = _shaped(events, scope.now, verdicts)
    known = await queries.known_keys(scope, [item.key_hash for item in items])
    fresh, seen = against(items, known)
    verdicts += seen

    meters = await queries.meter_rules(scope, {item.event.type for item in fresh})
    units, repeats = _validated(fresh, meters, verdicts)
    heads = [item for item in fresh if item.index in units]
    kept = await _enriched(scope, heads, units, meters, key_pepper=key_pepper)
    kept, lost = await _take_keys(scope, kept)
    verdicts += lost
    verdicts += [
        one.result.at(one.item.index, one.item.event.key)
        for one in kept
        if isinstance(one.result, Refusal)
    ]
    if repeats:
        known = await queries.known_keys(scope, [item.key_hash for item in repeats])
        verdicts += against(repeats, known)[1]

    result = answer(len(events), verdicts)
    if atomic and result.refused:
        raise BatchRefused(result)
    await _keep(scope, kept, key_pepper=key_pepper)
    await _record(scope, result, {item.index: item for item in items})
    reached("ingest.written")
    return result


def _shaped(events: Sequence[object], now: datetime, verdicts: list[Verdict]) -> list[KeyedEvent]:
    """Stage 1, and the time window of stage 2: what can be said without a look at the database."""
    items = []
    for index, sent in enumerate(events):
        event = read_event(sent)
        if isinstance(event, Refusal):
            verdicts.append(event.at(index, key_of(sent)))
        elif event.occurred_at and (refusal := check_time(event.occurred_at, now)):
            verdicts.append(refusal.at(index, event.key))
        else:
            items.append(keyed(index, event))
    return items


def _validated(
    fresh: Sequence[KeyedEvent],
    meters: Mapping[str, Sequence[MeterRule]],
    verdicts: list[Verdict],
) -> tuple[dict[int, _Units], list[KeyedEvent]]:
    """Stage 2 against the meters, by index, and the events whose key an earlier one has taken.

    What is rejected holds no key, and leaves it to the next event that has it.
    """
    units: dict[int, _Units] = {}
    repeats: list[KeyedEvent] = []
    taken: set[bytes] = set()
    for item in fresh:
        if item.key_hash in taken:
            repeats.append(item)
            continue
        found = check_meters(item.event, meters)
        if isinstance(found, Refusal) and found.kind is VerdictKind.REJECTED:
            verdicts.append(found.at(item.index, item.event.key))
        else:
            units[item.index] = found
            taken.add(item.key_hash)
    return units, repeats


async def _enriched(
    scope: Scope,
    items: Sequence[KeyedEvent],
    units: Mapping[int, _Units],
    meters: Mapping[str, Sequence[MeterRule]],
    *,
    key_pepper: str,
) -> list[_Kept]:
    """Stage 4, and the rest of stage 2: customer, subscription, cost."""
    if not items:
        return []
    events = [item.event for item in items]
    hashes = {
        event.api_key: hash_customer_key(event.api_key, pepper=key_pepper)
        for event in events
        if event.api_key
    }
    rates = await queries.cost_rates(scope, [rule for rules in meters.values() for rule in rules])
    hierarchy = await resolve(
        scope, {event.customer for event in events if event.customer}, set(hashes.values())
    )
    lives = await active_subscriptions(scope, hierarchy.customer_ids)
    kept = []
    for item in items:
        brought = units[item.index]
        event_id = new_id()
        if isinstance(brought, Refusal):
            kept.append(_Kept(item, event_id, brought))
            continue
        at = item.event.occurred_at or scope.now
        key_hash = hashes.get(item.event.api_key) if item.event.api_key else None
        place = hierarchy.lookup(customer=item.event.customer, key_hash=key_hash, at=at)
        result = _placed(
            item, event_id, place, lives, units=brought, rates=rates, at=at, now=scope.now
        )
        kept.append(_Kept(item, event_id, result))
    return kept


def _placed(
    item: KeyedEvent,
    event_id: UUID,
    place: Place | Unplaced,
    lives: Mapping[CustomerId, Sequence[SubscriptionLife]],
    *,
    units: Mapping[UUID, Decimal],
    rates: Mapping[UUID, Sequence[RateInForce]],
    at: datetime,
    now: datetime,
) -> StoredEvent | Refusal:
    """Whose event it is, and under which subscription, as of its moment."""
    match place:
        case Unplaced.UNKNOWN_CUSTOMER:
            return quarantined(
                Stage.VALIDATION, place.value, f"no customer has the id {item.event.customer}"
            )
        case Unplaced.KEY_UNKNOWN:
            return quarantined(
                Stage.ENRICHMENT, place.value, f"apiKey was not this customer's at {at.isoformat()}"
            )
    running = [life for life in lives.get(place.customer_id, ()) if life.contains(at)]
    if not running:
        return quarantined(
            Stage.VALIDATION,
            "NO_ACTIVE_SUBSCRIPTION",
            f"the customer has no subscription that is active at {at.isoformat()}",
        )
    # Costs go to the subscription that prices the event; of several, to the oldest.
    life = next((one for one in running if not one.meter_ids.isdisjoint(units)), running[0])
    cost = cost_of(units, rates, at, preferred=life.meter_ids)
    return StoredEvent(
        event_id=event_id,
        idempotency_key=item.event.key,
        type=item.event.type,
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
    )


async def _take_keys(scope: Scope, wanted: Sequence[_Kept]) -> tuple[list[_Kept], list[Verdict]]:
    """Stage 3: write the keys. Of two senders at once the database lets one be first; the other
    waits here for the first one's commit, and then finds its key taken."""
    if not wanted:
        return [], []
    # In one order everywhere, or two batches with the same keys would wait for each other.
    ordered = sorted(wanted, key=lambda one: one.item.key_hash)
    taken = await scope.db.scalars(
        _INSERT_KEYS,
        {
            "key_hashes": [one.item.key_hash for one in ordered],
            "payload_hashes": [one.item.payload_hash for one in ordered],
            "event_ids": [one.event_id for one in ordered],
            "states": [_state(one).name for one in ordered],
            "moments": [one.item.event.occurred_at or scope.now for one in ordered],
            "now": scope.now,
        },
    )
    won = set(taken)
    losers = [one.item for one in wanted if one.item.key_hash not in won]
    if not losers:
        return list(wanted), []
    known = await queries.known_keys(scope, [item.key_hash for item in losers])
    _, verdicts = against(losers, known)
    return [one for one in wanted if one.item.key_hash in won], verdicts


def _state(one: _Kept) -> KeyState:
    return KeyState.QUARANTINED if isinstance(one.result, Refusal) else KeyState.ACCEPTED


async def _keep(scope: Scope, kept: Sequence[_Kept], *, key_pepper: str) -> None:
    accepted = [one for one in kept if isinstance(one.result, StoredEvent)]
    if accepted:
        await scope.db.execute(
            _INSERT_INBOX,
            {
                "event_ids": [one.event_id for one in accepted],
                "key_hashes": [one.item.key_hash for one in accepted],
                "bodies": [to_line(cast("StoredEvent", one.result)) for one in accepted],
            },
        )
    scope.db.add_all(
        QuarantinedEvent(
            id=one.event_id,
            code=one.result.code,
            message=one.result.message,
            key_hash=one.item.key_hash,
            body=_as_sent(one.item, key_pepper),
            received_at=scope.now,
        )
        for one in kept
        if isinstance(one.result, Refusal)
    )


async def _record(scope: Scope, result: IngestAnswer, items: Mapping[int, KeyedEvent]) -> None:
    """What the request brought, in numbers, and every conflict in full."""
    scope.db.add_all(
        EventConflict(
            idempotency_key=verdict.idempotency_key or "",
            event_id=cast("UUID", verdict.event_id),
            properties=items[verdict.index].properties,
        )
        for verdict in result.verdicts
        if verdict.kind is VerdictKind.CONFLICT
    )
    scope.db.add(
        IngestBatch(
            received=result.received,
            accepted=result.accepted,
            duplicates=result.duplicates,
            conflicts=result.conflicts,
            rejected=result.rejected,
            quarantined=result.quarantined,
        )
    )
    await scope.db.flush()


def _as_sent(item: KeyedEvent, key_pepper: str) -> dict[str, str | None]:
    """The event for the quarantine. A customer's key is a secret: only its hash is kept."""
    event = item.event
    hashed = hash_customer_key(event.api_key, pepper=key_pepper).hex() if event.api_key else None
    return {
        "idempotencyKey": event.key,
        "type": event.type,
        "customer": event.customer,
        "apiKeyHash": hashed,
        "occurredAt": event.occurred_at.isoformat() if event.occurred_at else None,
        "properties": item.properties,
    }


_INSERT_KEYS = sa.text(
    "INSERT INTO event_key (key_hash, payload_hash, event_id, state, occurred_at, received_at) "
    "SELECT key_hash, payload_hash, event_id, state, occurred_at, :now "
    "FROM unnest(:key_hashes, :payload_hashes, :event_ids, :states, :moments) "
    "AS new (key_hash, payload_hash, event_id, state, occurred_at) "
    "ON CONFLICT (tenant_id, key_hash) DO NOTHING RETURNING key_hash"
).bindparams(
    sa.bindparam("key_hashes", type_=ARRAY(sa.LargeBinary)),
    sa.bindparam("payload_hashes", type_=ARRAY(sa.LargeBinary)),
    sa.bindparam("event_ids", type_=ARRAY(sa.Uuid)),
    sa.bindparam("states", type_=ARRAY(sa.String)),
    sa.bindparam("moments", type_=ARRAY(sa.DateTime(timezone=True))),
    sa.bindparam("now", type_=sa.DateTime(timezone=True)),
)

_INSERT_INBOX = sa.text(
    "INSERT INTO event_inbox (event_id, key_hash, body) "
    "SELECT * FROM unnest(:event_ids, :key_hashes, :bodies)"
).bindparams(
    sa.bindparam("event_ids", type_=ARRAY(sa.Uuid)),
    sa.bindparam("key_hashes", type_=ARRAY(sa.LargeBinary)),
    sa.bindparam("bodies", type_=ARRAY(sa.String)),
)
