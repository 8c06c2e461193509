"""The one way in: whatever brought a batch of events, here it goes to ingestion."""

from collections.abc import Sequence

from aforo.metering.backfills import open_backfill
from aforo.metering.commands import ingest
from aforo.metering.telling import Source
from aforo.metering.verdicts import IngestAnswer
from aforo.sdk.ids import TenantId
from aforo.storage.faults import answered_within
from aforo.storage.scope import Runtime
from aforo.telemetry.metrics import EVENTS

INGESTION_TIMEOUT_SECONDS = 30.0


async def take(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[object],
    *,
    source: Source,
    atomic: bool = False,
    backfill: str | None = None,
) -> IngestAnswer:
    """Give decoded events their verdicts. What is accepted is durable by the time of the answer.

    `backfill` names the one that they are added to. Raises: `BatchRefused` where `atomic` is set
    and not every event is good; `NotFound` or `Conflict` for the backfill; `Unavailable`.
    """
    async with answered_within(INGESTION_TIMEOUT_SECONDS):  # The keys make it safe to send again.
        backfill_id = None
        if backfill is not None:
            async with runtime.scope(tenant_id) as scope:
                backfill_id = await open_backfill(scope, backfill)
        answer = await ingest(
            runtime, tenant_id, events, atomic=atomic, source=source, backfill_id=backfill_id
        )
    EVENTS.labels("accepted").inc(answer.accepted)
    EVENTS.labels("duplicate").inc(answer.duplicates)
    EVENTS.labels("conflict").inc(answer.conflicts)
    EVENTS.labels("rejected").inc(answer.rejected)
    EVENTS.labels("quarantined").inc(answer.quarantined)
    return answer
