"""Every background job and schedule, on one page: the only place that knows arq.

A job is a row. arq is told "look now" by the relay, and forgets it again; the row says what is
to be done, who has it, and how often it was tried. So nothing is lost with Redis, and a worker
that dies leaves a lease that runs out.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec
import structlog
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool

from aforo.actions import commands as actions
from aforo.billing import commands as billing
from aforo.billing import units
from aforo.metering import (
    backfills,
    backlog,
    conservation,
    keys,
    quarantine,
    quotas,
    reconcile,
    rollups,
    sealer,
)
from aforo.metering.delivering import deliver
from aforo.metering.leadership import leadership
from aforo.plugins import told
from aforo.sdk.errors import AforoError
from aforo.sdk.ids import BillRunId, JobId, SignalId, TenantId
from aforo.signals import commands as signals
from aforo.storage import audit_chain, idempotency, queue
from aforo.storage.actors import Actor, ActorKind
from aforo.storage.endings import end_all, run_all
from aforo.storage.jobs import JobName
from aforo.storage.patience import patiently
from aforo.storage.rests import Rests
from aforo.storage.scope import Runtime, Scope
from aforo.telemetry.metrics import JOBS as JOBS_DONE
from aforo.telemetry.tracing import span
from aforo.webhooks import courier, fan_out

JOBS_AT_ONCE = 4
SWEEP_SECONDS = 1.0
BACKLOG_SECONDS = 10.0
FORGET_SECONDS = keys.PART.total_seconds()
SEALER_PAUSE_SECONDS = 0.2
FULL_ROUND_EVENTS = sealer.SEGMENT_EVENTS_MAX // 2
"""After a round with fewer it waits for more to come: a segment costs as much for one event."""
RETRY_SECONDS = 1.0
REST_TIMES = 9.0
"""A tenth of the time is enough for work that is never done with."""
REST_SECONDS_MAX = 10.0
DRAIN_ROUNDS_MAX = 100
DRAIN_PAUSES_MAX = 20
DRAIN_PAUSE_SECONDS = 0.05
LEASE_EXTRA_SECONDS = 30
FINISH_SECONDS = 10
"""How long running jobs may go on once we are told to stop; then they are handed back."""

Resting = Rests[tuple[TenantId, JobName]]
Body = Callable[..., Awaitable[object]]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobKind:
    """How a kind of job is done, and how patient we are with it."""

    body: Body
    tries_max: int
    timeout_seconds: int
    rests: bool = False
    """Whether it rests after each time, because more of the same is asked for all the while."""


JOBS: dict[JobName, JobKind] = {}


def job(
    name: JobName, *, tries_max: int, timeout_seconds: int, rests: bool = False
) -> Callable[[Body], Body]:
    """Register the body of a job: it gets an open scope, and its arguments as they were stored."""

    def register(body: Body) -> Body:
        JOBS[name] = JobKind(body, tries_max, timeout_seconds, rests)
        return body

    return register


@job(JobName.BILL, tries_max=8, timeout_seconds=900)
async def bill(scope: Scope, bill_run_id: str) -> None:
    """Carry a bill run out."""
    await billing.bill(scope, BillRunId(UUID(bill_run_id)))


@job(JobName.BILL_DUE, tries_max=20, timeout_seconds=60)
async def bill_due(scope: Scope, until: str) -> None:
    """A period of some subscription has ended, or its grace is over: start a run."""
    await billing.bill_due(scope, datetime.fromisoformat(until))


@job(JobName.DETECT_SIGNALS, tries_max=5, timeout_seconds=60, rests=True)
async def detect_signals(
    scope: Scope, customer_ids: list[str], watermark: int, detector: str | None = None
) -> None:
    """New events of these customers are in the log: let the detectors look, or one of them."""
    await signals.detect(scope, [UUID(one) for one in customer_ids], watermark, detector=detector)


@job(JobName.ACT_ON_SIGNAL, tries_max=5, timeout_seconds=60)
async def act_on_signal(scope: Scope, signal_id: str) -> None:
    """Let the ladder decide about a signal."""
    await actions.act_on_signal(scope, SignalId(UUID(signal_id)))


@job(JobName.FAN_OUT_EVENTS, tries_max=20, timeout_seconds=60)
async def fan_out_events(scope: Scope) -> None:
    """Events wait in the outbox: write what is to be delivered of them."""
    await fan_out.fan_out(scope)


@job(JobName.FORGET_EVENTS, tries_max=5, timeout_seconds=300)
async def forget_events(scope: Scope) -> None:
    """Once a day: delete events and deliveries that are old."""
    await fan_out.forget(scope)


@job(JobName.ROLL_UP_USAGE, tries_max=5, timeout_seconds=300)
async def roll_up_usage(scope: Scope) -> None:
    """Enough new events are in the log: roll their usage up."""
    await rollups.roll_up(scope, span_events=rollups.SPAN_EVENTS)


@job(JobName.RECONCILE_QUOTAS, tries_max=3, timeout_seconds=120)
async def reconcile_quotas(scope: Scope) -> None:
    """Usage came in a while ago: compare the live tallies with the log."""
    await reconcile.reconcile(scope)


@job(JobName.CHECK_EVENTS, tries_max=5, timeout_seconds=60)
async def check_events(scope: Scope) -> None:
    """Events have come into the log: hold what was received against what became of it."""
    await conservation.check(scope)


@job(JobName.CHECK_UNITS, tries_max=5, timeout_seconds=600)
async def check_units(scope: Scope, start: str, end: str) -> None:
    """A bill run is over: hold the units on its invoices against the log."""
    await units.check(scope, datetime.fromisoformat(start), datetime.fromisoformat(end))


@job(JobName.RELEASE_QUARANTINED, tries_max=8, timeout_seconds=120)
async def release_quarantined(scope: Scope, **wanted: Any) -> None:
    """What quarantined events were waiting for has been made: let them count."""
    await quarantine.release_made(scope, **wanted)


job(JobName.FREE_KEYS, tries_max=20, timeout_seconds=300)(backfills.free_keys)


async def run(runtime: Runtime) -> None:
    """Work until cancelled: jobs, their relay, webhooks, and the sealer if no other process seals.

    Cancelled, it lets running jobs finish for a while, and hands the others back.
    """
    rests: Resting = Rests(times=REST_TIMES, seconds_max=REST_SECONDS_MAX)
    works: dict[str, Callable[[], Awaitable[None]]] = {
        "jobs": lambda: _serve_jobs(runtime, rests),
        "relay": lambda: _relay(runtime, rests),
        "sealer": lambda: _seal(runtime),
        "webhooks": lambda: courier.run(runtime),
        "backlog": lambda: _measure_backlog(runtime),
        "forgetting": lambda: _forget(runtime),
        "audit log": lambda: audit_chain.run(runtime),
    }
    if (topic := runtime.topic) is not None:
        works["topic"] = lambda: deliver(runtime, topic)
    going = [patiently(name, work, retry_seconds=RETRY_SECONDS) for name, work in works.items()]
    await run_all(*going, finish_seconds=FINISH_SECONDS + 5)


async def drain(runtime: Runtime, tenant_id: TenantId | None = None) -> None:
    """Seal, run every job that is due, and call every webhook that is, in this process, until
    there is nothing left to do.

    With a tenant, only that tenant's jobs and webhooks.
    """
    for _ in range(DRAIN_ROUNDS_MAX):
        confirmed = await seal_all(runtime)
        due = await queue.due_jobs(runtime, tenant_id)
        for one in due:
            await execute(runtime, one.tenant_id, one.job_id)
        called = await courier.deliver_due(runtime, tenant_id)
        if not confirmed and not due and not called:
            return
    raise RuntimeError(f"after {DRAIN_ROUNDS_MAX} rounds there are still jobs that are due")


async def seal_all(runtime: Runtime) -> bool:
    """Seal until no event waits but what an open transaction holds back; False if none did."""
    patience, confirmed = DRAIN_PAUSES_MAX, False
    while True:
        if await seal_once(runtime):
            confirmed = True
        elif patience == 0 or not await _waits_to_be_sealed(runtime):
            return confirmed
        else:
            # A transaction that is still open holds the horizon back, and is about to end.
            patience -= 1
            await asyncio.sleep(DRAIN_PAUSE_SECONDS)


async def _waits_to_be_sealed(runtime: Runtime) -> bool:
    async with runtime.system("look for events to seal") as db:
        return (await backlog.unsealed_events(db)).count > 0


async def execute(
    runtime: Runtime, tenant_id: TenantId, job_id: JobId, *, rests: Resting | None = None
) -> None:
    """Lease one job, do it, and mark it done in the same transaction; or give it back."""
    leases = {name: kind.timeout_seconds + LEASE_EXTRA_SECONDS for name, kind in JOBS.items()}
    taken = await queue.lease(runtime, tenant_id, job_id, seconds=leases)
    if taken is None:
        return
    kind = JOBS[taken.name]
    if taken.tries > kind.tries_max:
        # Only a lease that ran out leads here: whatever it does, it takes its worker with it.
        failure = f"its worker was gone {kind.tries_max} times before it was done"
        await _failed(runtime, taken, failure)
        log.error("job given up", job=taken.name.value, job_id=str(job_id), error=failure)
        return
    begun = time.perf_counter()
    outcome = "handed_back"
    structlog.contextvars.bind_contextvars(tenant_id=str(tenant_id), job_id=str(job_id))
    try:
        with span(f"job {taken.name}", parent=taken.traceparent, aforo_tenant=str(tenant_id)):
            async with (
                asyncio.timeout(kind.timeout_seconds),
                runtime.scope(tenant_id, _actor(taken)) as scope,
            ):
                await kind.body(scope, **taken.arguments)
                await queue.complete(scope, taken)
        outcome = "done"
    except asyncio.CancelledError:
        # We are being stopped: nothing of it was kept, and another worker need not wait.
        await asyncio.shield(queue.hand_back(runtime, taken))
        raise
    except Exception as error:  # noqa: BLE001 (whatever went wrong, the row must say so)
        again = await _failed(runtime, taken, told(error))
        outcome = "retried" if again else "given_up"
        # Expected trouble is one line; a bug comes with its stack.
        write = log.warning if isinstance(error, AforoError) else log.exception
        write(
            "job failed",
            job=taken.name.value,
            tries=taken.tries,
            again=again,
            error=told(error),
        )
    finally:
        elapsed = time.perf_counter() - begun
        JOBS_DONE.labels(taken.name.value, outcome).observe(elapsed)
        if rests is not None and kind.rests:
            rests.begin((tenant_id, taken.name), took_seconds=elapsed)
        structlog.contextvars.unbind_contextvars("tenant_id", "job_id")


def _actor(taken: queue.Lease) -> Actor:
    return Actor(ActorKind.JOB, id=taken.job_id, label=taken.name.value)


async def _failed(runtime: Runtime, taken: queue.Lease, failure: str) -> bool:
    """Record why a job was not done; whether it will be tried again."""
    tries_max = JOBS[taken.name].tries_max
    if taken.name is JobName.BILL and taken.tries >= tries_max:
        # Before the job is given up: were we to die in between, nobody would tell the run.
        async with runtime.scope(taken.tenant_id, _actor(taken)) as scope:
            await billing.fail(scope, BillRunId(UUID(taken.arguments["bill_run_id"])), failure)
    return await queue.give_back(runtime, taken, failure=failure, tries_max=tries_max)


async def seal_once(runtime: Runtime) -> bool:
    """One round of the sealer, if this process may seal; whether it confirmed anything."""
    async with leadership(runtime) as leader:
        return leader is not None and await _seal_round(runtime) > 0


async def _seal(runtime: Runtime) -> None:
    async with leadership(runtime) as leader:
        while leader is not None:
            await leader.assert_held()
            if await _seal_round(runtime) < FULL_ROUND_EVENTS:
                await asyncio.sleep(SEALER_PAUSE_SECONDS)
    await asyncio.sleep(RETRY_SECONDS)


async def _seal_round(runtime: Runtime) -> int:
    """How many events it brought into the log."""
    confirmed = await sealer.seal_and_confirm(runtime)
    for segment in confirmed:
        await quotas.advance(runtime, segment)
    tenants = {segment.tenant_id for segment in confirmed}
    for tenant_id in tenants:
        await rollups.ask(runtime, tenant_id)
    if tenants:
        await conservation.ask(runtime, tenants)
    return sum(segment.count for segment in confirmed)


async def _measure_backlog(runtime: Runtime) -> None:
    # In every worker: any of them may be asked.
    while True:
        await backlog.measure(runtime)
        await asyncio.sleep(BACKLOG_SECONDS)


async def _forget(runtime: Runtime) -> None:
    """Delete what is kept for a stated time only."""
    await idempotency.forget_old(runtime)
    await queue.forget_done(runtime)
    await keys.forget_old(runtime, part=keys.part_at(runtime.clock.now()))
    await asyncio.sleep(FORGET_SECONDS)


async def _relay(runtime: Runtime, rests: Resting) -> None:
    """Hint arq at every job that is due: at once when one is written, else by the sweep."""
    async with _arq(runtime) as redis, queue.told(runtime, "aforo_jobs") as news:
        while True:
            news.clear()
            for one in await queue.due_jobs(runtime, but=rests.resting()):
                # A hint per try: arq remembers one whose worker was killed, and would refuse it.
                await redis.enqueue_job(
                    "run_job",
                    str(one.tenant_id),
                    str(one.job_id),
                    _job_id=f"{one.job_id}:{one.tries}",
                )
            # Not `wait_for`: it can swallow a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await news.wait()


async def _serve_jobs(runtime: Runtime, rests: Resting) -> None:
    async def run_job(_ctx: dict[str, Any], tenant_id: str, job_id: str) -> None:
        await execute(runtime, TenantId(UUID(tenant_id)), JobId(UUID(job_id)), rests=rests)

    async with _arq(runtime) as redis:
        worker = Worker(
            functions=[func(cast("Any", run_job), name="run_job", keep_result=0)],
            redis_pool=redis,
            handle_signals=False,
            max_jobs=JOBS_AT_ONCE,
            max_tries=sys.maxsize,  # The row counts.
            keep_result=0,
            job_timeout=max(kind.timeout_seconds for kind in JOBS.values()) + 60,
            poll_delay=0.1,
            job_serializer=msgspec.msgpack.encode,
            job_deserializer=msgspec.msgpack.decode,
        )
        try:
            await worker.async_run()
        finally:
            worker.allow_pick_jobs = False
            if worker.tasks:
                await asyncio.wait(worker.tasks.values(), timeout=FINISH_SECONDS)
            await end_all(worker.tasks.values())


@contextlib.asynccontextmanager
async def _arq(runtime: Runtime) -> Any:
    pool = ConnectionPool.from_url(runtime.settings.redis_url)
    redis = ArqRedis(
        pool_or_conn=pool,
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=msgspec.msgpack.decode,
    )
    try:
        yield redis
    finally:
        await redis.aclose()
        await pool.disconnect()
