"""Decides what follows from a signal, and records it: once, and also where nothing follows."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.actions import queries
from aforo.actions.ladder import Decision, Policy, Situation, climb
from aforo.actions.models import OrchestrationAction
from aforo.sdk import Level, NotFound, SubscriptionId
from aforo.signals.models import Signal
from aforo.storage.event_types import EventType
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id

LADDER = "ladder"
"""The actor of a decision that nobody but the ladder took."""

_BLAST_RADIUS = timedelta(hours=1)
_ONE_AT_A_TIME = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('aforo.ladder.' || :tenant_id, 0))"
)


async def act_on_signal(scope: Scope, signal_id: UUID) -> list[OrchestrationAction]:
    """Record the ladder's decision on every rung that the signal reaches; give the new rows.

    In this release the ladder runs in shadow: it records what it would have done, and does
    nothing. A second call for the same signal decides and writes nothing.

    Raises: `NotFound` for a signal that does not exist.
    """
    signal = await scope.db.scalar(sa.select(Signal).where(col(Signal.id) == signal_id))
    if signal is None:
        raise NotFound("there is no signal with this id", field="signalId")
    if signal.level >= Level.BLOCK:
        # Two blocks decided at once would each miss the other in the count.
        await scope.db.execute(_ONE_AT_A_TIME, {"tenant_id": str(scope.tenant_id)})
    policy = Policy()
    subscriptions = await queries.active_subscriptions(scope, signal.customer_id)
    situation = Situation(
        level=signal.level,
        data_age=await queries.data_age(scope, signal.watermark),
        blocks_last_hour=await queries.blocks_since(scope, scope.now - _BLAST_RADIUS),
        active_subscriptions=len(subscriptions),
    )
    configuration = _configuration(signal, situation, policy)
    rows = [
        _row(signal, decision, configuration, subscriptions, policy)
        for decision in climb(situation, policy)
    ]
    statement = insert(OrchestrationAction).on_conflict_do_nothing().returning(OrchestrationAction)
    recorded = list(await scope.db.scalars(statement, rows))
    for action in recorded:
        told = {
            "id": str(action.id),
            "customerId": str(action.customer_id),
            "signalId": str(action.signal_id),
        }
        scope.live.announce("actions", told)
    # By signal: what is decided about it arrives after it.
    await scope.publish_all(
        EventType.ACTION_RECORDED, [(signal.id, _published(action)) for action in recorded]
    )
    return recorded


def _published(action: OrchestrationAction) -> dict[str, Any]:
    return {
        "action": action.id,
        "signal": action.signal_id,
        "customer": action.customer_id,
        "tier": action.tier.name,
        "mode": action.mode.name,
        "state": action.state.name,
        "result": action.result,
    }


def _row(
    signal: Signal,
    decision: Decision,
    configuration: dict[str, Any],
    subscriptions: Sequence[SubscriptionId],
    policy: Policy,
) -> dict[str, Any]:
    before, after = _effect(decision.tier, signal, subscriptions, policy)
    return {
        "id": new_id(),
        "signal_id": signal.id,
        "customer_id": signal.customer_id,
        "tier": decision.tier,
        "sequence": 0,
        "mode": decision.mode,
        "state": decision.state,
        "actor": LADDER,
        "reason": f"{signal.threshold} of {signal.detector}: {signal.explanation}",
        "event_ids": signal.event_ids,
        "configuration": configuration,
        "before": before,
        "after": after if decision.acts else before,
        "result": decision.result,
    }


def _effect(
    tier: Level, signal: Signal, subscriptions: Sequence[SubscriptionId], policy: Policy
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a rung changes: how it is before the action, and how after it."""
    match tier:
        case Level.ALERT:
            return {"alerted": []}, {"alerted": ["slack", "email", "portal"]}
        case Level.THROTTLE:
            until = signal.period_end.isoformat()
            return {"throttle": None}, {
                "throttle": {"percent": policy.throttle_percent, "until": until}
            }
        case Level.BLOCK:
            return (
                {"subscriptions": {str(one): "ACTIVE" for one in subscriptions}},
                {"subscriptions": {str(one): "SUSPENDED" for one in subscriptions}},
            )


def _configuration(signal: Signal, situation: Situation, policy: Policy) -> dict[str, Any]:
    """All that the decision goes by, as it is now: settings, limits and measurements."""
    age = situation.data_age
    return {
        "detector": signal.detector,
        "settings": signal.settings,
        "modes": {tier.name: mode.value for tier, mode in policy.modes.items()},
        "stalenessLimitSeconds": int(policy.staleness_limit.total_seconds()),
        "blocksPerHourMax": policy.blocks_per_hour_max,
        "throttlePercent": policy.throttle_percent,
        "dataAgeSeconds": None if age is None else int(age.total_seconds()),
        "blocksLastHour": situation.blocks_last_hour,
        "watermark": signal.watermark,
    }
