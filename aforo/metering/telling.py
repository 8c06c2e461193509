"""What became of each event of a batch, for whoever watches ingestion live. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from aforo.metering.ingest import KEY_LENGTH_MAX, TYPE_LENGTH_MAX, wrong_text
from aforo.metering.prepare import Known, Prepared
from aforo.metering.rounds import Batch
from aforo.metering.stored import StoredEvent
from aforo.metering.validate import check_meters
from aforo.metering.verdicts import IngestAnswer, Refusal, Stage, Verdict, VerdictKind


class Source(StrEnum):
    """What brought an event."""

    JSON = "JSON"
    LINES = "LINES"
    CLOUD_EVENTS = "CLOUD_EVENTS"
    GRAPHQL = "GRAPHQL"
    IMPORT = "IMPORT"
    INTERNAL = "INTERNAL"


class Validation(StrEnum):
    """How far the second stage came with an event."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    NOT_REACHED = "NOT_REACHED"


class Told(NamedTuple):
    """A batch that has its answer."""

    batch: Batch
    sent: Sequence[object]
    """Its elements as they were decoded."""
    known: Known
    """What is sold to whom, as far as its events needed it."""
    source: Source
    answer: IngestAnswer
    is_kept: bool
    """Whether it was not an atomic batch that was refused."""


Group = tuple[str | None, str | None, str | None, str | None]
"""Verdict, product, customer and type: what events are counted and filtered by."""


class Outcome(NamedTuple):
    """What became of one event."""

    told: Told
    sent: object
    one: Prepared | None
    """None where it was refused for what it is in itself."""
    verdict: Verdict | None
    """None where it was accepted."""

    @property
    def group(self) -> Group:
        kind = VerdictKind.ACCEPTED if self.verdict is None else self.verdict.kind
        stored = self._stored
        if stored is not None:
            return (kind, str(stored.product_id), str(stored.customer_id), stored.type)
        customer_id = self.told.known.hierarchy.customers.get(self._text("customer") or "")
        placed = None if customer_id is None else str(customer_id)
        return (kind, None, placed, self._text("type"))

    def in_full(self) -> Mapping[str, Any]:
        """All that is shown of it, as plain values. Never a customer's API key."""
        kind, product_id, customer_id, type_ = self.group
        one, verdict, stored = self.one, self.verdict, self._stored
        accepted_id = one.event_id if one and kind in _KEPT else None
        event_id = accepted_id if verdict is None else verdict.event_id or accepted_id
        return {
            "receivedAt": self.told.batch.received_at,
            "verdict": kind,
            "source": self.told.source,
            "stage": verdict and verdict.stage,
            "code": verdict and verdict.code,
            "message": verdict and verdict.message,
            "validation": self._validation,
            "eventId": event_id,
            "idempotencyKey": one.item.event.key if one else verdict and verdict.idempotency_key,
            "type": type_,
            "customer": self._text("customer"),
            "customerId": customer_id,
            "teamId": stored and stored.team_id,
            "agentId": stored and stored.agent_id,
            "customerKeyId": stored and stored.customer_key_id,
            "subscriptionId": stored and stored.subscription_id,
            "productId": product_id,
            "meters": self._meters,
            "occurredAt": one and one.at,
            "properties": one and one.item.properties,
            "cost": None if stored is None or stored.cost is None else format(stored.cost, "f"),
            "costCurrency": (stored and stored.cost_currency) or None,
            "supersedes": one and one.item.event.supersedes,
            "isVoid": one is not None and one.item.event.is_void,
        }

    @property
    def _stored(self) -> StoredEvent | None:
        """Where it was placed; a void is nowhere."""
        result = self.one and self.one.result
        return result if isinstance(result, StoredEvent) and not result.is_void else None

    @property
    def _validation(self) -> Validation:
        one, verdict = self.one, self.verdict
        refusal = one.result if one and isinstance(one.result, Refusal) else None
        stage = refusal.stage if refusal else verdict.stage if verdict and not one else None
        if stage is Stage.INGESTION:
            return Validation.NOT_REACHED
        return Validation.FAILED if stage is Stage.VALIDATION else Validation.PASSED

    @property
    def _meters(self) -> list[str]:
        """The codes of the meters that count it, or would."""
        if self.one is None:
            return []
        event, meters = self.one.item.event, self.told.known.meters
        units = check_meters(event, meters)
        if isinstance(units, Refusal):
            return []
        return [rule.code for rule in meters[event.type] if rule.meter_id in units]

    def _text(self, name: str) -> str | None:
        """A text that the event names something by, if it is one that can be shown."""
        value = self.sent.get(name) if isinstance(self.sent, dict) else None
        return value if isinstance(value, str) and not wrong_text(value, _LENGTHS[name]) else None


def outcomes(told: Told) -> Iterator[Outcome]:
    """What became of each event, in the order in which they were sent."""
    prepared = {one.item.index: one for one in told.batch.prepared}
    verdicts = {verdict.index: verdict for verdict in told.answer.verdicts}
    ours = {one.event_id for one in told.batch.prepared} if not told.is_kept else frozenset()
    for index, sent in enumerate(told.sent):
        verdict = verdicts.get(index)
        if not told.is_kept:
            verdict = _given_back(index, prepared.get(index), verdict, ours)
        yield Outcome(told, sent, prepared.get(index), verdict)


def _given_back(
    index: int, one: Prepared | None, verdict: Verdict | None, ours: AbstractSet[UUID]
) -> Verdict:
    """The verdict on an event of an atomic batch of which nothing was kept: REJECTED, unless an
    event that was kept before has its key."""
    if verdict is None:
        assert one is not None, "only what was prepared can be accepted"
        return Verdict(
            index,
            one.item.event.key,
            VerdictKind.REJECTED,
            Stage.DEDUPLICATION,
            "BATCH_REFUSED",
            "the batch was atomic and not every event in it was good, so this one was not kept",
        )
    if verdict.event_id is not None and verdict.event_id not in ours:
        return verdict
    return Verdict(
        index,
        verdict.idempotency_key,
        VerdictKind.REJECTED,
        verdict.stage,
        verdict.code,
        verdict.message,
    )


_KEPT = {VerdictKind.ACCEPTED, VerdictKind.QUARANTINED}
_LENGTHS = {"customer": KEY_LENGTH_MAX, "type": TYPE_LENGTH_MAX}
