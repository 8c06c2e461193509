"""When periods are billed: the moments by tables, and the schedule on real engines."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.billing.commands import bill, start_bill_run
from aforo.billing.models import InvoiceState
from aforo.billing.schedule import BillingLife, ended_parts, next_moment
from aforo.sdk import BillRunId, TenantId
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.scope import Runtime
from tests.billing.trade import DECEMBER, NOVEMBER, Buyer, RunJobs, invoices_of, open_trade


def moment(text: str) -> datetime:
    """`11-20T12` is noon of the twentieth of November 2026."""
    return datetime.fromisoformat(f"2026-{text.strip()}:00").replace(tzinfo=UTC)


def life(billed: str, ends: str, *, zone: str = "UTC") -> BillingLife:
    return BillingLife(
        anchor_day=1,
        time_zone=zone,
        billed_until=moment(billed),
        ends_at=None if ends.strip() == "-" else moment(ends),
        grace=timedelta(hours=1),
    )


# billed until | ends     | until    | parts that have ended
ENDED = """
10-01T00       | -        | 10-31T23 |
10-01T00       | -        | 11-01T00 | 10-01T00 11-01T00
10-16T07       | -        | 11-20T12 | 10-16T07 11-01T00
10-16T07       | -        | 12-20T12 | 10-16T07 11-01T00 12-01T00
10-01T00       | 10-20T05 | 10-20T04 |
10-01T00       | 10-20T05 | 10-20T05 | 10-01T00 10-20T05
10-01T00       | 10-20T05 | 12-20T12 | 10-01T00 10-20T05
10-01T00       | 11-01T00 | 12-20T12 | 10-01T00 11-01T00
10-20T05       | 10-20T05 | 12-20T12 |
12-01T00       | -        | 11-20T12 |
"""


@pytest.mark.parametrize("row", ENDED.strip().splitlines())
def test_parts_that_have_ended_are_billed(row: str) -> None:
    billed, ends, until, bounds = row.split("|")
    parts = ended_parts(life(billed, ends), moment(until))
    found = [part.part.start for part in parts] + [part.part.end for part in parts[-1:]]
    assert found == [moment(bound) for bound in bounds.split()]


# billed until | ends     | after    | next
NEXT = """
11-01T00       | -        | 11-20T12 | 12-01T00
11-01T00       | -        | 11-30T23 | 12-01T00
11-01T00       | -        | 12-01T00 | 12-01T01
10-01T00       | -        | 11-20T12 | 12-01T00
11-01T00       | 11-25T03 | 11-20T12 | 11-25T03
11-01T00       | 11-25T03 | 11-25T03 | 11-25T04
11-01T00       | 12-01T00 | 12-01T00 | 12-01T01
"""


@pytest.mark.parametrize("row", NEXT.strip().splitlines())
def test_the_next_look_is_at_the_end_of_a_period_or_of_its_grace(row: str) -> None:
    billed, ends, after, expected = row.split("|")
    assert next_moment([life(billed, ends)], moment(after)) == moment(expected)


def test_a_subscription_that_is_over_needs_no_look() -> None:
    assert next_moment([life("11-01T00", "11-25T03")], moment("11-25T04")) is None
    assert next_moment([], moment("11-20T12")) is None


def test_the_earliest_of_all_subscriptions_counts() -> None:
    lives = [life("11-01T00", "-"), life("11-01T00", "11-22T00"), life("11-01T00", "11-21T00")]
    assert next_moment(lives, moment("11-20T12")) == moment("11-21T00")


def test_midnight_is_the_customers() -> None:
    kolkata = life("10-31T18", "-", zone="Asia/Kolkata")
    assert next_moment([kolkata], moment("11-20T12")) == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)


@pytest.mark.anyio
async def test_the_schedule_drafts_at_the_end_of_a_period_and_finalises_after_its_grace(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER, grace_seconds=3600)])
    await run_jobs()
    assert await invoices_of(runtime, tenant_id) == []
    clock.move_to(DECEMBER)
    await run_jobs()
    (draft,) = await invoices_of(runtime, tenant_id)
    assert draft.state is InvoiceState.DRAFT
    clock.move_to(DECEMBER + timedelta(hours=1))
    await run_jobs()
    (final,) = await invoices_of(runtime, tenant_id)
    assert final.state is InvoiceState.FINALIZED
    # Nobody was there at the turn of the year: it is caught up with.
    clock.move_to(DECEMBER + timedelta(days=70))
    await run_jobs()
    states = [(one.period_start.month, one.state) for one in await invoices_of(runtime, tenant_id)]
    assert states == [(month, InvoiceState.FINALIZED) for month in (11, 12, 1)]
    async with runtime.scope(tenant_id) as scope:
        waiting = await scope.db.scalars(
            sa.select(Job).where(
                col(Job.name) == JobName.BILL_DUE, col(Job.state) == JobState.QUEUED
            )
        )
        (following,) = waiting.all()
        assert following.run_at == DECEMBER + timedelta(days=90)  # The first of March.


@pytest.mark.anyio
async def test_a_period_billed_by_hand_does_not_end_the_schedule(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    await open_trade(runtime, tenant_id, [Buyer(name="a", starts_at=NOVEMBER)])
    clock.move_to(DECEMBER)
    async with runtime.scope(tenant_id) as scope:
        run = await start_bill_run(scope, until=DECEMBER)
        await bill(scope, BillRunId(run.id))
    await run_jobs()
    clock.move_to(DECEMBER + timedelta(days=31))
    await run_jobs()
    assert [one.period_end.month for one in await invoices_of(runtime, tenant_id)] == [12, 1]
