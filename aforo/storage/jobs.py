"""Jobs: rows that the transaction writes which needs the work done."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlmodel import Field

from aforo.storage.tables import TenantTable, choice, json, moment
from aforo.telemetry.tracing import TRACEPARENT_CHARACTERS_MAX


class JobName(StrEnum):
    """Every kind of background work."""

    BILL = "bill"
    BILL_DUE = "bill_due"
    DETECT_SIGNALS = "detect_signals"
    ACT_ON_SIGNAL = "act_on_signal"
    FAN_OUT_EVENTS = "fan_out_events"
    FORGET_EVENTS = "forget_events"
    ROLL_UP_USAGE = "roll_up_usage"
    CHECK_EVENTS = "check_events"
    CHECK_UNITS = "check_units"
    RECONCILE_QUOTAS = "reconcile_quotas"
    RELEASE_QUARANTINED = "release_quarantined"
    FREE_KEYS = "free_keys"


class JobState(StrEnum):
    """Where a job stands. A RUNNING job whose lease has run out is taken again."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"


class Job(TenantTable, table=True):
    """One piece of background work, done at least once, its tries counted here."""

    __tablename__ = "job"
    is_audited: ClassVar[bool] = False
    __table_args__ = (
        sa.Index("job_due", "run_at", postgresql_where=sa.text("state IN ('QUEUED', 'RUNNING')")),
        sa.Index("job_done", "finished_at", postgresql_where=sa.text("state = 'DONE'")),
        sa.Index(
            "job_once",
            "tenant_id",
            "name",
            "unique_key",
            unique=True,
            postgresql_where=sa.text("state = 'QUEUED'"),
        ),
    )

    name: JobName = choice(JobName)
    arguments: dict[str, Any] = json(default_factory=dict)
    unique_key: str | None = None
    """While a job with this key is waiting, asking for it again changes nothing."""
    state: JobState = choice(JobState, default=JobState.QUEUED)
    run_at: datetime = moment()
    tries: int = 0
    lease_until: datetime | None = moment(default=None)
    finished_at: datetime | None = moment(default=None)
    failure: str | None = None
    traceparent: str | None = Field(default=None, max_length=TRACEPARENT_CHARACTERS_MAX)
    """Of the span in which the job was asked for, so that its own belongs to the same trace."""
