"""How much is on its way, over all tenants, and for how long: events above all."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering.models import EventInbox, Segment, SegmentState, TopicPlace
from aforo.storage import queue
from aforo.storage.scope import Runtime
from aforo.telemetry.metrics import BACKLOG, BACKLOG_AGE

ROWS_MAX = 100_000
"""More rows that wait are not counted: the count would add to their wait."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits: how many, and since when the oldest of them does."""

    count: int
    since: datetime | None
    is_all: bool = True
    """Whether there are no more of them than were counted."""


async def measure(runtime: Runtime) -> None:
    """Bring the gauges of what waits up to date."""
    now = runtime.clock.now()
    async with runtime.system("measure the backlog") as db:
        waiting = {
            "jobs": Waiting(*await queue.backlog(db, now)),
            "events": await unsealed_events(db),
            "segments": await unconfirmed_segments(db),
        }
        topic = runtime.topic
        until = None if topic is None else await topic_read_until(db, topic.name)
    for name, found in waiting.items():
        BACKLOG.labels(name).set(found.count)
        age = (now - found.since).total_seconds() if found.since else 0
        BACKLOG_AGE.labels(name).set(max(age, 0))
    if until is not None:
        BACKLOG_AGE.labels("topic").set(max((now - until).total_seconds(), 0))


async def topic_read_until(db: AsyncSession, topic: str) -> datetime | None:
    """Whatever was sent to the topic before it is in PostgreSQL; None where nobody has read yet.

    A topic that is quiet is looked at every other second.
    """
    found: datetime | None = await db.scalar(
        sa.select(sa.func.min(col(TopicPlace.read_until))).where(col(TopicPlace.topic) == topic)
    )
    return found


async def unsealed_events(db: AsyncSession) -> Waiting:
    """Events that were acknowledged and are in no segment yet."""
    return await events_in_inbox(db, col(EventInbox.segment_id).is_(None), rows_max=ROWS_MAX)


async def events_in_inbox(
    db: AsyncSession, *conditions: sa.ColumnElement[bool], rows_max: int
) -> Waiting:
    """Events that are in no confirmed segment yet, by the rows that meet the conditions."""
    some = (
        sa.select(col(EventInbox.events), col(EventInbox.received_at))
        .where(*conditions)
        .order_by(col(EventInbox.seq))
        .limit(rows_max)
        .subquery()
    )
    rows, count, oldest = (
        await db.execute(
            sa.select(
                sa.func.count(),
                sa.func.coalesce(sa.func.sum(some.c.events), 0),
                sa.func.min(some.c.received_at),
            )
        )
    ).one()
    return Waiting(count, oldest, is_all=rows < rows_max)


async def unconfirmed_segments(db: AsyncSession) -> Waiting:
    """Segments that ClickHouse has not been shown to hold."""
    count, oldest = (
        await db.execute(
            sa.select(sa.func.count(), sa.func.min(col(Segment.sealed_at))).where(
                col(Segment.state) == SegmentState.SEALED
            )
        )
    ).one()
    return Waiting(count, oldest)


async def last_confirmed_segment(db: AsyncSession) -> int:
    """The highest watermark of any tenant; 0 before the first."""
    confirmed = col(Segment.state) == SegmentState.CONFIRMED
    last = await db.scalar(sa.select(sa.func.max(col(Segment.segment_id))).where(confirmed))
    return last or 0
