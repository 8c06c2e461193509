"""Reconciles the live tallies with the log: what drifted apart is measured and put right."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import structlog

from aforo.metering.grants import QuotaInForce, quota_grants
from aforo.metering.quotas import used_by_customer
from aforo.sdk.ids import CustomerId
from aforo.sdk.period import Period
from aforo.storage.scope import Scope
from aforo.storage.tallies import Tally
from aforo.telemetry.metrics import TALLIES, TALLY_DRIFT

CUSTOMERS_AT_ONCE = 1_000

log = structlog.get_logger()


async def reconcile(scope: Scope) -> int:
    """Compare the tallies of some customers with the log, at random; how many were mended.

    Nothing is compared while a segment is on its way. Raises `RedisError`, `Unavailable`.
    """
    tallies = scope.live.tallies
    before = await tallies.progress()
    some = await tallies.tallied(CUSTOMERS_AT_ONCE)
    grants = await quota_grants(scope, [UUID(of) for of in some], scope.now)
    wanted = [
        (quota, name, period)
        for quota in (grant.at(scope.now) for grant in grants)
        for name, period in quota.counted.items()
    ]
    kept = await tallies.tallies([(quota.of, name) for quota, name, _ in wanted])
    by_meter: dict[tuple[UUID, Period], list[tuple[QuotaInForce, str, Tally]]] = defaultdict(list)
    for (quota, name, period), tally in zip(wanted, kept, strict=True):
        if tally is not None:
            by_meter[quota.meter.id, period].append((quota, name, tally))
    wrong: list[tuple[QuotaInForce, str, Tally]] = []
    for (_, period), group in by_meter.items():
        wrong += await _differing(scope, period, group, before.seen)
    after = await tallies.progress()
    if after != before or before.begun != before.seen:
        return 0  # They were moved on meanwhile, so nobody can say.
    for quota, name, counted in wrong:
        await tallies.settle(quota.of, scope.now, used={name: counted})
        log.warning("a quota tally was mended", customer=quota.of, meter=quota.meter.code)
    TALLIES.labels("equal").inc(sum(map(len, by_meter.values())) - len(wrong))
    TALLIES.labels("mended").inc(len(wrong))
    return len(wrong)


async def _differing(
    scope: Scope, period: Period, group: Sequence[tuple[QuotaInForce, str, Tally]], seen: int
) -> list[tuple[QuotaInForce, str, Tally]]:
    """Those of one meter and period that are not as the log has them, with what that has."""
    customers = [quota.customer_id for quota, _, _ in group]
    usage = await used_by_customer(scope, group[0][0].meter, period, customers, seen)
    found = []
    for quota, name, tally in group:
        used = usage.get(CustomerId(quota.customer_id), Decimal(0))
        drift = abs(tally.used - used)
        TALLY_DRIFT.observe(float(drift / max(used, Decimal(1))))  # A share, for the eye alone.
        if drift and tally.segment <= seen:
            found.append((quota, name, Tally(used, Decimal(0), seen)))
    return found
