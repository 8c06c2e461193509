"""Reads how one event passed the stages up to aggregation, wherever it is by now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlmodel import col

from aforo.metering import queries
from aforo.metering.aggregate import NEWEST_ALONE, WHOLE_LOG
from aforo.metering.blocks import Block, blocks_of
from aforo.metering.corrections import superseding
from aforo.metering.grants import quota_grants
from aforo.metering.models import (
    EventConflict,
    EventKey,
    QuarantinedEvent,
    QuarantineState,
    Segment,
)
from aforo.metering.passing import (
    LATER,
    Aside,
    Step,
    Taking,
    blocked,
    conflict,
    counted,
    not_reached,
    set_aside,
    superseded,
    taken,
)
from aforo.metering.queries import EVENT_COLUMNS, EventRow, moment
from aforo.metering.stored import hash_of_key
from aforo.metering.trace import read
from aforo.stages.queries import versions_at
from aforo.stages.registry import StageName
from aforo.storage.scope import Scope

CONFLICTS_MAX = 20
"""Of one event; the earliest are shown."""


@dataclass(frozen=True, slots=True)
class Trace:
    """How far an event has come."""

    event: EventRow | None
    """As the log has it; None where it is not in there."""
    steps: Sequence[Step]
    """Up to aggregation."""
    meters: frozenset[UUID] = frozenset()
    """Those that count it, or did."""
    is_superseded: bool = False
    """Whether another event voided it, or took its place."""


async def event_id_of(scope: Scope, idempotency_key: str) -> UUID | None:
    """The event that holds a key; None where none does, or the key is forgotten."""
    found: UUID | None = await scope.db.scalar(
        sa.select(col(EventKey.event_id)).where(
            col(EventKey.key_hash) == hash_of_key(idempotency_key)
        )
    )
    return found


async def event_in_log(scope: Scope, event_id: UUID) -> EventRow | None:
    """The event of the log with an id."""
    return await _one(scope, "event_id = {event:UUID}", event=str(event_id))


async def quarantined_event(scope: Scope, event_id: UUID) -> QuarantinedEvent | None:
    """The event with an id that is, or was, quarantined."""
    return (await queries.quarantined_events_by_id(scope, [event_id])).get(event_id)


async def trace_in_log(
    scope: Scope, *, customer_id: UUID, event_type: str, occurred_at: datetime, key: str
) -> Trace:
    """The trace of an event that is in the log, found by its place in the sort key."""
    event = await _one(
        scope,
        "customer_id = {customer:UUID} AND type = {type:String} "
        "AND occurred_at = {at:DateTime64(6, 'UTC')} AND key_hash = unhex({key_hash:String})",
        customer=str(customer_id),
        type=event_type,
        at=moment(occurred_at),
        key_hash=hash_of_key(key).hex(),
    )
    return Trace(None, ()) if event is None else await _of_log(scope, event)


async def trace_of_quarantined(scope: Scope, event_id: UUID) -> Trace:
    """The trace of an event that is, or was, quarantined: once it is in the log, to the end."""
    row = await quarantined_event(scope, event_id)
    if row is None:
        return Trace(None, ())
    if row.state is QuarantineState.RELEASED:
        event = await event_in_log(scope, event_id)
        if event is not None:
            return await _of_log(scope, event)
    reason = {
        QuarantineState.QUARANTINED: "it waits in quarantine",
        QuarantineState.RELEASED: "it is on its way into the log",
        QuarantineState.DISCARDED: "it was discarded",
    }[row.state]
    return Trace(None, [*set_aside(_aside(row)), *not_reached(LATER, reason)])


async def _of_log(scope: Scope, event: EventRow) -> Trace:
    passage = read(event.trace)
    steps: list[Step] = []
    taken_at = event.received_at
    if passage is not None and passage.released:
        row = await quarantined_event(scope, event.event_id)
        if row is not None:
            steps += set_aside(_aside(row))
            taken_at = row.settled_at or taken_at
    steps += taken(
        Taking(passage=passage, at=taken_at, type=event.type, has_cost=event.cost is not None)
    )
    steps += await _conflicts(scope, event.event_id)
    confirmed_at = await scope.db.scalar(
        sa.select(col(Segment.confirmed_at)).where(col(Segment.segment_id) == event.segment_id)
    )
    versions = await versions_at(scope, confirmed_at or scope.now)
    rules = (await queries.meter_rules(scope, [event.type])).get(event.type, [])
    judged = counted(
        rules,
        _properties(event.properties),
        version=versions[StageName.AGGREGATION],
        at=confirmed_at,
    )
    meters = frozenset(
        rule.meter_id for rule, step in zip(rules, judged, strict=True) if step.passed
    )
    blocks = await _blocks(scope, event)
    quota_version = versions[StageName.QUOTA_CHECK]
    steps += await _quotas(scope, event, meters, blocks, version=quota_version, at=confirmed_at)
    steps += [
        blocked(step) if rule.meter_id in blocks else step
        for rule, step in zip(rules, judged, strict=True)
    ]
    meters -= blocks.keys()
    by = (await superseding(scope, [event.event_id])).get(event.event_id)
    if by is not None:
        version = versions[StageName.AGGREGATION]
        steps.append(superseded(by.idempotency_key, by.received_at, version, is_void=by.is_void))
    return Trace(event, steps, meters, is_superseded=by is not None)


async def _blocks(scope: Scope, event: EventRow) -> dict[UUID, Block]:
    """What blocks an event, by meter."""
    found = (await blocks_of(scope, [event])).get(event.event_id, ())
    return {block.meter.id: block for block in found}


async def _quotas(
    scope: Scope,
    event: EventRow,
    meters: frozenset[UUID],
    blocks: Mapping[UUID, Block],
    *,
    version: int,
    at: datetime | None,
) -> list[Step]:
    """Stage 5: the quotas that the event uses up, and those that block it."""
    nothing = Step(
        stage=StageName.QUOTA_CHECK,
        passed=True,
        decision="NO_QUOTA",
        reason="no quota of its customer is over a meter that counts it",
        settings_version=version,
        at=at,
    )
    grants = await quota_grants(scope, [event.customer_id], event.occurred_at)
    barred = [
        replace(
            nothing,
            passed=False,
            decision="BLOCKED",
            reason=f"it does not fit into the quota {block.entitlement.code}, version "
            f"{block.entitlement.version}: {block.used_before:f} of {block.limit:f} "
            f"{block.meter.code} were used before it",
            meter=block.meter.code,
        )
        for block in blocks.values()
    ]
    used = [
        replace(
            nothing,
            decision="QUOTA_USED",
            reason=f"it uses up the quota {grant.entitlement.code} of "
            f"{grant.entitlement.quota or Decimal(0):f} {grant.meter.code}; what goes beyond it is "
            f"{grant.entitlement.policy}",
            meter=grant.meter.code,
        )
        for grant in grants
        if grant.meter.id in meters and grant.meter.id not in blocks
    ]
    return barred + used or [nothing]


async def _conflicts(scope: Scope, event_id: UUID) -> list[Step]:
    found = await scope.db.scalars(
        sa.select(col(EventConflict.created_at))
        .where(col(EventConflict.event_id) == event_id)
        .order_by(col(EventConflict.id))
        .limit(CONFLICTS_MAX)
    )
    return [
        conflict(at, (await versions_at(scope, at))[StageName.DEDUPLICATION]) for at in list(found)
    ]


async def _one(scope: Scope, condition: str, **parameters: Any) -> EventRow | None:
    # A segment is confirmed only where no other holds its events, so the index may say which parts
    # are looked at.
    rows = await scope.events.query(
        f"SELECT {EVENT_COLUMNS} FROM {WHOLE_LOG} WHERE {condition} AND type != '' "
        f"LIMIT 1 {NEWEST_ALONE}",
        watermark=await queries.watermark(scope),
        **parameters,
    )
    return EventRow(**rows[0]) if rows else None


def _aside(row: QuarantinedEvent) -> Aside:
    return Aside(
        passage=read(row.trace),
        code=row.code,
        message=row.message,
        received_at=row.received_at,
        settled=None if row.state is QuarantineState.QUARANTINED else row.state.value,
        settled_at=row.settled_at,
        settled_by=row.settled_by,
    )


_properties = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
