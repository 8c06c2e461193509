"""How many events are on their way into the log, over all tenants, and for how long."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.metering.models import EventInbox, Segment, SegmentState
from aforo.metering.stored import from_line

COUNTED_MAX = 100_000
"""More waiting events are not counted: the count would add to their wait."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits: how many, and since when the oldest of them does."""

    count: int
    since: datetime | None


async def unsealed_events(db: AsyncSession) -> Waiting:
    """Events that were acknowledged and are in no segment yet."""
    unsealed = col(EventInbox.segment_id).is_(None)
    some = sa.select(col(EventInbox.seq)).where(unsealed).limit(COUNTED_MAX).subquery()
    count = await db.scalar(sa.select(sa.func.count()).select_from(some))
    body = await db.scalar(
        sa.select(col(EventInbox.body)).where(unsealed).order_by(col(EventInbox.seq)).limit(1)
    )
    return Waiting(count or 0, from_line(body).received_at if body else None)


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
