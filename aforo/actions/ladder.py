"""The ladder: which rungs a signal reaches, and what is decided on each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from aforo.actions.models import ActionMode, ActionState
from aforo.sdk import Level

STALENESS_LIMIT = timedelta(minutes=15)
"""Data older than this permits ALERT only."""
BLOCKS_PER_HOUR_MAX = 10
"""Blast radius: how many blocks of one tenant may be automatic within an hour."""
THROTTLE_PERCENT = 50
"""The share of the usual rate to which a throttled customer is lowered."""

_SHADOW: Mapping[Level, ActionMode] = dict.fromkeys(Level, ActionMode.SHADOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the ladder may do, and its limits. By default it only says what it would do."""

    modes: Mapping[Level, ActionMode] = field(default_factory=lambda: _SHADOW)
    staleness_limit: timedelta = STALENESS_LIMIT
    blocks_per_hour_max: int = BLOCKS_PER_HOUR_MAX
    throttle_percent: int = THROTTLE_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a decision goes by."""

    level: Level
    """How deep the signal goes."""
    data_age: timedelta | None
    """How old the data behind the signal is; None where nobody can say."""
    blocks_last_hour: int
    """Blocks of this tenant in the last hour, carried out or, in shadow, decided."""
    active_subscriptions: int
    """What a throttle or a block could act on."""
    notifiers: tuple[str, ...] = ()
    """Those that tell of it, beside the portal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided on one rung, also where it is not to act."""

    tier: Level
    mode: ActionMode
    state: ActionState
    acts: bool
    """Whether it acts; in shadow, whether it would have."""
    result: str


def climb(situation: Situation, policy: Policy) -> list[Decision]:
    """One decision for each rung up to the signal's level, the mildest first: a deeper breach
    includes the milder actions. Rungs above it are not reached, and nothing is decided on them.

    What may act is QUEUED; in shadow, and where the decision is not to act, it stays STANDBY.
    """
    return [_decide(tier, situation, policy) for tier in Level if tier <= situation.level]


def _decide(tier: Level, situation: Situation, policy: Policy) -> Decision:
    mode = policy.modes[tier]
    objection = _objection(tier, situation, policy)
    acts = not objection
    if mode is ActionMode.SHADOW:
        state = ActionState.STANDBY
        verb = "would have" if acts else "would not have"
        result = f"shadow: {verb} {_deed(tier, situation, policy)}"
    else:
        state = ActionState.QUEUED if acts else ActionState.STANDBY
        result = "queued" if acts else "does not act"
    return Decision(
        tier=tier,
        mode=mode,
        state=state,
        acts=acts,
        result=f"{result}: {objection}" if objection else result,
    )


def _objection(tier: Level, situation: Situation, policy: Policy) -> str:
    """Why not to act, or nothing."""
    if tier is Level.ALERT:
        return ""
    if situation.data_age is None:
        return "the age of the data is unknown, which permits ALERT only"
    if situation.data_age > policy.staleness_limit:
        return (
            f"the data is {_seconds(situation.data_age)} s old, more than the limit of "
            f"{_seconds(policy.staleness_limit)} s, which permits ALERT only"
        )
    if not situation.active_subscriptions:
        return "the customer has no active subscription"
    if tier is Level.BLOCK and situation.blocks_last_hour >= policy.blocks_per_hour_max:
        return (
            f"{situation.blocks_last_hour} blocks in the last hour reach the limit of "
            f"{policy.blocks_per_hour_max}"
        )
    return ""


def _deed(tier: Level, situation: Situation, policy: Policy) -> str:
    match tier:
        case Level.ALERT:
            by = ", ".join(situation.notifiers)
            return f"alerted in the portal and by {by}" if by else "alerted in the portal"
        case Level.THROTTLE:
            return f"lowered the customer's rate to {policy.throttle_percent} %"
        case Level.BLOCK:
            count = situation.active_subscriptions
            noun = "subscription" if count == 1 else "subscriptions"
            return f"suspended {count} {noun} and notified the customer"


def _seconds(age: timedelta) -> int:
    return int(age.total_seconds())
