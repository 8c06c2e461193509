"""Reads signals, the settings of detectors, and the evidence that detectors judge."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col

from aforo.billing.queries import accrued
from aforo.metering.aggregate import EVENTS
from aforo.metering.queries import IN_PERIOD, moment
from aforo.sdk import Level, MarginEvidence
from aforo.signals.evidence import Case, margin_case
from aforo.signals.judge import Fired
from aforo.signals.models import DetectorSettings, Signal
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import one_of, rows_by_id
from aforo.storage.scope import Scope

EVENT_IDS_MAX = 100


def signals(
    *,
    customer_id: UUID | None = None,
    detector: str | None = None,
    level: Level | None = None,
    order: AgeOrder = AgeOrder.NEWEST_FIRST,
) -> Listing[Signal]:
    """The signals that meet all conditions."""
    where = (
        *equal(Signal.customer_id, customer_id),
        *equal(Signal.detector, detector),
        *equal(Signal.level, level),
    )
    return Listing(Signal, where, order)


async def signals_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Signal]:
    """The signals with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, Signal, ids)


async def settings_in_force(
    scope: Scope, detector: str, customer_ids: Collection[UUID] | None = None
) -> dict[UUID | None, dict[str, Any]]:
    """The settings chosen for a detector by customer, the tenant's own under None.

    Only customers with settings of their own are there; without `customer_ids`, all of them.
    """
    level = col(DetectorSettings.customer_id)
    query = (
        sa.select(level, col(DetectorSettings.settings))
        .where(col(DetectorSettings.detector) == detector)
        .ext(distinct_on(level))
        .order_by(level, col(DetectorSettings.id).desc())
    )
    if customer_ids is not None:
        query = query.where(sa.or_(level.is_(None), one_of(level, customer_ids)))
    rows = await scope.db.execute(query)
    return dict(rows.all())


async def cases(
    scope: Scope, kind: type[Any], *, customer_ids: Sequence[UUID], watermark: int
) -> list[Case] | None:
    """Everything to judge by evidence of class `kind`, by customer; None if nobody builds it.

    Of events, those up to the segment `watermark` count.
    """
    build = _BUILDERS.get(kind)
    if build is None:
        return None
    found = await build(scope, customer_ids, watermark)
    # In one order everywhere, or two workers who fire the same signals would wait for each other.
    return sorted(found, key=lambda case: (case.customer_id, case.subject))


async def fired(
    scope: Scope, detector: str, cases: Sequence[Case]
) -> dict[tuple[UUID, str, datetime], list[Fired]]:
    """What a detector has fired already, by customer, subject and start of the period."""
    rows = await scope.db.execute(
        sa.select(
            col(Signal.customer_id),
            col(Signal.subject),
            col(Signal.period_start),
            col(Signal.threshold),
            col(Signal.level),
        ).where(
            col(Signal.detector) == detector,
            one_of(Signal.customer_id, {case.customer_id for case in cases}),
            col(Signal.period_start).in_({case.period.start for case in cases}),
        )
    )
    found: dict[tuple[UUID, str, datetime], list[Fired]] = {}
    for customer_id, subject, start, threshold, level in rows:
        found.setdefault((customer_id, subject, start), []).append(Fired(threshold, level))
    return found


@dataclass(frozen=True, slots=True)
class EventsBehind:
    """The events that a signal stands on."""

    ids: list[str]
    """Those that weigh most, the heaviest first."""
    count: int
    """All of them."""


async def events_behind(scope: Scope, case: Case, *, watermark: int) -> EventsBehind:
    """The customer's events of the period: how many, and the 100 that cost most.

    Costs in the case's currency come before costs in others, which cannot be compared with
    them, and those before the events whose cost is unknown.
    """
    parameters = {
        "watermark": watermark,
        "customer": str(case.customer_id),
        "start": moment(case.period.start),
        "end": moment(case.period.end),
    }
    counted = await scope.events.query(f"SELECT count() AS events {_EVENTS}", **parameters)
    heaviest = await scope.events.query(
        f"SELECT event_id {_EVENTS} "
        "ORDER BY cost IS NULL, cost_currency != {currency:String}, cost DESC, "
        "segment_id, position LIMIT {limit:UInt32}",
        **parameters,
        currency=case.currency,
        limit=EVENT_IDS_MAX,
    )
    return EventsBehind(
        ids=[str(row["event_id"]) for row in heaviest], count=int(counted[0]["events"])
    )


_EVENTS = f"FROM {EVENTS} WHERE customer_id = {{customer:UUID}} AND {IN_PERIOD}"


async def _margins(scope: Scope, customer_ids: Sequence[UUID], watermark: int) -> list[Case]:
    accruals = await accrued(scope, customer_ids=customer_ids, watermark=watermark, at=scope.now)
    return [
        margin_case(
            customer_id,
            currency=accrual.currency,
            revenue=accrual.revenue,
            cogs=accrual.cogs,
            uncosted_events=accrual.uncosted_events,
            period=accrual.period,
            as_of=scope.now,
        )
        for customer_id, accrual in accruals.items()
    ]


_BUILDERS: Mapping[type[Any], Callable[[Scope, Sequence[UUID], int], Awaitable[list[Case]]]] = {
    MarginEvidence: _margins
}
