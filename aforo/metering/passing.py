"""How an event passed the first stages, step by step and in words. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from aforo.metering.trace import Found, Passage
from aforo.metering.validate import MeterRule, contribution, selects
from aforo.sdk.errors import Invalid
from aforo.stages.registry import StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one stage decided about an event."""

    stage: StageName
    passed: bool | None
    """None where the stage has not come to it, or not to an end."""
    decision: str
    """A stable name of it, such as `COUNTED`."""
    reason: str
    settings_version: int | None
    """Of the stage; None where it is not known."""
    at: datetime | None = None
    meter: str | None = None
    """Code of the meter that the step is about."""
    quantity: Decimal | None = None
    """What the event brings to that meter."""
    invoice_line_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What is known of how an event was taken."""

    passage: Passage | None
    """None for an event of before traces were kept."""
    at: datetime
    """When it was taken: when it was received, or released."""
    type: str
    has_cost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """What is known of an event that was, or is, quarantined."""

    passage: Passage | None
    code: str
    message: str
    received_at: datetime
    settled: str | None
    """`RELEASED` or `DISCARDED`; None while it waits."""
    settled_at: datetime | None
    settled_by: str | None


_REASONS = {
    Found.BY_CUSTOMER: "by the id of the customer that it names",
    Found.BY_ALIAS: "by an alias of the customer that was good at its moment",
    Found.BY_KEY: "by the API key that was good at its moment",
    Found.BY_CUSTOMER_AND_KEY: "by its customer, whose the API key was at its moment",
}
_OF_ENRICHMENT = frozenset({"KEY_UNKNOWN"})
LATER = (
    StageName.QUOTA_CHECK,
    StageName.AGGREGATION,
    StageName.RATING,
    StageName.DISCOUNTING,
    StageName.TAXATION,
    StageName.SETTLEMENT,
)


def taken(taking: Taking) -> list[Step]:
    """Stages 1 to 4 of an event that was accepted."""
    found = taking.passage.found if taking.passage else None
    is_timeless = taking.passage is not None and taking.passage.time_of_receipt
    whose = "" if found is None else f", {_REASONS[found]}"
    cost = "its cost is fixed" if taking.has_cost else "its cost is unknown: no meter has a rate"
    said: tuple[tuple[StageName, str, str], ...] = (
        (
            StageName.INGESTION,
            "TIME_OF_RECEIPT" if is_timeless else "WELL_FORMED",
            "it has the shape of an event"
            + ("; it says no time, so that of its receipt was taken" if is_timeless else ""),
        ),
        (
            StageName.VALIDATION,
            "VALID",
            f"its time is in the window, and a meter, a customer and a subscription are there for "
            f"{taking.type}",
        ),
        (StageName.DEDUPLICATION, "FIRST", "no event had come under its idempotencyKey before"),
        (
            StageName.ENRICHMENT,
            found.name if found else "PLACED",
            f"its customer and subscription were found{whose}; {cost}",
        ),
    )
    return [
        Step(
            stage=stage,
            passed=True,
            decision=decision,
            reason=reason,
            settings_version=_version(taking.passage, stage),
            at=taking.at,
        )
        for stage, decision, reason in said
    ]


def conflict(at: datetime, version: int) -> Step:
    """Another body came under the key of an event."""
    return Step(
        stage=StageName.DEDUPLICATION,
        passed=True,
        decision="CONFLICT",
        reason="another body was sent under its idempotencyKey; this one stands, that one is kept "
        "apart",
        settings_version=version,
        at=at,
    )


def set_aside(aside: Aside) -> Iterator[Step]:
    """How an event came into the quarantine, and out of it."""
    stage = StageName.ENRICHMENT if aside.code in _OF_ENRICHMENT else StageName.VALIDATION
    shaped = Step(
        stage=StageName.INGESTION,
        passed=True,
        decision="WELL_FORMED",
        reason="it has the shape of an event",
        settings_version=_version(aside.passage, StageName.INGESTION),
        at=aside.received_at,
    )
    held = Step(
        stage=StageName.DEDUPLICATION,
        passed=True,
        decision="FIRST",
        reason="no event had come under its idempotencyKey before; it holds the key",
        settings_version=_version(aside.passage, StageName.DEDUPLICATION),
        at=aside.received_at,
    )
    failed = Step(
        stage=stage,
        passed=False,
        decision=aside.code,
        reason=f"quarantined: {aside.message}",
        settings_version=_version(aside.passage, stage),
        at=aside.received_at,
    )
    yield shaped
    yield from (failed, held) if stage is StageName.VALIDATION else (held, failed)
    if aside.settled is not None:
        counts = aside.settled == "RELEASED"
        yield Step(
            stage=stage,
            passed=counts,
            decision=aside.settled,
            reason=f"{aside.settled.lower()} by {aside.settled_by}: "
            + ("it counts as of its own moment" if counts else "it never counts"),
            settings_version=None,
            at=aside.settled_at,
        )


def not_reached(stages: Sequence[StageName], reason: str) -> list[Step]:
    """Stages that an event has not come to."""
    return [
        Step(
            stage=stage,
            passed=None,
            decision="NOT_REACHED",
            reason=reason,
            settings_version=None,
        )
        for stage in stages
    ]


def counted(
    rules: Sequence[MeterRule], properties: Mapping[str, Any], *, version: int, at: datetime | None
) -> list[Step]:
    """Stage 6: which meters of its type count an event, with what, and which do not and why."""
    steps = []
    for rule in rules:
        decision, reason, quantity = _judged(rule, properties)
        steps.append(
            Step(
                stage=StageName.AGGREGATION,
                passed=quantity is not None,
                decision=decision,
                reason=f"meter {rule.code} {reason}",
                settings_version=version,
                at=at,
                meter=rule.code,
                quantity=quantity,
            )
        )
    return steps


def blocked(step: Step) -> Step:
    """A meter would count an event, but a quota blocks it."""
    reason = f"meter {step.meter} does not count it: a quota blocks it"
    return replace(step, passed=False, decision="BLOCKED", reason=reason, quantity=None)


def superseded(key: str, at: datetime, version: int, *, is_void: bool) -> Step:
    """Another event took the place of one, or voided it: it counts no more."""
    decision, what = ("VOIDED", "voided it") if is_void else ("AMENDED", "took its place")
    return Step(
        stage=StageName.AGGREGATION,
        passed=False,
        decision=decision,
        reason=f"the event {key} {what}: from the segment of that one on no meter counts it",
        settings_version=version,
        at=at,
    )


def _judged(rule: MeterRule, properties: Mapping[str, Any]) -> tuple[str, str, Decimal | None]:
    if not selects(rule, properties):
        names = ", ".join(name for name, _ in rule.filters)
        return "FILTERED", f"does not count it: its filter on {names} does not hold", None
    try:
        quantity = contribution(rule, properties)
    except Invalid as error:
        name = f"properties.{rule.property}"
        return "NOT_A_NUMBER", f"does not count it: {name} is no number ({error.message})", None
    if quantity is None:
        return "MISSING_PROPERTY", f"does not count it: properties.{rule.property} is missing", None
    what = rule.aggregation if rule.property is None else f"{rule.aggregation} of {rule.property}"
    return "COUNTED", f"counts it with {quantity:f} ({what})", quantity


def _version(passage: Passage | None, stage: StageName) -> int | None:
    return None if passage is None else passage.versions[stage]
