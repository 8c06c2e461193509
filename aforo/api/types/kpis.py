"""GraphQL of the key figures as they change: worked out once for all who watch them here."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Self
from weakref import WeakValueDictionary

import strawberry

from aforo.api.parts import live
from aforo.api.parts.context import Context, Info
from aforo.api.parts.fields import subscription
from aforo.api.types.periods import PeriodInput
from aforo.api.types.reports import RevenueSummary
from aforo.reports import queries
from aforo.sdk import Period, TenantId
from aforo.sdk.errors import Invalid
from aforo.storage.live_log import Position
from aforo.storage.live_topic import FellBehind, Follower
from aforo.tenants.permissions import Permission

STREAM = "kpis"
PAUSE_SECONDS = 3.0
"""Between two looks at the figures of one tenant and period, however much happens."""
QUIET_SECONDS = 60.0
"""Where nothing happens the figures are looked at again: time alone changes some."""
PERIODS_MAX = 10
"""Different periods of one tenant that a process watches at once."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was found at one look."""

    period: Period
    as_of: datetime
    rows: list[queries.RevenueSummary]
    position: Position | None
    """Changes up to here are in it."""


@strawberry.type(description="The key figures of a period, as of one moment.")
class Kpis:
    as_of: datetime = strawberry.field(description="The moment the figures are true for.")
    period_start: datetime = strawberry.field(description="The first moment of the period.")
    period_end: datetime = strawberry.field(description="The first moment after it.")
    revenue: list[RevenueSummary] = strawberry.field(
        description="Revenue, cost and recurring fees, one row per currency."
    )

    @classmethod
    def from_figures(cls, figures: Figures) -> Self:
        return cls(
            as_of=figures.as_of,
            period_start=figures.period.start,
            period_end=figures.period.end,
            revenue=[RevenueSummary.from_figures(row) for row in figures.rows],
        )


@dataclass(slots=True, weakref_slot=True)
class Watched:
    """The figures of one tenant and period, for all who watch them in this process."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    figures: Figures | None = None
    looked_at: float = -math.inf
    """By the event loop's clock."""


Key = tuple[TenantId, Period | None]
_WATCHED: WeakValueDictionary[Key, Watched] = WeakValueDictionary()


@strawberry.type
class ReportSubscription:
    @subscription(
        "The key figures: now, and again when something has changed them, at most every "
        f"{PAUSE_SECONDS:g} seconds and at least every {QUIET_SECONDS:g}.",
        needs=Permission.REPORTS_READ,
    )
    async def kpis(
        self,
        info: Info,
        period: Annotated[
            PeriodInput | None,
            strawberry.argument(
                description="Of which time; of the month that is running, in UTC, if not given."
            ),
        ] = None,
        after: live.After = None,
    ) -> AsyncIterator[Kpis]:
        wanted = period.to_period() if period else None
        watched = _watched((info.context.caller.tenant_id, wanted))
        clock = asyncio.get_running_loop().time
        async with live.opened(info.context, STREAM, after=after) as follower:
            is_resumed = live.is_resumed(info.context, after)
            is_due = follower.jump() or not is_resumed
            not_before = clock() - QUIET_SECONDS
            while True:
                if is_due:
                    figures = await _look(
                        info.context, watched, follower, wanted, not_before=not_before
                    )
                    follower.pass_over(figures.position)
                    yield Kpis.from_figures(figures)
                not_before = clock() if not await _is_changed(follower) else -math.inf
                is_due = True


async def _is_changed(follower: Follower) -> bool:
    """Wait until something has changed the figures, or for a while; whether something has."""
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            await anext(follower)
    except TimeoutError:
        return False
    except FellBehind:
        pass  # How much there was is all one: it is looked at once.
    follower.jump()
    return True


async def _look(
    context: Context,
    watched: Watched,
    follower: Follower,
    wanted: Period | None,
    *,
    not_before: float,
) -> Figures:
    """Figures that know of all that the follower has seen, and were not found before a moment."""
    clock = asyncio.get_running_loop().time
    async with watched.lock:
        found = watched.figures
        is_news = found is None or (follower.seen and follower.seen.is_past(found.position))
        if found is not None and not is_news and watched.looked_at >= not_before:
            return found
        await asyncio.sleep(max(0.0, watched.looked_at + PAUSE_SECONDS - clock()))
        follower.jump()
        position = follower.seen  # Before the look: what comes during it calls for another one.
        watched.looked_at = clock()
        async with context.scope() as scope:
            period = wanted or _month(scope.now)
            rows = await queries.revenue_summary(scope, start=period.start, end=period.end)
            watched.figures = Figures(period, scope.now, rows, position)
        return watched.figures


def _watched(key: Key) -> Watched:
    watched = _WATCHED.get(key)
    if watched is None:
        others = sum(tenant_id == key[0] for tenant_id, *_ in list(_WATCHED))
        if others >= PERIODS_MAX:
            raise Invalid(
                f"at most {PERIODS_MAX} different periods are watched at once: use one of those",
                code="TOO_MANY_PERIODS",
                field="period",
            )
        watched = _WATCHED[key] = Watched()
    return watched


def _month(at: datetime) -> Period:
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Period(first, (first + timedelta(days=32)).replace(day=1))
