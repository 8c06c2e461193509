"""What the worker does with jobs: each once, and in one transaction with its completion."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import worker
from aforo.catalog.models import Product
from aforo.sdk.errors import Invalid
from aforo.sdk.ids import TenantId
from aforo.storage import queue
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.worker import JOBS, JobKind

NAME = JobName.ACT_ON_SIGNAL
WAIT_SECONDS = 60

Does = Callable[..., None]


@pytest.fixture
def tenant_id() -> TenantId:
    """A tenant without a job: whoever creates one publishes an event, which asks for one."""
    return TenantId(new_id())


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Does:
    """Let jobs of the tests' kind do something else."""

    def does(
        body: Callable[..., Awaitable[None]], *, tries_max: int = 3, timeout_seconds: int = 5
    ) -> None:
        monkeypatch.setitem(JOBS, NAME, JobKind(body, tries_max, timeout_seconds))

    return does


async def add_product(scope: Scope, code: str) -> None:
    scope.db.add(Product(code=code, name=code))
    await scope.db.flush()


async def test_the_work_and_its_completion_are_one_transaction(
    runtime: Runtime, tenant_id: TenantId, does: Does
) -> None:
    does(add_product)
    await ask(runtime, tenant_id, code="p")
    await worker.drain(runtime, tenant_id)
    assert await products(runtime, tenant_id) == ["p"]
    [job] = await jobs(runtime, tenant_id)
    assert (job.state, job.tries, job.finished_at) == (JobState.DONE, 1, runtime.clock.now())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Invalid("no such thing"), "Invalid: no such thing"),
        (LookupError(), "LookupError"),
    ],
)
async def test_work_that_raises_leaves_nothing_but_the_reason(
    runtime: Runtime, tenant_id: TenantId, does: Does, error: Exception, told: str
) -> None:
    async def fail(scope: Scope, code: str) -> None:
        await add_product(scope, code)
        raise error

    does(fail)
    await ask(runtime, tenant_id, code="p")
    await worker.drain(runtime, tenant_id)
    assert await products(runtime, tenant_id) == []
    [job] = await jobs(runtime, tenant_id)
    assert (job.state, job.tries, job.failure) == (JobState.QUEUED, 1, told)
    assert job.run_at == runtime.clock.now() + timedelta(seconds=2)


async def test_a_failure_is_tried_again_and_given_up_in_the_end(
    runtime: Runtime, tenant_id: TenantId, does: Does, clock: MovableClock
) -> None:
    tries = []

    async def fail(scope: Scope, code: str) -> None:
        tries.append(scope.now)
        raise Invalid("never")

    does(fail, tries_max=3)
    await ask(runtime, tenant_id, code="p")
    for _ in range(5):
        await worker.drain(runtime, tenant_id)
        clock.advance(timedelta(hours=1))
    assert len(tries) == 3
    [job] = await jobs(runtime, tenant_id)
    assert (job.state, job.tries, job.failure) == (JobState.FAILED, 3, "Invalid: never")


async def test_work_that_takes_too_long_is_cut_off_and_leaves_nothing(
    runtime: Runtime, tenant_id: TenantId, does: Does
) -> None:
    async def hang(scope: Scope, code: str) -> None:
        await add_product(scope, code)
        await asyncio.Event().wait()

    does(hang, timeout_seconds=0)
    await ask(runtime, tenant_id, code="p")
    await worker.drain(runtime, tenant_id)
    assert await products(runtime, tenant_id) == []
    [job] = await jobs(runtime, tenant_id)
    assert (job.state, job.failure) == (JobState.QUEUED, "TimeoutError")


async def test_two_workers_on_one_job_do_it_once(
    runtime: Runtime, tenant_id: TenantId, does: Does
) -> None:
    does(add_product)
    await ask(runtime, tenant_id, code="p")
    [job] = await queue.due_jobs(runtime, tenant_id)
    await asyncio.gather(*(worker.execute(runtime, tenant_id, job.job_id) for _ in range(5)))
    assert await products(runtime, tenant_id) == ["p"]
    [done] = await jobs(runtime, tenant_id)
    assert (done.state, done.tries) == (JobState.DONE, 1)


async def test_a_job_that_was_taken_over_meanwhile_is_done_by_the_other_alone(
    runtime: Runtime, tenant_id: TenantId, does: Does, clock: MovableClock
) -> None:
    async def be_late(scope: Scope, code: str) -> None:
        does(add_product)
        clock.advance(timedelta(hours=1))
        [job] = await queue.due_jobs(runtime, tenant_id)
        await worker.execute(runtime, tenant_id, job.job_id)
        await add_product(scope, f"late {code}")

    does(be_late)
    await ask(runtime, tenant_id, code="p")
    await worker.drain(runtime, tenant_id)
    assert await products(runtime, tenant_id) == ["p"]
    [job] = await jobs(runtime, tenant_id)
    assert (job.state, job.tries, job.failure) == (JobState.DONE, 2, None)


async def test_a_job_that_takes_its_worker_with_it_every_time_is_given_up(
    runtime: Runtime, tenant_id: TenantId, does: Does, clock: MovableClock
) -> None:
    does(add_product, tries_max=2)
    await ask(runtime, tenant_id, code="p")
    [job] = await queue.due_jobs(runtime, tenant_id)
    for _ in range(2):
        assert await queue.lease(runtime, tenant_id, job.job_id, seconds=dict.fromkeys(JobName, 60))
        clock.advance(timedelta(minutes=2))
    await worker.drain(runtime, tenant_id)
    assert await products(runtime, tenant_id) == []
    [given_up] = await jobs(runtime, tenant_id)
    assert given_up.state is JobState.FAILED
    assert given_up.failure == "its worker was gone 2 times before it was done"


async def test_a_job_is_done_within_a_second_of_the_commit_that_asked_for_it(
    runtime: Runtime, does: Does
) -> None:
    done = asyncio.Event()

    async def tell(scope: Scope, code: str) -> None:
        await add_product(scope, code)
        done.set()

    does(tell)
    alone, tenant_id = by_itself(runtime)
    async with working(alone):
        for code in ("first", "second"):
            done.clear()
            await ask(alone, tenant_id, code=code)
            # The first one waits until the worker is up.
            async with asyncio.timeout(WAIT_SECONDS if code == "first" else 1):
                await done.wait()
        await until_all_done(alone, tenant_id)
    assert await products(alone, tenant_id) == ["first", "second"]


async def test_a_job_whose_hint_was_lost_with_redis_is_done_all_the_same(
    runtime: Runtime, does: Does
) -> None:
    does(add_product)
    alone, tenant_id = by_itself(runtime)
    await ask(alone, tenant_id, code="p")
    # No worker heard the commit, and Redis knows of nothing.
    async with working(alone):
        await until_all_done(alone, tenant_id)
    assert await products(alone, tenant_id) == ["p"]


async def test_a_worker_that_is_stopped_hands_its_job_back(
    runtime: Runtime, does: Does, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(scope: Scope, code: str) -> None:
        await add_product(scope, code)
        begun.set()
        await asyncio.Event().wait()

    does(hang)
    monkeypatch.setattr(worker, "FINISH_SECONDS", 0)
    alone, tenant_id = by_itself(runtime)
    before = asyncio.all_tasks()
    async with working(alone), asyncio.timeout(WAIT_SECONDS):
        await ask(alone, tenant_id, code="p")
        await begun.wait()
    assert asyncio.all_tasks() <= before
    assert await products(alone, tenant_id) == []
    [job] = await jobs(alone, tenant_id)
    assert (job.state, job.tries) == (JobState.QUEUED, 0)


def by_itself(runtime: Runtime) -> tuple[Runtime, TenantId]:
    """A tenant years before any other test, so that a worker finds nothing due but its jobs."""
    clock = MovableClock(datetime(2020, 1, 1, tzinfo=UTC))
    return dataclasses.replace(runtime, clock=clock), TenantId(new_id())


@asynccontextmanager
async def working(runtime: Runtime) -> AsyncIterator[None]:
    """A worker beside us, cancelled at the end as a signal does it."""
    task = asyncio.create_task(worker.run(runtime))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=WAIT_SECONDS)
    assert task.cancelled()


async def until_all_done(runtime: Runtime, tenant_id: TenantId) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if {job.state for job in await jobs(runtime, tenant_id)} == {JobState.DONE}:
                return
            await asyncio.sleep(0.01)


async def ask(runtime: Runtime, tenant_id: TenantId, *, code: str) -> None:
    """Write a job that gets this code."""
    async with runtime.scope(tenant_id) as scope:
        await scope.enqueue(NAME, code=code)


async def products(runtime: Runtime, tenant_id: TenantId) -> list[str]:
    async with runtime.scope(tenant_id) as scope:
        return list(await scope.db.scalars(sa.select(col(Product.code)).order_by(col(Product.id))))


async def jobs(runtime: Runtime, tenant_id: TenantId) -> list[Job]:
    async with runtime.scope(tenant_id) as scope:
        return list(await scope.db.scalars(sa.select(Job).order_by(col(Job.id))))
