"""The gate: answers whether a customer may use something now, and holds units for it.

What plans grant is remembered by the process until it is told of a change; what was used is asked
of Redis each time. Where Redis is away it answers by what it knew last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from aforo.catalog.models import QuotaPolicy
from aforo.catalog.quota_terms import ADDITIVE
from aforo.entitlements.decide import (
    Decision,
    Held,
    has_room,
    max_age_seconds,
    without_tallies,
)
from aforo.entitlements.queries import standing_of
from aforo.entitlements.standing import Entitled, Reason, Standing, Throttle, entitled
from aforo.metering.grants import QuotaInForce
from aforo.metering.quotas import count
from aforo.sdk.encoding import decoded, encoded
from aforo.sdk.errors import Conflict, Invalid, NotFound, Unavailable
from aforo.sdk.ids import TenantId
from aforo.storage.buckets import Rate
from aforo.storage.scope import GATES, Runtime
from aforo.storage.tallies import Answer, Hold, HoldState, Outcome, Tally, hold_name

CONSUMED_SECONDS = 3600
"""How long consumed units are held for an event that does not come."""
COLD_TRIES_MAX = 3
ANEW = "what was used is counted anew all the time"
_MILLI = 1_000
_PREFIX = "hold_"
HOLD_CHARACTERS = 43
"""Of 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question: by one name of a customer, about one feature or meter."""

    customer: str | None = None
    key_hash: bytes | None = None
    feature: str | None = None
    meter: str | None = None
    quantity: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Units that are to be held, under the idempotency key of the event to come."""

    key: str
    state: HoldState
    seconds: int


@dataclass(frozen=True, slots=True)
class _Case:
    """A question, what is known about who asks, and when."""

    runtime: Runtime
    tenant_id: TenantId
    ask: Ask
    now: datetime
    standing: Standing
    quota: QuotaInForce | None
    throttle: Throttle | None


async def check(runtime: Runtime, tenant_id: TenantId, ask: Ask) -> Decision:
    """Whether a customer may use so much now. Raises: `Unavailable` where nothing is known."""
    case = await _case(runtime, tenant_id, ask)
    if isinstance(case, Decision):
        return case
    if case.quota is None:
        return await _answer(case, Reason.OK)
    try:
        tallies = await _look(case, case.quota)
    except Unavailable:
        return await _degraded(case, case.quota)
    use = case.quota.use(tallies, with_held=True)
    fits = has_room(case.quota, use, ask.quantity)
    return await _answer(case, Reason.OK if fits else Reason.LIMIT_REACHED, tallies)


async def take(runtime: Runtime, tenant_id: TenantId, ask: Ask, wanted: Take) -> Decision:
    """Hold units for a customer, unless they are not there; once for each key.

    Of what has no quota nothing is held. Raises: `Invalid` for a quota whose units cannot be taken
    one after the other; `Conflict` for a key that holds something else; `Unavailable`.
    """
    case = await _case(runtime, tenant_id, ask)
    if isinstance(case, Decision):
        return case
    if case.quota is None:
        return await _answer(case, Reason.OK)
    if case.quota.meter.aggregation not in ADDITIVE:
        raise Invalid(
            f"{case.quota.meter.code} is a {case.quota.meter.aggregation} meter, of which no units "
            "can be held: check it instead",
            field="meter" if ask.meter else "feature",
        )
    first = await _answer(case, Reason.OK)
    if not first.allowed:
        return first
    try:
        return await _taken(case, case.quota, wanted)
    except Unavailable:
        return await _degraded(case, case.quota)


async def finish(
    runtime: Runtime,
    tenant_id: TenantId,
    hold_id: str,
    *,
    state: HoldState,
    quantity: Decimal = Decimal(0),
) -> Held:
    """Make a reservation CONSUMED with what was really used, which may be more or less than was
    reserved, or RELEASED. A second time it changes nothing.

    Raises: `NotFound`; `Conflict` where it was finished in another way; `Unavailable`.
    """
    of, name = _parsed(hold_id)
    now = runtime.clock.now()
    ends_at = now + timedelta(seconds=CONSUMED_SECONDS)
    tallies = runtime.live.of(tenant_id).tallies
    done = await tallies.finish(of, name, now, quantity=quantity, state=state, ends_at=ends_at)
    if done.outcome is Outcome.NONE or done.hold is None:
        raise NotFound("there is no hold with this id, or it is over for a day", field="hold")
    if done.outcome is Outcome.DONE:
        kept = quantity if state is HoldState.CONSUMED else done.hold.quantity
        expires_at = ends_at if state is HoldState.CONSUMED else None
        return Held(id=hold_id, state=state.name, quantity=kept, expires_at=expires_at)
    was = done.hold.state
    same = {
        HoldState.CONSUMED: {HoldState.CONSUMED, HoldState.SETTLED},
        HoldState.RELEASED: {HoldState.RELEASED},
    }[state]
    if was not in same or (was is HoldState.CONSUMED and done.hold.quantity != quantity):
        raise Conflict(
            f"the hold is {was.name} with {done.hold.quantity:f} already",
            code="HOLD_FINISHED",
            field="hold",
        )
    return Held(id=hold_id, state=was.name, quantity=done.hold.quantity, expires_at=None)


async def _case(runtime: Runtime, tenant_id: TenantId, ask: Ask) -> _Case | Decision:
    now = runtime.clock.now()
    standing = await _standing(runtime, tenant_id, ask)
    found = entitled(standing, feature=ask.feature, meter=ask.meter, at=now)
    if isinstance(found, Entitled):
        assert standing is not None, "nobody grants anything to one who is not known"
        quota = found.quota.at(now) if found.quota else None
        return _Case(runtime, tenant_id, ask, now, standing, quota, found.throttle)
    return Decision(
        reason=found,
        customer=standing.external_id if standing else None,
        version=standing.version if standing else "",
        max_age_seconds=max_age_seconds(
            found,
            None,
            None,
            throttled=False,
            changes_at=_changes_at(standing, None, now) if standing else None,
            now=now,
        ),
    )


async def _standing(runtime: Runtime, tenant_id: TenantId, ask: Ask) -> Standing | None:
    remembered = runtime.remembered
    remembered.begin(runtime.cross_tenant)
    key = (tenant_id, ask.customer, ask.key_hash)
    found: Standing | None = remembered.find(key)
    if found is not None:
        return found
    mark = remembered.mark()
    async with runtime.scope(tenant_id) as scope:
        found = await standing_of(scope, external_id=ask.customer, key_hash=ask.key_hash)
    if found is not None:
        remembered.keep(key, found, about=f"{tenant_id}:{found.customer_id}", mark=mark)
    return found


async def _look(case: _Case, quota: QuotaInForce) -> list[Tally]:
    """The tallies of a quota, counted where they are not kept. Raises: `Unavailable`."""
    tallies = case.runtime.live.of(case.tenant_id).tallies
    for _ in range(COLD_TRIES_MAX):
        found = await tallies.look(quota.of, quota.names, case.now)
        known = [each for each in found if each is not None]
        if len(known) == len(found):
            return known
        async with case.runtime.scope(case.tenant_id) as scope:
            await count(scope, quota)
    raise Unavailable(ANEW)


async def _taken(case: _Case, quota: QuotaInForce, wanted: Take) -> Decision:
    tallies = case.runtime.live.of(case.tenant_id).tallies
    hold = Hold(
        name=hold_name(wanted.key),
        quantity=case.ask.quantity,
        state=wanted.state,
        ends_at=case.now + timedelta(seconds=wanted.seconds),
    )
    blocks = quota.entitlement.policy is QuotaPolicy.BLOCK
    for _ in range(COLD_TRIES_MAX):
        known = await _look(case, quota) if len(quota.names) > 1 else []
        at_most = _at_most(quota, known) if blocks else None
        answer = await tallies.take(quota.of, quota.name, hold, case.now, at_most=at_most)
        if answer.outcome is not Outcome.COLD:
            return await _told(case, quota, hold, answer, known)
        async with case.runtime.scope(case.tenant_id) as scope:
            await count(scope, quota)
    raise Unavailable(ANEW)


async def _told(
    case: _Case, quota: QuotaInForce, hold: Hold, answer: Answer, known: Sequence[Tally]
) -> Decision:
    """What is answered to one who wanted to take."""
    if answer.outcome is Outcome.CROWDED:
        raise Unavailable("too much is held for this customer: send the events of what was used")
    if answer.tally is None:
        raise Unavailable("what this is held against is gone")
    tallies = [answer.tally, *known[1:]]
    if answer.outcome is Outcome.FULL:
        return await _answer(case, Reason.LIMIT_REACHED, tallies, counts=False)
    state, ends_at = hold.state, hold.ends_at
    if answer.hold is not None:
        state = answer.hold.state
        same = answer.hold.tally.rpartition(":")[0] == quota.name.rpartition(":")[0]
        if not same or (state is hold.state and answer.hold.quantity != hold.quantity):
            raise Conflict(
                "this key holds another quantity, or of something else; give each usage a key",
                code="IDEMPOTENCY_KEY_REUSED",
                field="idempotencyKey",
            )
    use = quota.use(tallies, with_held=True)
    if (
        answer.outcome is Outcome.TAKEN
        and use.remaining == 0
        and use.used - hold.quantity < use.limit
    ):
        live = case.runtime.live.of(case.tenant_id)
        live.announce(GATES, {"customerId": quota.of})
        await live.flush()
    reason = Reason.LIMIT_REACHED if state is HoldState.EXPIRED else Reason.OK
    decision = await _answer(case, reason, tallies, counts=False)
    held = Held(
        id=_id(case.standing.customer_id, hold.name),
        state=state.name,
        quantity=answer.hold.quantity if answer.hold else hold.quantity,
        expires_at=ends_at if answer.outcome is Outcome.TAKEN else None,
    )
    return replace(decision, hold=held, max_age_seconds=0)


def _at_most(quota: QuotaInForce, known: Sequence[Tally]) -> Decimal:
    """What the window's own tally may come to."""
    if not known:
        return quota.entitlement.quota or Decimal(0)
    own = replace(known[0], used=Decimal(0), held=Decimal(0))
    use = quota.use([own, *known[1:]], with_held=True)
    return use.limit - use.used


async def _degraded(case: _Case, quota: QuotaInForce) -> Decision:
    last = case.runtime.live.of(case.tenant_id).tallies.last_known(quota.of, quota.names)
    use = quota.use(last, with_held=True) if last else None
    reason = without_tallies(quota, use, case.ask.quantity)
    decision = await _answer(case, reason, last, counts=False)
    return replace(decision, degraded=True, max_age_seconds=min(decision.max_age_seconds, 1))


async def _answer(
    case: _Case, reason: Reason, tallies: Sequence[Tally] | None = None, *, counts: bool = True
) -> Decision:
    """The answer; one that would be yes is counted against the rate of who is throttled."""
    quota, throttle = case.quota, case.throttle
    if counts and reason is Reason.OK and throttle and not await _is_within(case, throttle):
        reason = Reason.THROTTLED
    use = quota.use(tallies, with_held=True) if quota and tallies else None
    return Decision(
        reason=reason,
        customer=case.standing.external_id,
        version=case.standing.version,
        use=use,
        resets_at=quota.window.resets_at if quota else None,
        throttle=throttle,
        max_age_seconds=max_age_seconds(
            reason,
            quota,
            use,
            throttled=throttle is not None,
            changes_at=_changes_at(case.standing, quota, case.now),
            now=case.now,
        ),
    )


async def _is_within(case: _Case, throttle: Throttle) -> bool:
    if throttle.rate_per_second is None:
        return True
    per_second = max(int(throttle.rate_per_second * _MILLI), 1)
    what = f"feature:{case.ask.feature}" if case.ask.feature else f"meter:{case.ask.meter}"
    taken = await case.runtime.buckets.take(
        f"{case.tenant_id}:throttle:{case.standing.customer_id}:{what}",
        Rate(per_second, max(per_second, _MILLI)),
        int(case.ask.quantity * _MILLI),
        case.now,
    )
    return taken.granted


def _changes_at(standing: Standing, quota: QuotaInForce | None, now: datetime) -> datetime | None:
    """When something changes of which nobody will be told."""
    moments = [
        *(each.until for each in standing.restraints),
        *(plan.life.starts_at for plan in standing.plans),
        *(plan.life.ends_at for plan in standing.plans),
        *(grant.expires_at for wallet in standing.wallets for grant in wallet.grants),
        standing.valid_from,
        standing.valid_to,
        quota.window.resets_at if quota else None,
    ]
    return min((each for each in moments if each is not None and each > now), default=None)


def _id(customer_id: UUID, name: str) -> str:
    return _PREFIX + encoded(customer_id.bytes + bytes.fromhex(name))


def _parsed(hold_id: str) -> tuple[str, str]:
    try:
        both = decoded(hold_id.removeprefix(_PREFIX), characters_max=HOLD_CHARACTERS)
    except ValueError:
        both = b""
    if len(both) != 32 or not hold_id.startswith(_PREFIX):
        raise NotFound("there is no hold with this id", field="hold")
    return str(UUID(bytes=both[:16])), both[16:].hex()
