"""Whether an event may take the place of another one, or void it: each is superseded once. Pure."""

from typing import NamedTuple
from uuid import UUID

from aforo.metering.deduplicate import KeyedEvent
from aforo.metering.models import KeyState
from aforo.metering.verdicts import Stage, Verdict, VerdictKind


class Target(NamedTuple):
    """The event that another one is to supersede."""

    event_id: UUID
    state: KeyState
    superseded_by: UUID | None


def cannot_supersede(item: KeyedEvent, target: Target | None) -> Verdict | None:
    """Why an event cannot supersede what it names, or None where it can. `target` is None where
    no event holds that key."""
    name = item.event.supersedes
    if target is None:
        return _refused(
            item,
            "UNKNOWN_EVENT",
            f"no event with the idempotencyKey {name} was accepted in the last 97 days",
        )
    if target.superseded_by is not None:
        return _refused(
            item,
            "ALREADY_SUPERSEDED",
            f"another event took the place of {name} before, or voided it; that one stands, and "
            "may be superseded itself",
            kind=VerdictKind.CONFLICT,
            event_id=target.superseded_by,
        )
    match target.state:
        case KeyState.QUARANTINED:
            return _refused(
                item,
                "EVENT_QUARANTINED",
                f"{name} is quarantined and does not count: correct or discard it there",
            )
        case KeyState.VOID:
            return _refused(
                item,
                "EVENT_IS_VOID",
                f"{name} voids an event and stands; send what is to count as a new event",
            )
        case KeyState.ACCEPTED:
            return None


def _refused(
    item: KeyedEvent,
    code: str,
    message: str,
    *,
    kind: VerdictKind = VerdictKind.REJECTED,
    event_id: UUID | None = None,
) -> Verdict:
    return Verdict(
        index=item.index,
        idempotency_key=item.event.key,
        kind=kind,
        stage=Stage.DEDUPLICATION,
        code=code,
        message=message,
        event_id=event_id,
    )
