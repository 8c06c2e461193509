"""From the topic into the inbox: the keys, the events and how far the topic was read are written in
one transaction, so that a record that is read again, or by two, counts once."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering.carried import (
    Carried,
    UnreadableRecordError,
    batches_of,
    decided_otherwise,
    read,
)
from aforo.metering.commands import NOTHING, tell
from aforo.metering.models import TopicPlace
from aforo.metering.room import Room
from aforo.metering.rounds import Batch
from aforo.metering.taking import ROUND_SECONDS_MAX, take_in
from aforo.metering.telling import Source, Told
from aforo.metering.verdicts import IngestAnswer, answer
from aforo.sdk.errors import Unavailable
from aforo.storage.failpoints import reached
from aforo.storage.faults import RETRY_AFTER_SECONDS, answered_within
from aforo.storage.scope import Runtime

if TYPE_CHECKING:
    from aforo.storage.topic import Reader, Record, Topic

RECORDS_MAX = 4_000
"""Of one transaction."""
QUIET_SECONDS = 2.0
"""After so long without a record it is noted that there was none."""

log = structlog.get_logger()


async def deliver(runtime: Runtime, topic: "Topic") -> None:
    """Bring the records of the partitions that this process is given into the inbox, until
    cancelled.

    Raises: `Unavailable`, `RecordsGoneError`, `UnreadableRecordError`.
    """
    room = Room(runtime)
    await room.demand()  # Before it is given partitions that others could read.
    async with topic.reader(partial(_places, runtime, topic.name)) as reader:
        noted_at = 0.0
        while True:
            await room.demand()
            if records := await reader.read(RECORDS_MAX):
                await _keep(runtime, topic.name, reader, records)
            elif time.monotonic() - noted_at >= QUIET_SECONDS:
                noted_at = time.monotonic()
                await _note_quiet(runtime, topic.name, reader)


async def _places(runtime: Runtime, topic: str, oldest: Mapping[int, int]) -> dict[int, int]:
    """How far the partitions have been read; one that never was, from its oldest record on."""
    now = runtime.clock.now()
    async with runtime.system("find the places in the topic") as db:
        for partition, offset in sorted(oldest.items()):
            place = insert(TopicPlace).values(
                topic=topic, partition=partition, next_offset=offset, read_until=now
            )
            await db.execute(place.on_conflict_do_nothing())
        rows = await db.execute(
            sa.select(col(TopicPlace.partition), col(TopicPlace.next_offset)).where(
                col(TopicPlace.topic) == topic, col(TopicPlace.partition).in_(oldest)
            )
        )
        return {place.partition: place.next_offset for place in rows}


async def _keep(
    runtime: Runtime, topic: str, reader: "Reader", records: Sequence["Record"]
) -> None:
    """Write some records, and tell of those that became something else than was said."""
    moves: dict[int, tuple[int, datetime]] = {}
    for record in records:
        moves[record.partition] = (record.offset + 1, record.sent_at)
    batches = batches_of(map(_read, records))
    async with answered_within(ROUND_SECONDS_MAX), runtime.system("deliver events") as db:
        # First: of two who read the same partition, one waits here, and then gives up.
        await _move_on(db, topic, reader.positions, moves)
        answers = await take_in(db, batches)
        reached("deliver.written")
    reached("deliver.committed")
    reader.positions.update({partition: offset for partition, (offset, _) in moves.items()})
    for batch, result in zip(batches, answers, strict=True):
        if told := second_verdicts(batch, result):
            tell(runtime, told)


def _read(record: "Record") -> Carried:
    try:
        return read(record.value)
    except UnreadableRecordError as error:
        raise UnreadableRecordError(
            f"record {record.offset} of partition {record.partition}: {error}"
        ) from error


async def _move_on(
    db: AsyncSession,
    topic: str,
    positions: Mapping[int, int],
    moves: Mapping[int, tuple[int, datetime]],
) -> None:
    for partition, (offset, read_until) in sorted(moves.items()):
        moved = await db.scalar(
            sa.update(TopicPlace)
            .where(
                col(TopicPlace.topic) == topic,
                col(TopicPlace.partition) == partition,
                col(TopicPlace.next_offset) == positions[partition],
            )
            .values(next_offset=offset, read_until=read_until)
            .returning(col(TopicPlace.next_offset))
        )
        if moved is None:
            raise Unavailable(
                f"another process reads partition {partition} by now",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )


async def _note_quiet(runtime: Runtime, topic: str, reader: "Reader") -> None:
    """Note of the partitions that have been read to their end that they are up to date."""
    now = runtime.clock.now()
    ends = await reader.ends()
    done = [each for each, end in ends.items() if reader.positions.get(each, end - 1) >= end]
    if done:
        async with runtime.system("note that the topic is quiet") as db:
            await db.execute(
                sa.update(TopicPlace)
                .where(col(TopicPlace.topic) == topic, col(TopicPlace.partition).in_(sorted(done)))
                .values(read_until=sa.func.greatest(col(TopicPlace.read_until), now))
            )


def second_verdicts(batch: Batch, result: IngestAnswer) -> Told | None:
    """What is to be told of events that another one was faster than, if there are any: their
    senders were told that they are accepted."""
    verdicts = {verdict.index: verdict for verdict in result.verdicts}
    late = decided_otherwise(batch, sorted(verdicts))
    if not late:
        return None
    said = [
        dataclasses.replace(verdicts[one.item.index], index=place) for place, one in enumerate(late)
    ]
    ours = batch._replace(
        received=len(late),
        prepared=[
            msgspec.structs.replace(one, item=msgspec.structs.replace(one.item, index=place))
            for place, one in enumerate(late)
        ],
    )
    sent = [{"type": one.item.event.type} for one in late]
    return Told(ours, sent, NOTHING, Source.INTERNAL, answer(len(late), said), is_kept=True)
