"""How much a caller may send: the policy that holds for it, and its buckets."""

from collections.abc import Mapping

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


async def take_points(runtime: Runtime, caller: Caller, policy: Policy, points: int) -> Taken:
    """Count an operation by its cost. Raises `Refused` with 429."""
    per_second = policy.points_per_second or runtime.settings.points_per_second
    rate = Rate(per_second, max(per_second * BURST_SECONDS, COST_MAX))
    return await _take(runtime, caller, "graphql", rate, points)


async def take_events(runtime: Runtime, caller: Caller, events: int) -> Taken:
    """Count a batch by its events. Raises `Refused` with 429."""
    policy = await policy_of(runtime, caller)
    per_second = policy.events_per_second or runtime.settings.events_per_second
    rate = Rate(per_second, max(per_second * BURST_SECONDS, EVENTS_OF_A_BATCH))
    return await _take(runtime, caller, "events", rate, max(events, 0))


def rate_headers(name: str, taken: Taken) -> Mapping[str, str]:
    """The fields of the IETF's draft, and those that clients knew before it."""
    rate = taken.rate
    return {
        "RateLimit-Policy": f'"{name}";q={rate.burst};w={BURST_SECONDS}',
        "RateLimit": f'"{name}";r={taken.remaining};t={taken.full_in_seconds}',
        "X-RateLimit-Limit": str(rate.burst),
        "X-RateLimit-Remaining": str(taken.remaining),
        "X-RateLimit-Reset": str(taken.full_in_seconds),
    }


async def _take(runtime: Runtime, caller: Caller, name: str, rate: Rate, need: int) -> Taken:
    key = f"{caller.tenant_id}:rate:{name}:{caller.id}"
    taken = await runtime.buckets.take(key, rate, need, runtime.clock.now())
    if not taken.granted:
        unit = "points of cost" if name == "graphql" else "events"
        raise Refused(
            429,
            "RATE_LIMITED",
            f"{caller.named} may send {rate.per_second:,} {unit} per second and {rate.burst:,} at "
            f"once; {need:,} more were asked for: try again in {taken.wait_seconds} s",
            {**rate_headers(name, taken), "Retry-After": str(taken.wait_seconds)},
        )
    return taken
