"""What is quarantined: released once its cause is mended, discarded, or corrected first."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlmodel import col

from aforo.metering import queries
from aforo.metering.canonical import canonical_object
from aforo.metering.deduplicate import KeyedEvent
from aforo.metering.ingest import KEY_LENGTH_MAX, TYPE_LENGTH_MAX, SentEvent, read_event, wrong_text
from aforo.metering.known import known_in
from aforo.metering.models import (
    EventInbox,
    EventKey,
    KeyState,
    QuarantinedEvent,
    QuarantineState,
)
from aforo.metering.prepare import Prepared, prepare
from aforo.metering.stored import StoredEvent, hash_of_key, packed_by_hour
from aforo.metering.trace import RELEASED, beginning
from aforo.metering.verdicts import Refusal
from aforo.sdk.errors import Conflict, Invalid, NotFound
from aforo.stages.queries import in_force
from aforo.storage.actors import INSTALLATION
from aforo.storage.audit import LABEL_CHARACTERS_MAX, Thing
from aforo.storage.failpoints import reached
from aforo.storage.jobs import JobName
from aforo.storage.scope import Scope
from aforo.storage.values import cut
from aforo.subscriptions.hierarchy import hash_customer_key

SETTLED_AT_ONCE = 500
"""Events of one call: they are one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which quarantined events: those that meet every condition, at least one, the oldest first."""

    ids: Sequence[UUID] | None = None
    """At most `SETTLED_AT_ONCE`."""
    code: str | None = None
    event_type: str | None = None
    customer: str | None = None
    after: UUID | None = None
    """Those behind this one; with another condition."""
    names: Sequence[str] | None = None
    """Those that name one of these customers."""
    by_key: bool = False
    """Also those that name a key alone; with `names`."""
    key_hash: str | None = None
    """Those that name this key, by its hash in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the events of one call."""

    events: int
    """How many were released, or discarded."""
    failures: Mapping[str, int]
    """How many are quarantined still, by the code that they have now."""
    last: UUID | None
    """Where the next call goes on; None where no event follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What an event should have said. What is not in `given` stays as it is."""

    given: Collection[str]
    """Of the other fields of this class."""
    type: str | None = None
    customer: str | None = None
    """None: the event names none any more. Likewise the key."""
    api_key: str | None = None
    properties: object = None


async def release(scope: Scope, wanted: Wanted) -> Settled:
    """Let events count, as of their own moment, with what is known by now.

    Each is either in the inbox with its key ACCEPTED, or quarantined as before, with the code of
    what is wrong with it now. However old they have become, the time window of ingestion is not
    held against them: they came in time. What was settled before is left as it is.

    Raises: `Invalid`, or `NotFound` for an id.
    """
    rows = await _chosen(scope, wanted)
    waiting = [row for row in rows if row.state is QuarantineState.QUARANTINED]
    released: list[StoredEvent] = []
    failures: Counter[str] = Counter()
    for row, one in zip(waiting, await _prepared(scope, waiting), strict=True):
        if isinstance(one.result, StoredEvent):
            _settle(scope, row, QuarantineState.RELEASED)
            released.append(msgspec.structs.replace(one.result, trace=one.trace + RELEASED))
        else:
            row.code, row.message = one.result.code, one.result.message
            failures[row.code] += 1
    await scope.db.flush()
    if released:
        changed = await scope.db.execute(
            sa.update(EventKey)
            .where(*_keys_of([row for row in waiting if row.state is QuarantineState.RELEASED]))
            .values(state=KeyState.ACCEPTED)
        )
        _assert_all(changed, released)
        await _accept(scope, released)
    reached("release.written")
    return Settled(len(released), failures, _last(rows))


async def release_made(scope: Scope, *, after: str | None = None, **wanted: Any) -> Settled:
    """Release what was waiting for something that has been made: a part of it, and the rest by
    another job. `wanted` is what the job was asked for with, of the fields of `Wanted`."""
    settled = await release(scope, Wanted(after=None if after is None else UUID(after), **wanted))
    if settled.events:
        done = {"code": wanted["code"], "events": settled.events}
        await scope.record("quarantinedEventsReleased", Thing("QuarantinedEvent", None, None, done))
    if settled.last is not None:
        await scope.enqueue(JobName.RELEASE_QUARANTINED, **wanted, after=str(settled.last))
    return settled


async def discard(scope: Scope, wanted: Wanted) -> Settled:
    """Decide that events never count. Their keys are free again: mended ones can be sent. What
    they were to supersede stands.

    What was settled before is left as it is. Raises: `Invalid`, or `NotFound` for an id.
    """
    rows = await _chosen(scope, wanted)
    waiting = [row for row in rows if row.state is QuarantineState.QUARANTINED]
    for row in waiting:
        _settle(scope, row, QuarantineState.DISCARDED)
    await scope.db.flush()
    if waiting:
        await _leave_standing(scope, waiting)
        gone = await scope.db.execute(sa.delete(EventKey).where(*_keys_of(waiting)))
        _assert_all(gone, waiting)
    return Settled(len(waiting), {}, _last(rows))


async def correct(
    scope: Scope, quarantined_event_id: UUID, correction: Correction, *, pepper: str
) -> QuarantinedEvent:
    """Change what a quarantined event says. It counts only once it is released.

    What was sent first stays readable, and its payload hash stays the key's: a retry of the
    original is a duplicate, also afterwards. Raises: `Invalid`, `NotFound`, or `Conflict` where it
    was released or discarded.
    """
    row = await scope.db.scalar(
        sa.select(QuarantinedEvent)
        .where(col(QuarantinedEvent.id) == quarantined_event_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise _not_found("quarantinedEventId")
    if row.state is not QuarantineState.QUARANTINED:
        raise Conflict(
            f"the event was {row.state.lower()} already: what is settled stays as it is",
            code="QUARANTINE_SETTLED",
            field="quarantinedEventId",
        )
    stands = {**as_it_stands(row), **_corrected(correction, pepper)}
    if stands["customer"] is None and stands["apiKeyHash"] is None:
        raise Invalid("customer or apiKey must say whose event it is", code="MISSING_FIELD")
    changed = {name: value for name, value in stands.items() if value != row.body[name]}
    row.corrected = changed or None
    row.event_type, row.customer = stands["type"], stands["customer"]
    await scope.db.flush()
    return row


def as_it_stands(row: QuarantinedEvent) -> dict[str, Any]:
    """The event in the form of `body`: as sent, and corrected."""
    return {**row.body, **(row.corrected or {})}


async def _chosen(scope: Scope, wanted: Wanted) -> list[QuarantinedEvent]:
    """The rows, locked: of two that settle the same ones the later waits, and finds it done."""
    if wanted.ids is not None and len(wanted.ids) > SETTLED_AT_ONCE:
        raise Invalid(
            f"{len(wanted.ids)} events are too many for one call, give at most {SETTLED_AT_ONCE}",
            field="quarantinedEventIds",
        )
    listing = queries.quarantined_events(
        code=wanted.code, event_type=wanted.event_type, customer=wanted.customer
    )
    chosen = sa.select(QuarantinedEvent).where(*listing.where, *_narrowed(wanted))
    if wanted.ids is not None:
        chosen = chosen.where(col(QuarantinedEvent.id).in_(wanted.ids))
    elif listing.where:
        chosen = chosen.where(col(QuarantinedEvent.state) == QuarantineState.QUARANTINED)
    else:
        raise Invalid(
            "say which events: by quarantinedEventIds, code, type or customer",
            code="MISSING_FIELD",
        )
    if wanted.after is not None:
        chosen = chosen.where(col(QuarantinedEvent.id) > wanted.after)
    found = await scope.db.scalars(
        chosen.order_by(col(QuarantinedEvent.id))
        .limit(SETTLED_AT_ONCE)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    rows = list(found)
    if wanted.ids is not None:
        await _demand(scope, wanted.ids, {row.id for row in rows})
    return rows


def _narrowed(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.names is not None:
        customer = col(QuarantinedEvent.customer)
        named = customer.in_(wanted.names)
        conditions.append(sa.or_(named, customer.is_(None)) if wanted.by_key else named)
    if wanted.key_hash is not None:
        sent, corrected = (
            each["apiKeyHash"].astext
            for each in (col(QuarantinedEvent.body), col(QuarantinedEvent.corrected))
        )
        conditions.append(sa.func.coalesce(corrected, sent) == wanted.key_hash)
    return conditions


async def _demand(scope: Scope, ids: Sequence[UUID], found: Collection[UUID]) -> None:
    """Refuse ids of what is not there; what does not meet another condition is."""
    missing = [each for each in ids if each not in found]
    known = await queries.quarantined_events_by_id(scope, missing)
    for place, each in enumerate(ids):
        if each not in found and each not in known:
            raise _not_found(f"quarantinedEventIds.{place}")


async def _prepared(scope: Scope, rows: Sequence[QuarantinedEvent]) -> list[Prepared]:
    """What ingestion would say of the events today, had they come as they stand, and when they
    did."""
    if not rows:
        return []
    # The hash of a key takes the place of the key, which nobody knows any more.
    items = [_item(row) for row in rows]
    key_hashes = {
        item.event.api_key: bytes.fromhex(item.event.api_key)
        for item in items
        if item.event.api_key
    }
    known = await known_in(scope, [item.event for item in items], key_hashes)
    trace = beginning(await in_force(scope))
    return [
        prepare([item], [row.id], known, key_hashes=key_hashes, now=row.received_at, trace=trace)[0]
        for item, row in zip(items, rows, strict=True)
    ]


def _item(row: QuarantinedEvent) -> KeyedEvent:
    stands = as_it_stands(row)
    occurred_at = stands["occurredAt"]
    event = SentEvent(
        stands["idempotencyKey"],
        stands["type"],
        stands["customer"],
        stands["apiKeyHash"],
        None if occurred_at is None else datetime.fromisoformat(occurred_at),
        _properties(stands["properties"]),
        stands.get("supersedes"),
        stands.get("reason"),
    )
    # The hash of the payload is the key's affair, and stays there.
    return KeyedEvent(0, event, stands["properties"], row.key_hash, b"")


async def _accept(scope: Scope, events: Sequence[StoredEvent]) -> None:
    """Write events into the inbox, as ingestion does."""
    rows = [pack._asdict() for pack in packed_by_hour(events)]
    await scope.db.execute(sa.insert(EventInbox), rows)


async def _leave_standing(scope: Scope, rows: Sequence[QuarantinedEvent]) -> None:
    """Let others supersede what discarded events were to."""
    targets = [hash_of_key(row.body["supersedes"]) for row in rows if row.body.get("supersedes")]
    if not targets:
        return
    # In the order in which ingestion locks them, and like there before any key is given up.
    await scope.db.execute(
        sa.select(col(EventKey.key_hash))
        .where(col(EventKey.key_hash).in_(targets))
        .order_by(col(EventKey.key_hash))
        .with_for_update(key_share=True)
    )
    await scope.db.execute(
        sa.update(EventKey)
        .where(
            col(EventKey.key_hash).in_(targets),
            col(EventKey.superseded_by).in_([row.id for row in rows]),
        )
        .values(superseded_by=None)
    )


def _settle(scope: Scope, row: QuarantinedEvent, state: QuarantineState) -> None:
    row.state = state
    row.settled_at = scope.now
    row.settled_by = cut((scope.actor or INSTALLATION).label, LABEL_CHARACTERS_MAX)


def _keys_of(rows: Sequence[QuarantinedEvent]) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(EventKey.key_hash).in_([row.key_hash for row in rows]),
        col(EventKey.event_id).in_([row.id for row in rows]),
        col(EventKey.state) == KeyState.QUARANTINED,
    )


def _assert_all(result: Any, events: Sequence[object]) -> None:
    """A quarantined event holds its key; were it otherwise, another could count under it."""
    assert result.rowcount == len(events), "every quarantined event holds its key"


def _last(rows: Sequence[QuarantinedEvent]) -> UUID | None:
    return rows[-1].id if len(rows) == SETTLED_AT_ONCE else None


def _corrected(correction: Correction, pepper: str) -> dict[str, Any]:
    """The members of `body` that a correction gives, checked as ingestion checks them."""
    if not correction.given:
        raise Invalid("say what to correct: type, customer, apiKey or properties")
    members: dict[str, Any] = {}
    if "type" in correction.given:
        members["type"] = _name(correction.type, TYPE_LENGTH_MAX, "type")
    if "customer" in correction.given:
        members["customer"] = _optional(correction.customer, "customer")
    if "api_key" in correction.given:
        key = _optional(correction.api_key, "apiKey")
        members["apiKeyHash"] = key and hash_customer_key(key, pepper=pepper).hex()
    if "properties" in correction.given:
        members["properties"] = _canonical(correction.properties)
    return members


def _name(value: str | None, length_max: int, field: str) -> str | None:
    if wrong := wrong_text(value, length_max):
        raise Invalid(f"{field} {wrong}", code="BAD_VALUE", field=field)
    return value


def _optional(value: str | None, field: str) -> str | None:
    return None if value is None else _name(value, KEY_LENGTH_MAX, field)


def _canonical(properties: object) -> str:
    read = read_event(
        {"idempotencyKey": "k", "type": "t", "customer": "c", "properties": properties}
    )
    if isinstance(read, Refusal):
        raise Invalid(read.message, code=read.code, field="properties")
    return canonical_object(read.properties)


def _not_found(field: str) -> NotFound:
    return NotFound("there is no quarantined event with this id", field=field)


_properties = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
