"""Fires signals, each once, and changes what the detectors go by."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.sdk import Detection, Detector, Invalid, NotFound, PluginError
from aforo.signals import queries
from aforo.signals.evidence import Case
from aforo.signals.judge import (
    as_numbers,
    ask,
    configured,
    detector_kind,
    is_news,
    named,
    outside_names,
    settled,
    snapshot,
)
from aforo.signals.models import DetectorSettings, Signal
from aforo.storage.event_types import EventType
from aforo.storage.jobs import JobName
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.subscriptions.models import Customer

_ONE_AT_A_TIME = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('aforo.signals.' || :tenant_id, 0))"
)

log = structlog.get_logger()


async def detect(
    scope: Scope, customer_ids: Sequence[UUID], watermark: int, *, detector: str | None = None
) -> list[Signal]:
    """Ask every detector, or only `detector`, about these customers; give what fired now.

    Of events, those up to the segment `watermark` count. A signal is fired once, whoever asks
    again and however many ask at once: its identity is a unique key, and its action's job and
    its live message go with the row. A detector that fails gets a job of its own, which fails
    with its name, so that the others' signals stand.

    Raises: `PluginError` where the one detector that was asked fails.
    """
    keys = [detector] if detector is not None else sorted(scope.plugins.detectors)
    signals: list[Signal] = []
    for key in keys:
        try:
            signals += await _detect_by(scope, key, customer_ids, watermark)
        except PluginError as error:
            if len(keys) == 1:
                raise
            log.warning("a detector failed, and is asked again alone", error=str(error))
            # While one such job waits, the next are dropped: a detector that is broken for good
            # must not fill the queue, and one that recovers sees its customers' next events.
            await scope.enqueue(
                JobName.DETECT_SIGNALS,
                unique_key=f"detector {key}",
                customer_ids=[str(customer_id) for customer_id in customer_ids],
                watermark=watermark,
                detector=key,
            )
    return signals


async def set_detector_settings(
    scope: Scope, *, detector: str, settings: Mapping[str, Any], customer_id: UUID | None = None
) -> DetectorSettings:
    """Choose settings of a detector for all customers, or for one, whose settings win one by one.

    They replace what was chosen at that level before; what is left out comes from the level
    above, and at last from the detector's defaults. Signals that have fired stay as they are.

    Raises: `NotFound` for a detector or customer that does not exist; `Invalid` where the
    settings do not fit the detector, do not go together with those of the other level, or
    break the detector (code `PLUGIN_ERROR`).
    """
    if detector not in scope.plugins.detectors:
        raise NotFound(f"there is no detector {detector[:64]!r}", field="detector")
    if customer_id is not None:
        found = await scope.db.scalar(sa.select(Customer).where(col(Customer.id) == customer_id))
        if found is None:
            raise NotFound("there is no customer with this id", field="customerId")
    own = outside_names(scope.plugins.detectors[detector], settings)
    try:
        whole = await _checked(scope, detector, own, customer_id)
        stored = snapshot(scope.plugins, whole)
    except PluginError as error:
        raise Invalid(
            f"{error}; report it to the plugin's maker, or choose other settings",
            code="PLUGIN_ERROR",
            field="settings",
        ) from error
    row = DetectorSettings(
        detector=detector,
        customer_id=customer_id,
        settings={name: value for name, value in stored.items() if name in own},
    )
    scope.db.add(row)
    await scope.db.flush()
    return row


async def _detect_by(
    scope: Scope, key: str, customer_ids: Sequence[UUID], watermark: int
) -> list[Signal]:
    # First all answers, then the writes: a detector that fails has fired nothing.
    kind = detector_kind(scope.plugins, key)
    cases = await queries.cases(
        scope, kind.evidence, customer_ids=customer_ids, watermark=watermark
    )
    if cases is None:
        raise PluginError(
            f"{named(scope.plugins, key)} wants evidence of the class "
            f"{kind.evidence.__name__}, which nothing in this release builds"
        )
    chosen = await queries.settings_in_force(scope, key, {case.customer_id for case in cases})
    judged = []
    for case in cases:
        judge = _judge_of(scope, key, case, chosen)
        if judge is None:
            continue
        if (detection := ask(scope.plugins, judge, case.evidence)) is not None:
            judged.append((case, judge, detection))

    if judged:
        # Two who judge different moments at once must not fire a mild breach behind a deep one.
        await scope.db.execute(_ONE_AT_A_TIME, {"tenant_id": str(scope.tenant_id)})
    fired = await queries.fired(scope, key, [case for case, _, _ in judged])
    signals = []
    for case, judge, detection in judged:
        before = fired.get((case.customer_id, case.subject, case.period.start), [])
        if is_news(detection, before):
            signal = await _fire(scope, case, judge, detection, watermark=watermark)
            signals += [signal] if signal is not None else []
    return signals


def _judge_of(
    scope: Scope, key: str, case: Case, chosen: Mapping[UUID | None, Mapping[str, Any]]
) -> Detector[Any] | None:
    """The detector as it is set for this case; None where a setting that it needs is missing."""
    levels = [chosen[level] for level in (None, case.customer_id) if level in chosen]
    if not levels and any(
        field.is_required() for field in scope.plugins.detectors[key].model_fields.values()
    ):
        return None
    try:
        return configured(scope.plugins, key, *levels)
    except Invalid as error:  # They fitted when they were saved; the plugin has changed since.
        raise PluginError(
            f"{named(scope.plugins, key)} refuses the settings saved for customer "
            f"{case.customer_id}: {error.field}: {error.message}; save them anew"
        ) from error


async def _fire(
    scope: Scope, case: Case, judge: Detector[Any], detection: Detection, *, watermark: int
) -> Signal | None:
    """Write the signal with all that follows from it, unless another worker was first."""
    events = await queries.events_behind(scope, case, watermark=watermark)
    row = insert(Signal).values(
        id=new_id(),
        detector=judge.key,
        customer_id=case.customer_id,
        subject=case.subject,
        threshold=detection.threshold,
        period_start=case.period.start,
        period_end=case.period.end,
        level=detection.level,
        value=None if detection.value is None else settled(detection.value),
        limit=None if detection.limit is None else settled(detection.limit),
        numbers=as_numbers(detection),
        explanation=detection.explanation,
        event_ids=events.ids,
        event_count=events.count,
        watermark=watermark,
        settings=snapshot(scope.plugins, judge),
    )
    signal: Signal | None = await scope.db.scalar(
        row.on_conflict_do_nothing(constraint="signal_identity").returning(Signal)
    )
    if signal is None:
        return None
    await scope.enqueue(JobName.ACT_ON_SIGNAL, unique_key=str(signal.id), signal_id=str(signal.id))
    told = {
        "id": str(signal.id),
        "customerId": str(signal.customer_id),
        "detector": signal.detector,
        "level": signal.level.name,
    }
    scope.live.announce("signals", told)
    await scope.publish(EventType.SIGNAL_FIRED, object_id=signal.id, data=_published(signal))
    return signal


def _published(signal: Signal) -> dict[str, Any]:
    return {
        "signal": signal.id,
        "customer": signal.customer_id,
        "detector": signal.detector,
        "subject": signal.subject,
        "threshold": signal.threshold,
        "level": signal.level.name,
        "value": signal.value,
        "limit": signal.limit,
        "periodStart": signal.period_start,
        "periodEnd": signal.period_end,
        "explanation": signal.explanation,
    }


async def _checked(
    scope: Scope, key: str, settings: Mapping[str, Any], customer_id: UUID | None
) -> Detector[Any]:
    """The detector with the new settings, which must go together with those of other levels."""
    if customer_id is not None:
        chosen = await queries.settings_in_force(scope, key, {customer_id})
        return configured(scope.plugins, key, chosen.get(None, {}), settings)
    whole = configured(scope.plugins, key, settings)
    chosen = await queries.settings_in_force(scope, key)
    for other, own in chosen.items():
        if other is None:
            continue
        try:
            configured(scope.plugins, key, settings, own)
        except Invalid as error:
            raise Invalid(
                f"they do not go together with the settings of customer {other}: {error.message}",
                field=error.field,
            ) from error
    return whole
