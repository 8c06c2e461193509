"""Conservation: whatever was received is one of six things, and what counts is in the log.

received = accepted + duplicates + conflicts + rejected + quarantined + discarded, where a release
moves an event from quarantined to accepted, and accepted = in the log + in the inbox. Both sides
are counted apart: what came in by the transactions that took it, what became of it by the rows of
the quarantine, the inbox and the log.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
from sqlmodel import col

from aforo.metering import queries
from aforo.metering.aggregate import NEWEST_ALONE, WHOLE_LOG
from aforo.metering.models import (
    EventInbox,
    IngestBatch,
    QuarantinedEvent,
    QuarantineState,
    Segment,
    SegmentState,
)
from aforo.metering.stored import hour_of
from aforo.sdk.errors import Invalid
from aforo.sdk.ids import TenantId
from aforo.sdk.period import Period
from aforo.storage.jobs import JobName
from aforo.storage.scope import Runtime, Scope
from aforo.storage.tables import new_id
from aforo.telemetry.metrics import UNBALANCED_HOURS

HOUR = timedelta(hours=1)
HOURS_MAX = 24 * 31
CHECKED_HOURS = 3
"""Of one check: a job may be late, and it looks at every hour more than once."""
CHECK_SECONDS = 60
"""For how long the events of a tenant are gathered before they are checked."""
CLOCKS_APART_MAX = timedelta(hours=1)
"""Of the processes that receive events and the one that seals them."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Events that were first received in a stretch of time, and what became of them by now."""

    received: int = 0
    accepted: int = 0
    """Those that were released too."""
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    quarantined: int = 0
    """Those that wait still."""
    discarded: int = 0
    released: int = 0
    in_log: int = 0
    in_inbox: int = 0

    @property
    def unaccounted(self) -> int:
        """How many were received of which nothing is known; below 0 where more is known of."""
        known = self.accepted + self.duplicates + self.conflicts + self.rejected
        return self.received - known - self.quarantined - self.discarded

    @property
    def missing(self) -> int:
        """How many were accepted and are nowhere; below 0 where more are there."""
        return self.accepted - self.in_log - self.in_inbox

    @property
    def balanced(self) -> bool:
        return self.unaccounted == 0 and self.missing == 0

    def __add__(self, other: "Balance") -> "Balance":
        return Balance(**{name: getattr(self, name) + getattr(other, name) for name in _NUMBERS})


_NUMBERS = tuple(each.name for each in fields(Balance))
_COUNTED = ("received", "accepted", "duplicates", "conflicts", "rejected")


async def balances(scope: Scope, period: Period) -> dict[datetime, Balance]:
    """The balance of each hour (UTC) of a period in which something was received, by its start.

    The period is widened to whole hours. What was received before its first or after its last is
    not looked at. Everything is as of one moment. Raises: `Invalid` for more than 31 days.
    """
    start = hour_of(period.start.astimezone(UTC))
    end = _ceil(period.end.astimezone(UTC))
    if end - start > HOURS_MAX * HOUR:
        raise Invalid(
            f"the period has more than {HOURS_MAX} hours: ask for a shorter one", field="period"
        )
    found: dict[datetime, Balance] = {}
    watermark = first = 0
    # One statement, so one snapshot: an event that moves on meanwhile is seen in one place.
    for hour, watermark_, first_, *numbers in await scope.db.execute(_counted(start, end)):
        if hour is None:
            watermark, first = watermark_, first_
        else:
            counted = Balance(**dict(zip(_NUMBERS, map(int, numbers), strict=True)))
            found[hour] = found.get(hour, Balance()) + counted
    rows = await scope.events.query(
        f"SELECT toStartOfHour(received_at) AS hour, count() AS events FROM {WHOLE_LOG} "
        "WHERE segment_id >= {first:UInt64} "
        "AND received_at >= {start:DateTime64(6, 'UTC')} "
        "AND received_at < {end:DateTime64(6, 'UTC')} "
        f"GROUP BY hour {NEWEST_ALONE}",
        watermark=watermark,
        first=first,
        start=queries.moment(start),
        end=queries.moment(end),
    )
    for row in rows:
        hour = row["hour"].replace(tzinfo=UTC)
        found[hour] = found.get(hour, Balance()) + Balance(in_log=row["events"])
    return dict(sorted(found.items()))


async def check(scope: Scope) -> Mapping[datetime, Balance]:
    """Hold the latest hours against each other; those that do not balance, which are told."""
    now = scope.now
    wrong = {
        hour: balance
        for hour, balance in (
            await balances(scope, Period(now - (CHECKED_HOURS - 1) * HOUR, now + HOUR))
        ).items()
        if not balance.balanced
    }
    UNBALANCED_HOURS.inc(len(wrong))
    for hour, balance in wrong.items():
        log.error(
            "events are not accounted for",
            hour=hour.isoformat(),
            unaccounted=balance.unaccounted,
            missing=balance.missing,
            **{name: getattr(balance, name) for name in _NUMBERS},
        )
    return wrong


async def ask(runtime: Runtime, tenants: Collection[TenantId]) -> None:
    """Ask for a check of each tenant in a while, of those for whom none is waiting."""
    now = runtime.clock.now()
    async with runtime.system("ask for checks of conservation") as db:
        await db.execute(
            _ASK,
            [
                {
                    "tenant_id": tenant_id,
                    "id": new_id(),
                    "now": now,
                    "run_at": now + timedelta(seconds=CHECK_SECONDS),
                    "name": JobName.CHECK_EVENTS.name,
                }
                for tenant_id in sorted(tenants)
            ],
        )


def _counted(start: datetime, end: datetime) -> sa.CompoundSelect[Any]:
    """Rows of hour, watermark, first segment and all numbers; the one without an hour has the two
    segments between which the events of the period are, as far as they are in the log."""
    batches = _hours(
        IngestBatch.created_at,
        start,
        end,
        **{name: sa.func.sum(getattr(IngestBatch, name)) for name in _COUNTED},
    )
    released = _in_state(QuarantineState.RELEASED)
    aside = _hours(
        QuarantinedEvent.received_at,
        start,
        end,
        accepted=released,
        released=released,
        quarantined=_in_state(QuarantineState.QUARANTINED),
        discarded=_in_state(QuarantineState.DISCARDED),
    )
    waiting = _hours(
        EventInbox.received_at, start, end, in_inbox=sa.func.sum(col(EventInbox.events))
    )
    before = (
        sa.select(col(Segment.segment_id))
        .where(
            col(Segment.state) == SegmentState.CONFIRMED,
            col(Segment.sealed_at) < start - CLOCKS_APART_MAX,
        )
        .order_by(col(Segment.segment_id).desc())
        .limit(1)
        .scalar_subquery()
    )
    places = sa.select(
        sa.null().label("hour"),
        queries.watermark_of().scalar_subquery(),
        sa.func.coalesce(before, 0),
        *(sa.literal(0) for _ in _NUMBERS),
    )
    return sa.union_all(batches, aside, waiting, places)


def _hours(column: Any, start: datetime, end: datetime, **numbers: Any) -> sa.Select[Any]:
    """Sums by hour over the rows of one table; what is not given is 0."""
    hour = sa.func.date_trunc("hour", col(column), "UTC")
    return (
        sa.select(
            hour.label("hour"),
            sa.literal(0),
            sa.literal(0),
            *(numbers.get(name, sa.literal(0)) for name in _NUMBERS),
        )
        .where(col(column) >= start, col(column) < end)
        .group_by(sa.text("1"))
    )


def _in_state(state: QuarantineState) -> sa.ColumnElement[int]:
    return sa.func.count().filter(col(QuarantinedEvent.state) == state)


def _ceil(moment: datetime) -> datetime:
    floor = hour_of(moment)
    return floor if floor == moment else floor + HOUR


_ASK = sa.text("""
    INSERT INTO job (tenant_id, id, created_at, name, arguments, unique_key, state, run_at, tries)
    VALUES (:tenant_id, :id, :now, :name, '{}', '', 'QUEUED', :run_at, 0)
    ON CONFLICT DO NOTHING
""")
