"""Ingestion: every event of a batch gets its verdict, and the good ones are kept."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from aforo.metering.carrying import carry
from aforo.metering.deduplicate import KeyedEvent, keyed
from aforo.metering.ingest import key_of, read_event
from aforo.metering.known import known_now, known_of
from aforo.metering.prepare import Known, Prepared, in_backfill, prepare, uncertain
from aforo.metering.rounds import Batch
from aforo.metering.taking import BatchRefused, take
from aforo.metering.telling import Source, Told, outcomes
from aforo.metering.trace import beginning
from aforo.metering.validate import check_time
from aforo.metering.verdicts import IngestAnswer, Refusal, Stage, Verdict, rejected
from aforo.sdk.ids import TenantId
from aforo.stages.queries import remembered
from aforo.stages.registry import InForce
from aforo.storage.live_windows import Window
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.subscriptions.hierarchy import Hierarchy, hash_customer_key

__all__ = ["NOTHING", "BatchRefused", "ingest", "tell"]

VERDICTS = "verdicts"
"""The live stream of what becomes of events."""
NOTHING = Known({}, {}, Hierarchy({}, {}), {})


async def ingest(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[object],
    *,
    atomic: bool = False,
    source: Source = Source.INTERNAL,
    backfill_id: UUID | None = None,
) -> IngestAnswer:
    """Give every event of a decoded batch its verdict, and keep the good ones.

    What is accepted is durable by the time of the answer. In a backfill it counts once that is
    closed; there is no quarantine there, and nothing in it supersedes other events.

    Raises: `BatchRefused` where `atomic` is set and an event was rejected, in conflict or
    quarantined; `Unavailable`.
    """
    now = runtime.clock.now()
    stages = await remembered(runtime, tenant_id)
    verdicts: list[Verdict] = []
    prepared: list[Prepared] = []
    known = NOTHING
    items = _shaped(events, now, stages, verdicts)
    if backfill_id is not None:
        verdicts += [_ALONE.at(each.index, each.event.key) for each in items if each.corrects]
        items = [each for each in items if not each.corrects]
    if items:
        prepared, known = await _prepared(runtime, tenant_id, items, now, beginning(stages))
    if backfill_id is not None:
        prepared = [in_backfill(one, backfill_id) for one in prepared]
    batch = Batch(tenant_id, now, len(events), prepared, verdicts, backfill_id)
    try:
        if runtime.topic is None or backfill_id is not None:
            answer = await take(runtime, batch, atomic=atomic)
        else:
            answer = await carry(runtime, runtime.topic, batch, atomic=atomic)
    except BatchRefused as refused:
        tell(runtime, Told(batch, events, known, source, refused.answer, is_kept=False))
        raise
    tell(runtime, Told(batch, events, known, source, answer, is_kept=True))
    return answer


def tell(runtime: Runtime, told: Told) -> None:
    """Tell whoever watches ingestion live, after the request."""

    def say(window: Window) -> None:
        for outcome in outcomes(told):
            window.add(outcome.group, outcome.in_full)

    runtime.live.of(told.batch.tenant_id).tell(VERDICTS, len(told.sent), say)


def _shaped(
    events: Sequence[object], now: datetime, stages: InForce, verdicts: list[Verdict]
) -> list[KeyedEvent]:
    """Stage 1, and the time window of stage 2: what can be said without a look at the database."""
    requires_time = stages.ingestion.requires_occurred_at
    future = timedelta(seconds=stages.validation.future_seconds_max)
    age = timedelta(seconds=stages.validation.age_seconds_max)
    items = []
    for index, sent in enumerate(events):
        event = read_event(sent)
        if isinstance(event, Refusal):
            verdicts.append(event.at(index, key_of(sent)))
        elif event.occurred_at is None and requires_time:
            verdicts.append(_NO_TIME.at(index, event.key))
        elif event.occurred_at and (
            refusal := check_time(event.occurred_at, now, future=future, age=age)
        ):
            verdicts.append(refusal.at(index, event.key))
        else:
            items.append(keyed(index, event))
    return items


async def _prepared(
    runtime: Runtime, tenant_id: TenantId, items: Sequence[KeyedEvent], now: datetime, trace: str
) -> tuple[list[Prepared], Known]:
    """The events as far as they can be placed, and what was known of the tenant for it."""
    pepper = runtime.settings.key_pepper
    events = [item.event for item in items]
    key_hashes = {
        api_key: hash_customer_key(api_key, pepper=pepper)
        for api_key in {event.api_key for event in events if event.api_key}
    }
    event_ids = [new_id() for _ in items]
    known = await known_of(runtime, tenant_id, events, key_hashes)
    prepared = prepare(items, event_ids, known, key_hashes=key_hashes, now=now, trace=trace)
    if doubtful := uncertain(prepared):
        newer = await known_now(runtime, tenant_id, [item.event for item in doubtful], key_hashes)
        ids = {item.index: event_id for item, event_id in zip(items, event_ids, strict=True)}
        looked_at_again = prepare(
            doubtful,
            [ids[item.index] for item in doubtful],
            newer,
            key_hashes=key_hashes,
            now=now,
            trace=trace,
        )
        known = _both(known, newer)
        by_index = {one.item.index: one for one in looked_at_again}
        prepared = [by_index.get(one.item.index, one) for one in prepared]
    return prepared, known


def _both(known: Known, newer: Known) -> Known:
    """What was known of meters and customers, at first and then: for what is told of the events."""
    customers = {**known.hierarchy.customers, **newer.hierarchy.customers}
    return Known({**known.meters, **newer.meters}, {}, Hierarchy(customers, {}), {})


_ALONE = rejected(
    Stage.INGESTION,
    "BAD_VALUE",
    "an event of a backfill supersedes and voids no other: send it by itself, in no backfill",
)
_NO_TIME = rejected(
    Stage.INGESTION,
    "MISSING_FIELD",
    "occurredAt is missing, and the tenant requires it (stage INGESTION, requiresOccurredAt)",
)
