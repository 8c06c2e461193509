"""How much a caller may send: the policy that holds for it, its bucket and its tenant's."""

from collections.abc import Mapping
from functools import lru_cache

from aforo.api.auth.requests import Refused
from aforo.api.protocol.cost import COST_MAX
from aforo.callers import queries
from aforo.callers.queries import Policy
from aforo.settings import Settings
from aforo.storage.buckets import Rate, Taken
from aforo.storage.scope import Runtime
from aforo.tenants.queries import Caller

BURST_SECONDS = 10
"""A caller that was quiet may send as much at once as in ten seconds."""
EVENTS_OF_A_BATCH = 1_000
RATES_MAX = 1_000
_OF_TENANT = "-tenant"
"""Marks the buckets that all callers of a tenant share."""
_UNITS = {"graphql": "points of cost", "events": "events", "checks": "entitlement checks"}


async def policy_of(runtime: Runtime, caller: Caller) -> Policy:
    """What holds for a caller, as of half a second ago at most. Raises `Unavailable`."""
    key, now = ("policy", caller.tenant_id, caller.id), runtime.clock.now()
    known: Policy | None = runtime.lately.find(key, now)
    if known is not None:
        return known
    mark = runtime.lately.mark(now)
    async with runtime.scope(caller.tenant_id) as scope:
        policy = await queries.policy(scope, caller.id)
    runtime.lately.keep(key, policy, tenant_id=caller.tenant_id, mark=mark)
    return policy


def installation(settings: Settings) -> Policy:
    """What holds where nothing was set, and the most that can be set."""
    return Policy(settings.points_per_second, settings.events_per_second, only_persisted=False)


async def take_points(
    runtime: Runtime, caller: Caller, policy: Policy, points: int
) -> Mapping[str, str]:
    """Count an operation by its cost; gives headers for its answer. Raises `Refused` with 429."""
    most = runtime.settings.points_per_second
    rate = _rate(policy.points_per_second or most, at_least=COST_MAX)
    of_tenant = _times(_rate(most, at_least=COST_MAX), runtime.settings.tenant_rate_factor)
    return await _take(runtime, caller, "graphql", (rate, of_tenant), points)


async def take_events(runtime: Runtime, caller: Caller, events: int) -> Mapping[str, str]:
    """Count a batch by its events; gives headers for its answer. Raises `Refused` with 429."""
    policy = await policy_of(runtime, caller)
    most = runtime.settings.events_per_second
    rate = _rate(policy.events_per_second or most, at_least=EVENTS_OF_A_BATCH)
    of_tenant = _times(_rate(most, at_least=EVENTS_OF_A_BATCH), runtime.settings.tenant_rate_factor)
    return await _take(runtime, caller, "events", (rate, of_tenant), max(events, 0))


async def take_checks(runtime: Runtime, caller: Caller) -> Mapping[str, str]:
    """Count an entitlement check, apart from events but by the same rate: whoever may send so much
    usage may ask as often. Gives headers for its answer. Raises `Refused` with 429."""
    policy = await policy_of(runtime, caller)
    most = runtime.settings.events_per_second
    rate = _rate(policy.events_per_second or most, at_least=EVENTS_OF_A_BATCH)
    of_tenant = _times(_rate(most, at_least=EVENTS_OF_A_BATCH), runtime.settings.tenant_rate_factor)
    return await _take(runtime, caller, "checks", (rate, of_tenant), 1)


async def _take(
    runtime: Runtime, caller: Caller, name: str, rates: tuple[Rate, Rate], need: int
) -> Mapping[str, str]:
    """Take from the caller's bucket, and where that has enough from the tenant's as well."""
    rate, of_tenant = rates
    now, buckets = runtime.clock.now(), runtime.buckets
    shared = f"{caller.tenant_id}:rate:{name}"
    own = f"{shared}:{caller.id}"
    taken = await buckets.take(own, rate, need, now)
    if not taken.granted:
        raise _refused(name, taken, need, f"{caller.named} may send")
    together = await buckets.take(shared, of_tenant, need, now)
    if not together.granted:
        # Else a key would pay for what it was not let do.
        buckets.give_back(own, rate, min(need, rate.burst))
        who = "the API keys, members and portal tokens of this tenant may together send"
        raise _refused(name + _OF_TENANT, together, need, who)
    if together.remaining < taken.remaining:
        return _headers(name + _OF_TENANT, together)
    return _headers(name, taken)


@lru_cache(maxsize=RATES_MAX)  # Of a few policies there are thousands of requests.
def _rate(per_second: int, *, at_least: int) -> Rate:
    return Rate(per_second, max(per_second * BURST_SECONDS, at_least))


@lru_cache(maxsize=RATES_MAX)
def _times(rate: Rate, factor: int) -> Rate:
    return Rate(rate.per_second * factor, rate.burst * factor)


def _headers(name: str, taken: Taken) -> Mapping[str, str]:
    """The fields of the IETF's draft, and those that clients knew before it."""
    rate = taken.rate
    return {
        "RateLimit-Policy": f'"{name}";q={rate.burst};w={BURST_SECONDS}',
        "RateLimit": f'"{name}";r={taken.remaining};t={taken.full_in_seconds}',
        "X-RateLimit-Limit": str(rate.burst),
        "X-RateLimit-Remaining": str(taken.remaining),
        "X-RateLimit-Reset": str(taken.full_in_seconds),
    }


def _refused(name: str, taken: Taken, need: int, who_may_send: str) -> Refused:
    rate, unit = taken.rate, _UNITS[name.removesuffix(_OF_TENANT)]
    return Refused(
        429,
        "RATE_LIMITED",
        f"{who_may_send} {rate.per_second:,} {unit} per second and {rate.burst:,} at once; "
        f"{need:,} more were asked for: try again in {taken.wait_seconds} s",
        {**_headers(name, taken), "Retry-After": str(taken.wait_seconds)},
    )
