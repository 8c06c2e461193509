"""Decides what follows from a signal, and records it: once, and also where nothing follows."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.actions import queries
from aforo.actions.ladder import Decision, Policy, Situation, climb
from aforo.actions.models import NotifierSettings, OrchestrationAction
from aforo.actions.notify import Told, compose, sample, tell
from aforo.plugins.chosen import to_store
from aforo.sdk import Level, Message, NotFound, Notification, SubscriptionId
from aforo.signals.models import Signal
from aforo.storage.event_types import EventType
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.subscriptions.models import Customer

log = structlog.get_logger()

LADDER = "ladder"
"""The actor of a decision that nobody but the ladder took."""

PORTAL = "portal"
"""Where an alert is always shown, whatever notifiers there are."""

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
    news = await _news(scope, signal)
    situation = Situation(
        level=signal.level,
        data_age=await queries.data_age(scope, signal.watermark),
        blocks_last_hour=await queries.blocks_since(scope, scope.now - _BLAST_RADIUS),
        active_subscriptions=len(subscriptions),
        notifiers=tuple(each.notifier for each in news if each.message is not None),
    )
    configuration = _configuration(signal, situation, policy)
    rows = []
    for decision in climb(situation, policy):
        effect = _effect(
            decision.tier, signal, subscriptions=subscriptions, news=news, policy=policy
        )
        rows.append(_row(signal, decision, configuration, effect))
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


async def set_notifier(
    scope: Scope, *, notifier: str, enabled: bool, settings: Mapping[str, Any]
) -> NotifierSettings:
    """Turn a notifier on or off, with its settings, from now on.

    Raises: `NotFound` for the notifier; `Invalid` with the path of the setting that it refuses.
    """
    kind = scope.plugins.notifiers.get(notifier)
    if kind is None:
        known = ", ".join(sorted(scope.plugins.notifiers))
        raise NotFound(
            f"there is no notifier {notifier[:64]!r}; there are: {known}", field="notifier"
        )
    stored = to_store(kind, settings, what=f"the notifier {notifier!r}")
    row = NotifierSettings(notifier=notifier, enabled=enabled, settings=stored)
    scope.db.add(row)
    await scope.db.flush()
    return row


async def sample_message(scope: Scope, *, notifier: str) -> Message:
    """What a notifier, as it is set, makes of news that did not happen.

    Raises: `NotFound` where it was never set; `PluginError` where it fails.
    """
    rows = {row.notifier: row for row in await queries.notifiers_in_force(scope)}
    if notifier not in rows:
        raise NotFound(
            f"the notifier {notifier[:64]!r} has no settings: set it with setNotifier first",
            field="notifier",
        )
    return compose(scope.plugins, notifier, rows[notifier].settings, sample(scope.now))


async def _news(scope: Scope, signal: Signal) -> list[Told]:
    """What the notifiers that are on make of a signal."""
    chosen = [row for row in await queries.notifiers_in_force(scope) if row.enabled]
    if not chosen:
        return []
    customer = await scope.db.scalar(
        sa.select(Customer).where(col(Customer.id) == signal.customer_id)
    )
    assert customer is not None, "a foreign key holds it"
    news = Notification(
        id=str(signal.id),
        level=signal.level,
        title=f"{signal.threshold} of {signal.detector}",
        text=signal.explanation,
        customer=customer.external_id,
        customer_name=customer.name,
        at=signal.created_at,
        numbers={
            name: None if number is None else Decimal(number)
            for name, number in signal.numbers.items()
        },
    )
    outcomes = tell(scope.plugins, chosen, news)
    for each in outcomes:
        if each.failure is not None:
            log.error("a notifier failed", error=each.failure, signal_id=str(signal.id))
    return outcomes


def _row(
    signal: Signal,
    decision: Decision,
    configuration: dict[str, Any],
    effect: tuple[dict[str, Any], dict[str, Any]],
) -> dict[str, Any]:
    before, after = effect
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
    tier: Level,
    signal: Signal,
    *,
    subscriptions: Sequence[SubscriptionId],
    news: Sequence[Told],
    policy: Policy,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a rung changes: how it is before the action, and how after it."""
    match tier:
        case Level.ALERT:
            reached = [each.notifier for each in news if each.message is not None]
            return {"alerted": []}, {
                "alerted": [PORTAL, *reached],
                "messages": [each.as_json() for each in news],
            }
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
