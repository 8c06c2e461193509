"""Quotas in force, and the live tallies of their use: moved on by each confirmed segment.

Tallies are advisory. One that missed a segment, or was lost with Redis, is counted from the
aggregate again by whoever asks for it; invoices never look here.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog

from aforo.catalog.models import Meter
from aforo.metering import limits, queries
from aforo.metering.grants import QuotaInForce, quota_grants
from aforo.metering.quota import QuotaCounter, QuotaUse, advanced
from aforo.metering.sealer import Confirmed
from aforo.metering.stored import StoredEvent
from aforo.metering.validate import contribution
from aforo.sdk.errors import AforoError, Invalid
from aforo.sdk.ids import CustomerId
from aforo.sdk.period import Period
from aforo.storage.jobs import JobName
from aforo.storage.redis import UNREACHABLE
from aforo.storage.scope import GATES, Runtime, Scope
from aforo.storage.tallies import Progress, Tally, hold_name

COUNT_TRIES_MAX = 3
CUSTOMERS_AT_ONCE = 1_000
RECONCILE_AFTER = timedelta(minutes=5)

log = structlog.get_logger()
_properties = msgspec.json.Decoder(float_hook=Decimal)


class _Counted(NamedTuple):
    """A tally of usage that somebody asked for."""

    quota: QuotaInForce
    name: str
    period: Period
    tally: Tally


async def advance(runtime: Runtime, segment: Confirmed) -> None:
    """Move the tallies of a tenant on by a confirmed segment, and settle what was held for it.

    A failure costs nothing but time: the next segment finds that one was missed, and whoever asks
    counts again.
    """
    try:
        async with runtime.scope(segment.tenant_id) as scope:
            await _advance(scope, segment)
    except (AforoError, *UNREACHABLE) as error:
        log.warning("quota tallies left behind", segment=segment.segment_id, error=str(error))


async def quota_uses(
    scope: Scope, customer_ids: Collection[UUID]
) -> dict[UUID, list[tuple[QuotaInForce, QuotaUse]]]:
    """Each customer's quotas at present beside their use, without what is only held.

    From the live tallies; from the aggregate where there is none, or Redis is away.
    """
    uses: dict[UUID, list[tuple[QuotaInForce, QuotaUse]]] = defaultdict(list)
    for grant in await quota_grants(scope, customer_ids, scope.now):
        quota = grant.at(scope.now)
        uses[quota.customer_id].append((quota, quota.use(await _tallies(scope, quota))))
    return dict(uses)


async def count(scope: Scope, quota: QuotaInForce) -> list[Tally]:
    """Count a quota's tallies from the aggregate, and keep them where Redis can be reached.

    Raises: `Unavailable` where ClickHouse cannot be reached.
    """
    tallies: dict[str, Tally] = {}
    for _ in range(COUNT_TRIES_MAX):
        tallies = await by_aggregate(scope, quota, await queries.watermark(scope))
        try:
            kept = await scope.live.tallies.settle(quota.of, scope.now, used=tallies, is_new=True)
        except UNREACHABLE:
            break
        if kept:
            break
    return list(tallies.values())


async def by_aggregate(scope: Scope, quota: QuotaInForce, watermark: int) -> dict[str, Tally]:
    """A quota's tallies as the log has them up to a watermark, by name."""
    found: dict[str, Decimal] = {}
    for name, period in quota.counted.items():
        used = await used_by_customer(scope, quota.meter, period, [quota.customer_id], watermark)
        found[name] = used.get(CustomerId(quota.customer_id), Decimal(0))
    if quota.entitlement.rollover_periods is not None:
        found[quota.names[-1]] = await limits.carried_into(
            scope, quota.grant, quota.period.start, watermark
        )
    return {name: Tally(used, Decimal(0), watermark) for name, used in found.items()}


async def _tallies(scope: Scope, quota: QuotaInForce) -> list[Tally]:
    wanted = [(quota.of, name) for name in quota.names]
    try:
        found = await scope.live.tallies.tallies(wanted)
    except UNREACHABLE:
        found = []
    known = [each for each in found if each is not None]
    return known if len(known) == len(wanted) else await count(scope, quota)


async def used_by_customer(
    scope: Scope, meter: Meter, period: Period, customers: Sequence[UUID], watermark: int
) -> dict[CustomerId, Decimal]:
    """Units of a meter in a period, less what is blocked. Who has no event is absent."""
    usage = await queries.usage_by_customer(
        scope,
        meter,
        period,
        watermark=watermark,
        customer_ids=customers,
        without=await limits.blocked(
            scope, meter, period, watermark=watermark, customer_ids=customers
        ),
    )
    return {customer: each.quantity for customer, each in usage.items()}


async def _advance(scope: Scope, segment: Confirmed) -> None:
    tallies, number = scope.live.tallies, segment.segment_id
    before = await tallies.progress()
    # Tallies that were counted before a segment that nobody moved them on by are not trusted.
    gap = before.gap if before.seen == segment.previous_id else segment.previous_id
    await tallies.set_progress(Progress(number, before.seen, gap))
    customer_ids = segment.customer_ids | segment.corrected
    kept = await _kept(scope, customer_ids)
    holders = await tallies.holders([str(each) for each in customer_ids])
    if kept or holders:
        by_customer: dict[UUID, list[StoredEvent]] = {each: [] for each in customer_ids}
        for event in segment.events():
            if not event.is_void and not event.backfill:
                by_customer[event.customer_id].append(event)
        moved = await _moved(scope, segment, kept, by_customer, gap)
        if moved:
            run_at = scope.now + RECONCILE_AFTER
            await scope.enqueue(JobName.RECONCILE_QUOTAS, unique_key="", run_at=run_at)
        for customer_id, events in by_customer.items():
            of = str(customer_id)
            names = [hold_name(event.idempotency_key) for event in events] if of in holders else []
            if names or moved[of]:
                await tallies.settle(of, scope.now, names=names, used=moved[of])
    await tallies.set_progress(Progress(number, number, gap))


async def _kept(scope: Scope, customer_ids: Collection[UUID]) -> list[_Counted]:
    """The tallies of these customers that somebody asked for."""
    wanted = [
        (quota, name, period)
        for grant in await quota_grants(scope, customer_ids, scope.now)
        for quota in [grant.at(scope.now)]
        for name, period in quota.counted.items()
    ]
    tallies = await scope.live.tallies.tallies([(quota.of, name) for quota, name, _ in wanted])
    return [
        _Counted(quota, name, period, tally)
        for (quota, name, period), tally in zip(wanted, tallies, strict=True)
        if tally is not None
    ]


async def _moved(
    scope: Scope,
    segment: Confirmed,
    kept: Sequence[_Counted],
    by_customer: Mapping[UUID, list[StoredEvent]],
    gap: int,
) -> dict[str, dict[str, Tally]]:
    """These tallies after this segment; by customer and name."""
    moved: dict[str, dict[str, Tally]] = defaultdict(dict)
    anew: dict[tuple[UUID, Period], list[tuple[QuotaInForce, str]]] = defaultdict(list)
    for quota, name, period, tally in kept:
        brought = list(_brought(by_customer[quota.customer_id], quota.meter, period))
        is_corrected = quota.customer_id in segment.corrected
        if not (brought or is_corrected):
            continue
        # What is shown is never below 0, so a sum that may fall below it cannot be added to; what
        # was superseded is in the sum already; and how much is carried on is not known here, and
        # with it what is blocked.
        is_anew = (
            is_corrected
            or quota.meter.allows_negative
            or (quota.blocks and quota.entitlement.rollover_periods is not None)
        )
        counter = advanced(
            None if is_anew else QuotaCounter(tally.used, tally.segment),
            aggregation=quota.meter.aggregation,
            brought=brought,
            previous_segment=gap,
            segment_id=segment.segment_id,
            limit=quota.entitlement.quota if quota.blocks else None,
        )
        if counter is None:
            anew[quota.meter.id, period].append((quota, name))
        else:
            moved[quota.of][name] = replace(tally, used=counter.used, segment=counter.segment_id)
            _tell_if_used_up(scope, quota, tally.used, counter.used)
    for (_, period), quotas in anew.items():
        for quota, name, used in await _counted_anew(scope, quotas, period, segment.segment_id):
            moved[quota.of][name] = Tally(used, Decimal(0), segment.segment_id)
    return moved


async def _counted_anew(
    scope: Scope, quotas: Sequence[tuple[QuotaInForce, str]], period: Period, watermark: int
) -> list[tuple[QuotaInForce, str, Decimal]]:
    """Of quotas over one meter and period."""
    found: dict[CustomerId, Decimal] = {}
    meter = quotas[0][0].meter
    for at in range(0, len(quotas), CUSTOMERS_AT_ONCE):
        some = [quota.customer_id for quota, _ in quotas[at : at + CUSTOMERS_AT_ONCE]]
        found |= await used_by_customer(scope, meter, period, some, watermark)
    return [
        (quota, name, found.get(CustomerId(quota.customer_id), Decimal(0)))
        for quota, name in quotas
    ]


def _tell_if_used_up(scope: Scope, quota: QuotaInForce, before: Decimal, after: Decimal) -> None:
    limit = quota.entitlement.quota or Decimal(0)
    if before < limit <= after:
        scope.live.announce(GATES, {"customerId": quota.of})


def _brought(events: Iterable[StoredEvent], meter: Meter, period: Period) -> Iterable[Decimal]:
    rule = queries.rule_of(meter)
    for event in events:
        if event.type != rule.event_type or not period.contains(event.occurred_at):
            continue
        try:
            units = contribution(rule, _properties.decode(event.properties))
        except Invalid:
            continue  # The meter is younger than the event; the aggregate leaves it out as well.
        if units is not None:
            yield units
