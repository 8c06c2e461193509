"""The life of a job row: due, leased, done, tried again or given up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from aforo.sdk.ids import JobId, TenantId
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.postgres import listening
from aforo.storage.scope import Runtime, Scope

DUE_MAX = 500
BACKOFF_SECONDS_MAX = 3_600
FAILURE_LENGTH_MAX = 2_000
DONE_KEPT = timedelta(days=30)
FORGOTTEN_AT_ONCE = 5_000


class LeaseLostError(Exception):
    """Another worker has taken the job over: what this one did is rolled back."""


@dataclass(frozen=True, slots=True)
class Due:
    """A job that may be taken now."""

    tenant_id: TenantId
    job_id: JobId
    tries: int
    """How often it was taken before."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that this worker has taken."""

    tenant_id: TenantId
    job_id: JobId
    name: JobName
    arguments: dict[str, Any]
    tries: int
    """Including this one; it also tells this lease from a later one."""
    traceparent: str | None = None
    """Of the span in which the job was asked for."""


async def due_jobs(
    runtime: Runtime,
    tenant_id: TenantId | None = None,
    *,
    but: Sequence[tuple[TenantId, JobName]] = (),
) -> list[Due]:
    """Jobs whose time has come, or whose worker let its lease run out; the oldest first. Those of
    a tenant and name that are in `but` wait."""
    of_tenant = [] if tenant_id is None else [col(Job.tenant_id) == tenant_id]
    if but:
        of_tenant.append(sa.tuple_(col(Job.tenant_id), col(Job.name)).not_in(but))
    async with runtime.system("list the due jobs") as db:
        rows = await db.execute(
            sa.select(col(Job.tenant_id), col(Job.id), col(Job.tries))
            .where(_takeable(runtime.clock.now()), *of_tenant)
            .order_by(col(Job.run_at))
            .limit(DUE_MAX)
        )
        return [Due(TenantId(tenant_id), JobId(job_id), tries) for tenant_id, job_id, tries in rows]


async def backlog(db: AsyncSession, now: datetime) -> tuple[int, datetime | None]:
    """How many jobs could be taken, under the system role, and since when the oldest could."""
    found = await db.execute(
        sa.select(sa.func.count(), sa.func.min(col(Job.run_at))).where(_takeable(now))
    )
    count, oldest = found.one()
    return count, oldest


async def lease(
    runtime: Runtime, tenant_id: TenantId, job_id: JobId, *, seconds: Mapping[JobName, int]
) -> Lease | None:
    """Take a job for as long as its kind may need; None where it is taken, done or not due."""
    now = runtime.clock.now()
    async with runtime.system("lease a job") as db:
        job = await db.scalar(
            sa.update(Job)
            .where(col(Job.tenant_id) == tenant_id, col(Job.id) == job_id, _takeable(now))
            .values(
                state=JobState.RUNNING,
                tries=col(Job.tries) + 1,
                lease_until=now,
                # From here on the same work may be asked for again: it has begun.
                unique_key=None,
            )
            .returning(Job)
        )
        if job is None:
            return None
        job.lease_until = now + timedelta(seconds=seconds[job.name])
        return Lease(tenant_id, job_id, job.name, job.arguments, job.tries, job.traceparent)


async def complete(scope: Scope, taken: Lease) -> None:
    """Mark the job done, in the transaction of its work.

    Raises: `LeaseLostError`.
    """
    changed = await scope.db.execute(
        sa.update(Job)
        .where(*_held(taken))
        .values(state=JobState.DONE, finished_at=scope.now, lease_until=None)
        .returning(col(Job.id))
    )
    if changed.first() is None:
        raise LeaseLostError(f"job {taken.job_id} was taken over")


async def give_back(runtime: Runtime, taken: Lease, *, failure: str, tries_max: int) -> bool:
    """Record a failure: tried again later, twice as long each time, or given up.

    Returns whether it will be tried again.
    """
    now = runtime.clock.now()
    is_over = taken.tries >= tries_max
    pause = min(2**taken.tries, BACKOFF_SECONDS_MAX)
    async with runtime.system("give a job back") as db:
        await db.execute(
            sa.update(Job)
            .where(col(Job.tenant_id) == taken.tenant_id, *_held(taken))
            .values(
                state=JobState.FAILED if is_over else JobState.QUEUED,
                run_at=now if is_over else now + timedelta(seconds=pause),
                lease_until=None,
                finished_at=now if is_over else None,
                failure=failure[:FAILURE_LENGTH_MAX],
            )
        )
    return not is_over


async def hand_back(runtime: Runtime, taken: Lease) -> None:
    """Undo a lease whose work was cut off, as when the worker is stopped: due again at once."""
    async with runtime.system("hand a job back") as db:
        await db.execute(
            sa.update(Job)
            .where(col(Job.tenant_id) == taken.tenant_id, *_held(taken))
            .values(state=JobState.QUEUED, tries=taken.tries - 1, lease_until=None)
        )


async def forget_done(runtime: Runtime) -> int:
    """Delete jobs that were done more than 30 days ago; how many there were.

    Those that were given up stay: somebody has to look at them.
    """
    forgotten = 0
    place = (col(Job.tenant_id), col(Job.id))
    old = (
        sa.select(*place)
        .where(
            col(Job.state) == JobState.DONE, col(Job.finished_at) <= runtime.clock.now() - DONE_KEPT
        )
        .limit(FORGOTTEN_AT_ONCE)
    )
    while True:
        async with runtime.system("forget jobs that are done") as db:
            gone = await db.execute(
                sa.delete(Job).where(sa.tuple_(*place).in_(old)).returning(col(Job.id))
            )
            count = len(gone.all())
        forgotten += count
        if count < FORGOTTEN_AT_ONCE:
            return forgotten


@asynccontextmanager
async def told(runtime: Runtime, channel: str) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever PostgreSQL is notified on a channel: a hint to look now."""
    news = asyncio.Event()

    def wake(*_: object) -> None:
        news.set()

    async with listening(runtime.cross_tenant, channel, wake) as driver:
        driver.add_termination_listener(wake)
        try:
            yield news
        finally:
            driver.remove_termination_listener(wake)


def _takeable(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(
        sa.and_(col(Job.state) == JobState.QUEUED, col(Job.run_at) <= now),
        sa.and_(col(Job.state) == JobState.RUNNING, col(Job.lease_until) < now),
    )


def _held(taken: Lease) -> Sequence[sa.ColumnElement[bool]]:
    return (
        col(Job.id) == taken.job_id,
        col(Job.state) == JobState.RUNNING,
        col(Job.tries) == taken.tries,
    )
