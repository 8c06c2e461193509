"""Stage 3 and the commit: keys are taken and events kept, for many batches in one transaction.

Batches that arrive while one transaction is under way share the next. The keys decide between
transactions: they are written in one order everywhere, so of two that want the same key the later
one waits for the first one's commit, and finds the key taken.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aforo.metering.backfills import still_open
from aforo.metering.deduplicate import KnownKey
from aforo.metering.models import (
    EventConflict,
    IngestBatch,
    KeyState,
    QuarantinedEvent,
    QuarantineState,
)
from aforo.metering.prepare import Prepared
from aforo.metering.room import Room
from aforo.metering.rounds import Batch, Key, Place, SortedOut, key_of
from aforo.metering.stored import StoredEvent, hour_of, packed_by_hour
from aforo.metering.superseding import Target
from aforo.metering.verdicts import IngestAnswer, Refusal, VerdictKind
from aforo.storage.failpoints import reached
from aforo.storage.faults import answered_within
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.storage.together import Bounds, Together

BOUNDS = Bounds(round_max=4_000, waiting_max=50_000)
"""In events."""
TENANT_BYTES = 16
ROUND_SECONDS_MAX = 20.0
"""A frozen engine must not hold up those who come once it is well again."""


class BatchRefused(Exception):
    """An atomic batch in which not every event was good; nothing of it is kept."""

    def __init__(self, answer: IngestAnswer) -> None:
        super().__init__("an atomic batch was refused")
        self.answer = answer


async def take(runtime: Runtime, batch: Batch, *, atomic: bool) -> IngestAnswer:
    """Keep a batch, together with those that come at the same time; an atomic one by itself.

    Raises: `BatchRefused`, `Unavailable`.
    """
    taking = _taking(runtime)
    if not atomic:
        return await taking.together.do(batch, size=max(1, len(batch.prepared)))
    await taking.room.demand()
    [result] = await _take_all(runtime, [batch], atomic=True)
    return result


class _Taking:
    """How the requests of a process share their rounds."""

    def __init__(self, runtime: Runtime) -> None:
        self.room = Room(runtime)
        self.together = Together(self._round, bounds=BOUNDS, name="ingestion")
        self._runtime = runtime

    async def _round(self, batches: Sequence[Batch]) -> list[IngestAnswer]:
        await self.room.demand()
        return await _take_all(self._runtime, batches)


def _taking(runtime: Runtime) -> _Taking:
    # By the pool: copies of a runtime that differ in their clock commit together.
    key = ("ingestion", runtime.system_sessions)
    if key not in runtime.common:
        runtime.common[key] = _Taking(runtime)
    taking: _Taking = runtime.common[key]
    return taking


async def _take_all(
    runtime: Runtime, batches: Sequence[Batch], *, atomic: bool = False
) -> list[IngestAnswer]:
    """Keep batches in one transaction; the answer to each of them."""
    async with answered_within(ROUND_SECONDS_MAX), runtime.system("take events") as db:
        answers = await take_in(db, batches, atomic=atomic)
        reached("ingest.written")
    reached("ingest.committed")
    return answers


async def take_in(
    db: AsyncSession, batches: Sequence[Batch], *, atomic: bool = False
) -> list[IngestAnswer]:
    """Keep batches in a transaction under the system role; the answer to each of them."""
    sorted_out = SortedOut(batches)
    # Before anything is written: then what supersedes an event is the younger transaction of the
    # two, and reaches the log after it or together with it.
    targets = await _targets(db, sorted_out.targets) if sorted_out.targets else {}
    if any(batch.backfill_id for batch in batches):
        batches = await still_open(db, batches)
        sorted_out = SortedOut(batches)
    known = await _take_keys(db, sorted_out)
    if sorted_out.targets:
        await _supersede(db, sorted_out, known, targets)
    kept = sorted_out.kept(known)
    answers = sorted_out.answers(known)
    if atomic and answers[0].refused:
        raise BatchRefused(answers[0])
    await _keep(db, kept)
    await _record(db, batches, answers)
    return answers


async def _take_keys(db: AsyncSession, events: SortedOut) -> dict[Key, KnownKey]:
    """Write the keys; those that were taken before, by which event."""
    asked = {key for key, _ in events.rejected}
    if events.firsts:
        taken = await _run(db, _INSERT_KEYS, *_entries(events.firsts))
        if taken < len(events.firsts):
            asked |= events.firsts.keys()
    return await _known(db, events, asked) if asked else {}


async def _targets(db: AsyncSession, keys: Collection[Key]) -> dict[Key, Target]:
    """Those of the keys that are taken. Accepted events are locked, in the order of their keys: of
    two that supersede the same one the later waits, and finds it superseded."""
    connection = await db.connection()
    found: dict[Key, Target] = {}
    for statement in (_LOCK_TARGETS, _ASIDE):
        rows = await connection.exec_driver_sql(statement, _columns(keys))
        for row in rows:
            target = Target(row.event_id, KeyState(row.state), row.superseded_by)
            found.setdefault(key_of(row.tenant_id, row.key_hash), target)
    return found


async def _supersede(
    db: AsyncSession,
    events: SortedOut,
    known: Mapping[Key, KnownKey],
    targets: Mapping[Key, Target],
) -> None:
    """Write down which event supersedes which; keys of those that cannot go to the next, or are
    free again."""
    events.settle(known, targets)
    if events.given_up:
        await _run(db, _GIVE_UP_KEYS, *_columns(events.given_up))
    if events.passed_on:
        await _run(db, _INSERT_KEYS, *_entries(events.passed_on))
    if events.superseded:
        by = [*events.superseded.values()]
        await _run(db, _SUPERSEDE, *_columns(events.superseded), by)


def _columns(keys: Collection[Key]) -> tuple[list[UUID], list[bytes]]:
    return (
        [UUID(bytes=key[:TENANT_BYTES]) for key in keys],
        [key[TENANT_BYTES:] for key in keys],
    )


def _entries(
    firsts: Mapping[Key, Place],
) -> tuple[list[UUID], list[int], list[int], bytes, datetime]:
    """The keys in order: the tenants, the first and last place of each, the entries one behind the
    other, and when they were received."""
    rows = sorted(firsts.items(), key=_by_key)
    ends: dict[bytes, int] = {key[:TENANT_BYTES]: place for place, (key, _) in enumerate(rows)}
    lasts = [*ends.values()]
    entries = b"".join(
        [
            part
            for _, (_, one) in rows
            for part in (
                one.item.key_hash,
                one.item.payload_hash,
                one.event_id.bytes,
                _state_of(one),
            )
        ]
    )
    return (
        [UUID(bytes=tenant) for tenant in ends],
        [0, *(last + 1 for last in lasts[:-1])],
        lasts,
        entries,
        max(one.received_at for _, (_, one) in rows),
    )


def _state_of(one: Prepared) -> bytes:
    """As `_INSERT_KEYS` reads it."""
    if isinstance(one.result, StoredEvent):
        return b"\2" if one.result.is_void else b"\0"
    return b"\1"


async def _known(
    db: AsyncSession, events: SortedOut, asked: Collection[Key]
) -> dict[Key, KnownKey]:
    ours = {place.one.event_id for place in events.firsts.values()}
    return {
        key: first
        for key, first, is_new in await _holders(db, asked)
        # One of ours may also have been written before, where it is taken a second time.
        if not (is_new and first.event_id in ours)
    }


async def known_keys(db: AsyncSession, asked: Collection[Key]) -> dict[Key, KnownKey]:
    """By which events these keys are held, of those that are."""
    return {key: first for key, first, _ in await _holders(db, asked)}


async def _holders(db: AsyncSession, asked: Collection[Key]) -> list[tuple[Key, KnownKey, bool]]:
    """Keys, their events, and whether this transaction has written them."""
    connection = await db.connection()
    found = await connection.exec_driver_sql(_KNOWN_KEYS, _columns(asked))
    return [
        (
            key_of(row.tenant_id, row.key_hash),
            KnownKey(row.event_id, row.payload_hash),
            bool(row.is_new),
        )
        for row in found
    ]


async def _keep(db: AsyncSession, kept: Sequence[tuple[UUID, Prepared]]) -> None:
    """Write what was accepted into the inbox, one row for each tenant and hour, and set the rest
    aside."""
    accepted: dict[UUID, list[StoredEvent]] = defaultdict(list)
    aside: list[dict[str, object]] = []
    for tenant_id, one in kept:
        if isinstance(one.result, StoredEvent):
            accepted[tenant_id].append(one.result)
        else:
            aside.append(_set_aside(tenant_id, one, one.result))
    if accepted:
        packs = [
            (tenant_id, pack)
            for tenant_id, events in accepted.items()
            for pack in packed_by_hour(events)
        ]
        await _run(
            db,
            _INSERT_INBOX,
            [tenant_id for tenant_id, _ in packs],
            [pack.received_at for _, pack in packs],
            [pack.events for _, pack in packs],
            [pack.content_bytes for _, pack in packs],
            [pack.corrections for _, pack in packs],
            [pack.backfilled for _, pack in packs],
            [pack.body for _, pack in packs],
        )
    if aside:
        await db.execute(sa.insert(QuarantinedEvent), aside)


async def _record(
    db: AsyncSession, batches: Sequence[Batch], answers: Sequence[IngestAnswer]
) -> None:
    """What each tenant's batches brought in an hour, in numbers, and every conflict in full."""
    counts: dict[tuple[UUID, datetime], dict[str, object]] = {}
    conflicts: list[dict[str, object]] = []
    for batch, result in zip(batches, answers, strict=True):
        row = counts.setdefault(
            (batch.tenant_id, hour_of(batch.received_at)),
            {
                "id": new_id(),
                "tenant_id": batch.tenant_id,
                "created_at": batch.received_at,
                **dict.fromkeys(COUNTED, 0),
            },
        )
        for name in COUNTED:
            row[name] = cast("int", row[name]) + getattr(result, name)
        if result.conflicts:
            conflicts += _conflicts(batch, result)
    await db.execute(sa.insert(IngestBatch), list(counts.values()))
    if conflicts:
        await db.execute(sa.insert(EventConflict), conflicts)


def _conflicts(batch: Batch, result: IngestAnswer) -> Iterator[dict[str, object]]:
    sent = {one.item.index: one.item for one in batch.prepared}
    for verdict in result.verdicts:
        if verdict.kind is VerdictKind.CONFLICT:
            yield {
                "id": new_id(),
                "tenant_id": batch.tenant_id,
                "created_at": batch.received_at,
                "idempotency_key": verdict.idempotency_key or "",
                "event_id": verdict.event_id,
                "properties": sent[verdict.index].properties,
            }


def _set_aside(tenant_id: UUID, one: Prepared, why: Refusal) -> dict[str, object]:
    """The event for the quarantine. A customer's key is a secret: only its hash is kept."""
    event = one.item.event
    return {
        "id": one.event_id,
        "tenant_id": tenant_id,
        "created_at": one.received_at,
        "received_at": one.received_at,
        "state": QuarantineState.QUARANTINED,
        "event_type": event.type,
        "customer": event.customer,
        "code": why.code,
        "message": why.message,
        "trace": one.trace,
        "key_hash": one.item.key_hash,
        "body": {
            "idempotencyKey": event.key,
            "type": event.type,
            "customer": event.customer,
            "apiKeyHash": one.api_key_hash.hex() if one.api_key_hash else None,
            "occurredAt": event.occurred_at.isoformat() if event.occurred_at else None,
            "properties": one.item.properties,
            **({"supersedes": event.supersedes} if event.supersedes else {}),
            **({"reason": event.reason} if event.reason else {}),
        },
    }


async def _run(db: AsyncSession, statement: str, *values: object) -> int:
    """Run a statement; how many rows it wrote."""
    connection = await db.connection()
    # Past SQLAlchemy's types, which would look at each value on its way.
    return (await connection.exec_driver_sql(statement, values)).rowcount


_by_key = itemgetter(0)
COUNTED = ("received", "accepted", "duplicates", "conflicts", "rejected", "quarantined")

# The entries come as one value, because one for each column of each row takes longer to send than
# all of the rest.
_INSERT_KEYS = """
INSERT INTO event_key (tenant_id, key_hash, payload_hash, event_id, state, received_at)
SELECT tenant_id,
    substring($4::bytea, 81 * place + 1, 32),
    substring($4::bytea, 81 * place + 33, 32),
    encode(substring($4::bytea, 81 * place + 65, 16), 'hex')::uuid,
    CASE get_byte($4::bytea, 81 * place + 80)
        WHEN 0 THEN 'ACCEPTED' WHEN 2 THEN 'VOID' ELSE 'QUARANTINED' END,
    $5::timestamptz
FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS several (tenant_id, first, last)
CROSS JOIN LATERAL generate_series(first, last) AS place
ORDER BY place
ON CONFLICT (tenant_id, key_hash) DO NOTHING
"""
_KNOWN_KEYS = """
SELECT tenant_id, key_hash, event_id, payload_hash,
    event_key.xmin = pg_current_xact_id_if_assigned()::xid AS is_new
FROM event_key JOIN unnest($1::uuid[], $2::bytea[]) AS asked (tenant_id, key_hash)
    USING (tenant_id, key_hash)
"""
# What is quarantined is left to those who release or discard it, which lock in another order.
_LOCK_TARGETS = """
SELECT tenant_id, key_hash, event_id, state, superseded_by
FROM event_key JOIN unnest($1::uuid[], $2::bytea[]) AS asked (tenant_id, key_hash)
    USING (tenant_id, key_hash)
WHERE state = 'ACCEPTED'
ORDER BY tenant_id, key_hash FOR NO KEY UPDATE OF event_key
"""
_ASIDE = """
SELECT tenant_id, key_hash, event_id, state, superseded_by
FROM event_key JOIN unnest($1::uuid[], $2::bytea[]) AS asked (tenant_id, key_hash)
    USING (tenant_id, key_hash)
WHERE state <> 'ACCEPTED'
"""
_GIVE_UP_KEYS = """
DELETE FROM event_key USING unnest($1::uuid[], $2::bytea[]) AS gone (tenant_id, key_hash)
WHERE event_key.tenant_id = gone.tenant_id AND event_key.key_hash = gone.key_hash
"""
_SUPERSEDE = """
UPDATE event_key SET superseded_by = one.event_id
FROM unnest($1::uuid[], $2::bytea[], $3::uuid[]) AS one (tenant_id, key_hash, event_id)
WHERE event_key.tenant_id = one.tenant_id AND event_key.key_hash = one.key_hash
"""
_INSERT_INBOX = """
INSERT INTO event_inbox
    (tenant_id, received_at, events, content_bytes, corrections, backfilled, body)
SELECT * FROM unnest(
    $1::uuid[], $2::timestamptz[], $3::integer[], $4::integer[], $5::integer[], $6::integer[],
    $7::bytea[]
)
"""
