"""Live traffic: the demo's customers go on using what they bought, a few events per second."""

import asyncio
from random import Random
from typing import Any

import structlog

from aforo.demo.cast import CAST, Member
from aforo.demo.usage import image, request, sale
from aforo.metering.commands import ingest
from aforo.sdk.errors import AforoError
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id

PAUSE_SECONDS = 2.0
BATCH_EVENTS = 6
EVENTS_MAX = 100_000
"""After so many in one run it falls silent: a demo that is forgotten must not fill the disk."""

log = structlog.get_logger()


async def send_traffic(runtime: Runtime, tenant_id: TenantId) -> None:
    """Send events until cancelled. Where an engine is away, its events are not made up for."""
    chance = Random()  # noqa: S311 (believable, not secret)
    me = asyncio.current_task()
    for _ in range(EVENTS_MAX // BATCH_EVENTS):
        if me is not None and me.cancelling():
            return  # `wait_for` of Python 3.11, which drivers call, may have swallowed it.
        batch = [_event(runtime, chance) for _ in range(BATCH_EVENTS)]
        try:
            await ingest(runtime, tenant_id, batch)
        except AforoError as error:
            log.warning("live traffic waits", error=error.message)
        await asyncio.sleep(PAUSE_SECONDS)
    log.info("live traffic has ended", events=EVENTS_MAX)


def _event(runtime: Runtime, chance: Random) -> dict[str, Any]:
    member = chance.choices(CAST, [_eagerness(each) for each in CAST])[0]
    habits, now = member.habits, runtime.clock.now()
    makers = (request, image, sale)
    weights = (habits.requests_per_day, habits.images_per_day, habits.sales_per_day)
    event = chance.choices(makers, weights)[0](member, now, chance)
    return event | {"idempotencyKey": f"live-{new_id()}"}


def _eagerness(member: Member) -> float:
    habits = member.habits
    if habits.requests_this_period is not None:
        return 0.1  # It stays near its quota for hours instead of passing it in minutes.
    return habits.requests_per_day * habits.share_left
