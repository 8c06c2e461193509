"""What the doctor sees on real engines: work that waits too long, work that was given up."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo import doctor
from aforo.doctor import Finding, examine
from aforo.metering.models import Segment, SegmentState
from aforo.sdk.errors import PluginError
from aforo.sdk.ids import TenantId
from aforo.settings import Settings
from aforo.storage.clock import MovableClock
from aforo.storage.jobs import Job, JobName, JobState
from aforo.storage.scope import Runtime
from tests.conftest import Send
from tests.shop import call, open_shop

LONG_AGO = datetime(2019, 1, 1, tzinfo=UTC)
"""Before any other test's time, so that what is written here is the oldest."""
FAR_AHEAD = datetime(2150, 1, 1, tzinfo=UTC)
"""After any other test's time, so that what is written here is the latest."""


async def findings(settings: Settings, at: datetime) -> dict[str, Finding]:
    return {each.check: each for each in await examine(settings, MovableClock(at))}


async def test_events_that_nobody_seals_are_a_fault(
    runtime: Runtime, tenant_id: TenantId, send: Send, clock: MovableClock
) -> None:
    await open_shop(runtime, tenant_id)
    assert (await send(call("1")))["accepted"] == 1
    inbox = (await findings(runtime.settings, clock.now() + timedelta(hours=1)))["inbox"]
    assert not inbox.ok
    assert "wait to be sealed, the oldest for " in inbox.says
    assert inbox.advice is not None
    assert "start a worker with `aforo worker`" in inbox.advice


async def test_jobs_may_wait_for_a_worker_that_is_there_but_no_longer(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    early = dataclasses.replace(runtime, clock=MovableClock(LONG_AGO))
    async with early.scope(tenant_id) as scope:
        await scope.enqueue(JobName.BILL_DUE, until=LONG_AGO.isoformat())
    told = [
        (await findings(runtime.settings, LONG_AGO + timedelta(seconds=seconds)))["jobs"]
        for seconds in (60, 61)
    ]
    async with runtime.system("it is done") as db:
        await db.execute(
            sa.update(Job).where(col(Job.tenant_id) == tenant_id).values(state=JobState.DONE)
        )
    assert [(each.ok, each.says) for each in told] == [
        (True, "1 due, the oldest for 60 s"),
        (False, "1 due, the oldest for 61 s"),
    ]


async def test_a_job_that_was_given_up_is_told_with_its_failure(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.scope(tenant_id) as scope:
        scope.db.add(
            Job(
                name=JobName.BILL,
                state=JobState.FAILED,
                run_at=FAR_AHEAD,
                finished_at=FAR_AHEAD,
                failure="Invalid: the price of nothing",
            )
        )
    failed = (await findings(runtime.settings, FAR_AHEAD + timedelta(hours=23)))["failed jobs"]
    assert not failed.ok
    assert failed.says.endswith(": Invalid: the price of nothing")


async def test_a_segment_that_clickhouse_does_not_confirm_is_a_fault(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    async with runtime.system("seal by hand") as db:
        segment = Segment(
            tenant_id=tenant_id,
            events=1,
            sha256=bytes(32),
            previous_sha256=bytes(32),
            sealed_at=LONG_AGO,
        )
        db.add(segment)
    segments = (await findings(runtime.settings, LONG_AGO + timedelta(minutes=2)))["segments"]
    async with runtime.system("take it away again") as db:
        await db.execute(
            sa.update(Segment)
            .where(col(Segment.segment_id) == segment.segment_id)
            .values(state=SegmentState.CONFIRMED)
        )
    assert not segments.ok
    assert segments.says.startswith("1 wait for ClickHouse to confirm them, the watermark is ")
    assert segments.says.endswith(", the oldest for 120 s")


async def test_a_plugin_that_does_not_load_is_a_fault_beside_the_others(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise PluginError("plugin 'acme' of acme 1.0 cannot be imported")

    monkeypatch.setattr(doctor, "load_registry", fail)
    found = await findings(runtime.settings, LONG_AGO)
    assert not found["plugins"].ok
    assert found["plugins"].says == "plugin 'acme' of acme 1.0 cannot be imported"
    assert found["postgresql"].ok
    assert found["clickhouse"].ok


async def test_a_login_that_cannot_enter_is_told_once(runtime: Runtime) -> None:
    url = runtime.settings.database_url.replace("aforo@", "stranger@")
    found = await findings(dataclasses.replace(runtime.settings, database_url=url), LONG_AGO)
    assert not found["postgresql"].ok
    assert "does not let stranger in" in found["postgresql"].says
    assert not {"login", "jobs", "inbox"} & set(found)
    assert found["redis"].ok
