"""The life of a job row, as two workers and a clock see it."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.sdk.ids import TenantId
from aforo.storage import queue
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.queue import Lease, LeaseLostError
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

NAME = JobName.ACT_ON_SIGNAL
SECONDS = dict.fromkeys(JobName, 60)
TICK = timedelta(microseconds=1)


@pytest.fixture
def tenant_id() -> TenantId:
    """A tenant without a job: whoever creates one publishes an event, which asks for one."""
    return TenantId(new_id())


async def test_a_job_is_due_when_its_time_has_come_and_the_oldest_is_first(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    async with runtime.scope(tenant_id) as scope:
        for hours in (2, 1, 3):
            await scope.enqueue(NAME, run_at=scope.now + timedelta(hours=hours), hours=hours)
    assert await due(runtime, tenant_id) == []
    clock.advance(timedelta(hours=1) - TICK)
    assert await due(runtime, tenant_id) == []
    clock.advance(TICK)
    assert await due(runtime, tenant_id) == [{"hours": 1}]
    clock.advance(timedelta(hours=2))
    assert await due(runtime, tenant_id) == [{"hours": 1}, {"hours": 2}, {"hours": 3}]


async def test_a_job_exists_only_if_the_transaction_that_asked_for_it_commits(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async def ask_and_fail() -> None:
        async with runtime.scope(tenant_id) as scope:
            await scope.enqueue(NAME)
            raise LookupError

    with pytest.raises(LookupError):
        await ask_and_fail()
    assert await due(runtime, tenant_id) == []


async def test_while_a_job_waits_asking_again_under_its_key_changes_nothing(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        for number in range(3):
            await scope.enqueue(NAME, unique_key="k", number=number)
            await scope.enqueue(NAME, number=number)
    other = TenantId(new_id())
    async with runtime.scope(other) as scope:
        await scope.enqueue(NAME, unique_key="k", number=9)
    assert sorted(one["number"] for one in await due(runtime, tenant_id)) == [0, 0, 1, 2]
    assert await due(runtime, other) == [{"number": 9}]


async def test_once_a_job_has_begun_the_same_work_may_be_asked_for_again(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        await scope.enqueue(NAME, unique_key="k", number=1)
    assert await take(runtime, tenant_id)
    async with runtime.scope(tenant_id) as scope:
        await scope.enqueue(NAME, unique_key="k", number=2)
    assert await due(runtime, tenant_id) == [{"number": 2}]


async def test_of_ten_workers_one_takes_the_job(runtime: Runtime, tenant_id: TenantId) -> None:
    [job] = await asked(runtime, tenant_id)
    found = await asyncio.gather(
        *(queue.lease(runtime, tenant_id, job.job_id, seconds=SECONDS) for _ in range(10))
    )
    taken = [lease for lease in found if lease is not None]
    assert [(lease.name, lease.arguments, lease.tries) for lease in taken] == [
        (NAME, {"number": 1}, 1)
    ]


async def test_a_lease_that_ran_out_is_taken_again_and_the_late_worker_keeps_nothing(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    await asked(runtime, tenant_id)
    late = await take(runtime, tenant_id)
    clock.advance(timedelta(seconds=60))
    assert await take(runtime, tenant_id, late) is None
    clock.advance(TICK)
    again = await take(runtime, tenant_id, late)
    assert again is not None
    assert again.tries == 2

    async def finish_late() -> None:
        async with runtime.scope(tenant_id) as scope:
            await scope.enqueue(NAME, number=2)
            await queue.complete(scope, late)

    with pytest.raises(LeaseLostError):
        await finish_late()
    await queue.give_back(runtime, late, failure="late", tries_max=1)
    assert await states(runtime, tenant_id) == [(JobState.RUNNING, 2, None)]
    async with runtime.scope(tenant_id) as scope:
        await queue.complete(scope, again)
    assert await states(runtime, tenant_id) == [(JobState.DONE, 2, None)]
    clock.advance(timedelta(days=1))
    assert await due(runtime, tenant_id) == []


async def test_a_failure_is_tried_again_after_twice_the_pause_until_it_is_given_up(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    await asked(runtime, tenant_id)
    for tries, pause in ((1, 2), (2, 4), (3, 8)):
        taken = await take(runtime, tenant_id)
        assert await queue.give_back(runtime, taken, failure="down", tries_max=4)
        assert await states(runtime, tenant_id) == [(JobState.QUEUED, tries, "down")]
        clock.advance(timedelta(seconds=pause) - TICK)
        assert await due(runtime, tenant_id) == []
        clock.advance(TICK)
    taken = await take(runtime, tenant_id)
    assert not await queue.give_back(runtime, taken, failure="x" * 5_000, tries_max=4)
    assert await states(runtime, tenant_id) == [(JobState.FAILED, 4, "x" * 2_000)]
    clock.advance(timedelta(days=1))
    assert await due(runtime, tenant_id) == []


async def test_the_pause_between_tries_never_exceeds_an_hour(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    await asked(runtime, tenant_id)
    for _ in range(14):
        taken = await take(runtime, tenant_id)
        await queue.give_back(runtime, taken, failure="down", tries_max=99)
        clock.advance(timedelta(hours=1))
    assert len(await due(runtime, tenant_id)) == 1


async def test_a_job_that_is_handed_back_is_due_at_once_and_lost_no_try(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    await asked(runtime, tenant_id)
    taken = await take(runtime, tenant_id)
    await queue.hand_back(runtime, taken)
    assert await states(runtime, tenant_id) == [(JobState.QUEUED, 0, None)]
    assert len(await due(runtime, tenant_id)) == 1


async def test_what_is_to_wait_does_not_stand_before_other_jobs(
    runtime: Runtime, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "DUE_MAX", 1)
    async with runtime.scope(tenant_id) as scope:
        await scope.enqueue(JobName.DETECT_SIGNALS, customer_ids=[], watermark=0)
        await scope.enqueue(NAME)
    [first] = await queue.due_jobs(runtime, tenant_id)
    resting = [(tenant_id, JobName.DETECT_SIGNALS)]
    [other] = await queue.due_jobs(runtime, tenant_id, but=resting)
    assert other.job_id != first.job_id
    assert await queue.due_jobs(runtime, tenant_id, but=[*resting, (tenant_id, NAME)]) == []


async def test_what_was_done_a_month_ago_is_forgotten_and_what_was_given_up_is_not(
    runtime: Runtime, tenant_id: TenantId, clock: MovableClock
) -> None:
    async with runtime.scope(tenant_id) as scope:
        for number in range(3):
            await scope.enqueue(NAME, number=number)
    async with runtime.scope(tenant_id) as scope:
        await queue.complete(scope, await take(runtime, tenant_id))
    await queue.give_back(runtime, await take(runtime, tenant_id), failure="down", tries_max=1)
    clock.advance(queue.DONE_KEPT - TICK)
    await queue.forget_done(runtime)
    assert len(await states(runtime, tenant_id)) == 3
    clock.advance(TICK)
    assert await queue.forget_done(runtime) >= 1
    left = [state for state, *_ in await states(runtime, tenant_id)]
    assert left == [JobState.FAILED, JobState.QUEUED]


async def test_whoever_waits_is_told_when_a_job_is_written(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with queue.told(runtime, "aforo_jobs") as news, asyncio.timeout(60):
        async with runtime.scope(tenant_id) as scope:
            await scope.enqueue(NAME)
            assert not news.is_set()
        await news.wait()


async def asked(runtime: Runtime, tenant_id: TenantId) -> list[queue.Due]:
    """One job that is due."""
    async with runtime.scope(tenant_id) as scope:
        await scope.enqueue(NAME, number=1)
    return await queue.due_jobs(runtime, tenant_id)


async def take(runtime: Runtime, tenant_id: TenantId, known: Lease | None = None) -> Any:
    """Lease the tenant's job that is due, or the known one whether it is due or not."""
    job_id = known.job_id if known else (await queue.due_jobs(runtime, tenant_id))[0].job_id
    return await queue.lease(runtime, tenant_id, job_id, seconds=SECONDS)


async def due(runtime: Runtime, tenant_id: TenantId) -> list[Mapping[str, Any]]:
    """The arguments of the tenant's jobs that are due, in order."""
    ids = [one.job_id for one in await queue.due_jobs(runtime, tenant_id)]
    async with runtime.scope(tenant_id) as scope:
        found = await scope.db.scalars(sa.select(Job).where(col(Job.id).in_(ids)))
        by_id = {job.id: job.arguments for job in found}
    return [by_id[one] for one in ids]


async def states(runtime: Runtime, tenant_id: TenantId) -> list[tuple[JobState, int, str | None]]:
    async with runtime.scope(tenant_id) as scope:
        jobs = await scope.db.scalars(sa.select(Job).order_by(col(Job.id)))
        return [(job.state, job.tries, job.failure) for job in jobs]
