"""Starts bill runs and carries them out; wallets and the tax engine are set beside them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.billing.bill_runs import Rated, compute, life_of
from aforo.billing.finalize import write
from aforo.billing.models import BillRun, BillRunState
from aforo.billing.schedule import BillingLife, ended_parts, next_moment
from aforo.billing.taxes import set_tax_engine
from aforo.billing.wallets import create_wallet, grant_credit
from aforo.metering.queries import is_in_log, last_received, watermark
from aforo.sdk import BillRunId, Invalid, NotFound
from aforo.stages.queries import in_force
from aforo.storage.audit import Thing
from aforo.storage.event_types import EventType
from aforo.storage.jobs import JobName
from aforo.storage.scope import Scope
from aforo.subscriptions.queries import DUE_MAX, customers_by_id, subscriptions_due

__all__ = [
    "bill",
    "bill_due",
    "create_wallet",
    "fail",
    "grant_credit",
    "set_tax_engine",
    "start_bill_run",
]

FAILED_RETRY = timedelta(hours=1)
WAIT_MIN = timedelta(seconds=1)
WAIT_MAX = timedelta(minutes=1)
FAILURE_LENGTH_MAX = 2_000
_EVER = datetime.max.replace(tzinfo=UTC)


async def start_bill_run(scope: Scope, *, until: datetime) -> BillRun:
    """Ask for one execution of stages 6 to 10 over every period that has ended by `until`.

    Every event that was acknowledged before counts, however far it has come on its way into the
    log. Raises: `Invalid` for a moment that is still to come.
    """
    if until > scope.now:
        raise Invalid(
            f"until is {until.isoformat()}, which is still to come: only periods that have ended "
            "can be billed",
            field="until",
        )
    received = await last_received(scope)
    is_complete = await is_in_log(scope, received)
    run = BillRun(
        until=until,
        received=received,
        watermark=await watermark(scope) if is_complete else None,
    )
    scope.db.add(run)
    await scope.db.flush()
    await _enqueue(scope, run, at=scope.now)
    return run


async def bill(scope: Scope, bill_run_id: BillRunId) -> BillRun:
    """Carry a bill run out: the body of its job. Done twice it does nothing more.

    A run whose events are still on their way, or that meets another run of the tenant, puts itself
    off. The watermark is committed before anything is rated, so that every try rates the same.
    Raises: `NotFound`; `Unavailable` where an engine is down, and then nothing is written.
    """
    is_alone = await scope.db.scalar(_TAKE_TURN, {"tenant_id": str(scope.tenant_id)})
    run = await scope.db.scalar(sa.select(BillRun).where(col(BillRun.id) == bill_run_id))
    if run is None:
        raise NotFound("there is no bill run with this id", field="billRunId")
    if run.state is not BillRunState.QUEUED:
        return run
    if not is_alone:
        await _enqueue(scope, run, at=scope.now + _pause(scope, run))
        return run
    if run.watermark is None:
        if await is_in_log(scope, run.received):
            run.watermark = await watermark(scope)
            await _enqueue(scope, run, at=scope.now)
        else:
            await _enqueue(scope, run, at=scope.now + _pause(scope, run))
        return run

    outcome = await compute(scope, bill_run_id=run.id, until=run.until, watermark=run.watermark)
    written = await write(scope, run, outcome)
    run.state = BillRunState.DONE
    run.invoices, run.parked = written.invoices, written.parked
    run.finished_at = scope.now
    if written.moved:
        await _look_again(scope, scope.now)
    if written.pending_tax:
        seconds = (await in_force(scope)).taxation.retry_seconds
        await _look_again(scope, scope.now + timedelta(seconds=seconds))
    await _check_units(scope, outcome.rated)
    await scope.db.flush()
    await _record(scope, run)
    await scope.publish(
        EventType.BILL_RUN_COMPLETED,
        object_id=run.id,
        data={
            "billRun": run.id,
            "until": run.until,
            "invoices": run.invoices,
            "parked": run.parked,
        },
    )
    return run


async def bill_due(scope: Scope, until: datetime) -> BillRun | None:
    """A period has ended, or its grace is over: start a run if there is anything to bill.

    Asks for the next time that something will be due, so that every tenant is looked at exactly
    when one of its own subscriptions needs it.
    """
    lives = await _lives(scope)
    run = None
    if any(life.billed_until < until and ended_parts(life, until) for life in lives):
        run = await start_bill_run(scope, until=until)
    following = next_moment(lives, until)
    if following is not None:
        await _look_again(scope, following)
    return run


async def fail(scope: Scope, bill_run_id: BillRunId, failure: str) -> None:
    """Give a run up whose job has failed too often, and look again in an hour.

    A run that is over stays as it is.
    """
    run = await scope.db.scalar(sa.select(BillRun).where(col(BillRun.id) == bill_run_id))
    if run is None or run.state is not BillRunState.QUEUED:
        return
    run.state = BillRunState.FAILED
    run.finished_at = scope.now
    run.failure = failure[:FAILURE_LENGTH_MAX]
    await _look_again(scope, scope.now + FAILED_RETRY)
    await scope.db.flush()
    await _record(scope, run)
    await scope.publish(
        EventType.BILL_RUN_FAILED,
        object_id=run.id,
        data={"billRun": run.id, "until": run.until, "failure": run.failure},
    )


# Held until the transaction ends. A lock takes no transaction id, so the sealer goes on; and
# while ClickHouse counts, PostgreSQL must not take the transaction for a forgotten one.
_TAKE_TURN = sa.text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('aforo.bill.' || :tenant_id, 0)), "
    "set_config('idle_in_transaction_session_timeout', '900s', true)"
)


async def _lives(scope: Scope) -> list[BillingLife]:
    """When the tenant's subscriptions are billed, of those that are not billed to their end."""
    lives: list[BillingLife] = []
    after: UUID | None = None
    while page := await subscriptions_due(scope, _EVER, after=after):
        customers = await customers_by_id(scope, {each.customer_id for each in page})
        lives += [life_of(each, customers[each.customer_id]) for each in page]
        after = page[-1].id
        if len(page) < DUE_MAX:
            break
    return lives


async def _enqueue(scope: Scope, run: BillRun, *, at: datetime) -> None:
    await scope.enqueue(JobName.BILL, unique_key=str(run.id), run_at=at, bill_run_id=str(run.id))


async def _record(scope: Scope, run: BillRun) -> None:
    """What a run wrote is in its invoices; the audit log says that it is over, and how."""
    outcome = {
        "state": run.state,
        "until": run.until,
        "invoices": run.invoices,
        "parked": run.parked,
        "failure": run.failure,
    }
    before = {"state": BillRunState.QUEUED}
    await scope.record("billRunFinished", Thing("BillRun", run.id, before, outcome))


async def _check_units(scope: Scope, rated: Sequence[Rated]) -> None:
    """Have the units of the periods that were billed held against the log."""
    if rated:
        start = min(one.start for one in rated).isoformat()
        end = max(one.end for one in rated).isoformat()
        await scope.enqueue(JobName.CHECK_UNITS, unique_key=f"{start}:{end}", start=start, end=end)


async def _look_again(scope: Scope, at: datetime) -> None:
    moment = at.isoformat()
    await scope.enqueue(JobName.BILL_DUE, unique_key=moment, run_at=at, until=moment)


def _pause(scope: Scope, run: BillRun) -> timedelta:
    """Longer the longer the run has waited: an engine may be away for hours."""
    return min(max((scope.now - run.created_at) / 10, WAIT_MIN), WAIT_MAX)
