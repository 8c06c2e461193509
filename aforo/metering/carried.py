"""What a topic carries: accepted events, and those that come after one with the same key. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from aforo.metering.deduplicate import KeyedEvent
from aforo.metering.ingest import SentEvent
from aforo.metering.prepare import Prepared
from aforo.metering.rounds import Batch
from aforo.metering.stored import StoredEvent, hash_of_key, hour_of
from aforo.metering.verdicts import Refusal, Stage, rejected
from aforo.sdk.ids import TenantId


class Repeat(msgspec.Struct, frozen=True):
    """An event whose key one before it has, in the same batch: it is only to be counted."""

    event_id: UUID
    idempotency_key: str
    received_at: datetime
    properties: str
    """As canonical JSON: a conflict is shown with what it brought."""


class Carried(msgspec.Struct, frozen=True, array_like=True):
    """A record of the topic: an event or a repeat, its tenant, and the hash of what was sent."""

    tenant_id: UUID
    payload_hash: bytes
    event: StoredEvent | None
    repeat: Repeat | None = None


class UnreadableRecordError(Exception):
    """A record of the topic that was not written here."""


def record_of(tenant_id: UUID, one: Prepared, *, is_repeat: bool) -> tuple[bytes, bytes]:
    """The key and the value of a record. All events under one key go to one partition, in order."""
    item = one.item
    if is_repeat:
        repeat = Repeat(one.event_id, item.event.key, one.received_at, item.properties)
        carried = Carried(tenant_id, item.payload_hash, None, repeat)
    else:
        assert isinstance(one.result, StoredEvent), "only what is accepted is carried"
        carried = Carried(tenant_id, item.payload_hash, one.result)
    return tenant_id.bytes + item.key_hash, _encode(carried)


def read(value: bytes) -> Carried:
    """Raises: `UnreadableRecordError`."""
    try:
        carried = _decode(value)
    except msgspec.DecodeError as error:
        raise UnreadableRecordError(f"no event can be read: {error}") from error
    if (carried.event is None) is (carried.repeat is None):
        raise UnreadableRecordError("it holds neither an event nor a repeat")
    return carried


def batches_of(several: Iterable[Carried]) -> list[Batch]:
    """Batches as requests bring them, one for each tenant and hour of receipt, in order."""
    together: dict[tuple[UUID, datetime], list[Prepared]] = defaultdict(list)
    for carried in several:
        received_at = (carried.event or carried.repeat).received_at  # type: ignore[union-attr]
        prepared = together[carried.tenant_id, hour_of(received_at)]
        prepared.append(_prepared(carried, len(prepared)))
    return [
        Batch(TenantId(tenant_id), prepared[0].received_at, len(prepared), prepared, ())
        for (tenant_id, _), prepared in together.items()
    ]


def _prepared(carried: Carried, index: int) -> Prepared:
    stored, repeat = carried.event, carried.repeat
    if stored is not None:
        event = SentEvent(stored.idempotency_key, stored.type, None, None, stored.occurred_at, {})
        item = _keyed(index, event, stored.properties, carried.payload_hash)
        at, received_at = stored.occurred_at, stored.received_at
        return Prepared(item, stored.event_id, at, received_at, None, stored)
    assert repeat is not None, "it was looked at when it was read"
    event = SentEvent(repeat.idempotency_key, "", None, None, None, {})
    item = _keyed(index, event, repeat.properties, carried.payload_hash)
    return Prepared(item, repeat.event_id, repeat.received_at, repeat.received_at, None, _LATE)


def _keyed(index: int, event: SentEvent, properties: str, payload_hash: bytes) -> KeyedEvent:
    return KeyedEvent(index, event, properties, hash_of_key(event.key), payload_hash)


def decided_otherwise(batch: Batch, indexes: Sequence[int]) -> list[Prepared]:
    """Those events of a batch of which the sender was told that they are accepted."""
    return [
        one for index in indexes if isinstance((one := batch.prepared[index]).result, StoredEvent)
    ]


_LATE: Refusal = rejected(
    Stage.DEDUPLICATION, "FIRST_IS_GONE", "the first event of its key was discarded since"
)
_encode = msgspec.msgpack.Encoder(decimal_format="string").encode
_decode = msgspec.msgpack.Decoder(Carried).decode
