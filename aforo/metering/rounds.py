"""Stage 3 for several batches at once: whose event holds a key, and what that says of the others.
Pure: which keys were taken before is given."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from aforo.metering.deduplicate import KnownKey, seen_before
from aforo.metering.prepare import Prepared
from aforo.metering.verdicts import IngestAnswer, Refusal, Verdict, answer
from aforo.sdk.ids import TenantId


class Batch(NamedTuple):
    """What one request brought, all but the keys."""

    tenant_id: TenantId
    received_at: datetime
    received: int
    prepared: Sequence[Prepared]
    verdicts: Sequence[Verdict]
    """On the events that were refused before anything was looked up."""


class Place(NamedTuple):
    """An event in the batches of a transaction."""

    batch: int
    one: Prepared


Key = bytes
"""Of an event among those of all tenants: its tenant's id and the hash of its key."""


def key_of(tenant_id: UUID, key_hash: bytes) -> Key:
    return tenant_id.bytes + key_hash


class SortedOut:
    """The events of several batches by what their keys have to say of them."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self.firsts: dict[Key, Place] = {}
        """The first event here that wants to hold each key."""
        self.repeats: list[tuple[Key, Place]] = []
        """Events whose key one before them wants."""
        self.rejected: list[tuple[Key, Place]] = []
        """What is wrong in itself; but who sends a known key again is told that it is known."""
        for number, batch in enumerate(batches):
            for one in batch.prepared:
                self._sort(key_of(batch.tenant_id, one.item.key_hash), Place(number, one))

    def kept(self, known: Mapping[Key, KnownKey]) -> list[tuple[UUID, Prepared]]:
        """The events that hold their keys now, with their tenants, in the order they came in."""
        tenants = [batch.tenant_id for batch in self._batches]
        return [
            (tenants[number], one) for key, (number, one) in self.firsts.items() if key not in known
        ]

    def answers(self, known: Mapping[Key, KnownKey]) -> list[IngestAnswer]:
        """The answer to each batch, where these keys were taken before."""
        verdicts = [list(batch.verdicts) for batch in self._batches]
        for key, (number, one) in self.firsts.items():
            if key in known:
                verdicts[number].append(seen_before(one.item, known[key]))
            elif isinstance(one.result, Refusal):
                verdicts[number].append(_refused(one, one.result))
        for key, (number, one) in self.repeats:
            first = self.firsts[key].one
            holder = known.get(key) or KnownKey(first.event_id, first.item.payload_hash)
            verdicts[number].append(seen_before(one.item, holder))
        for key, (number, one) in self.rejected:
            assert isinstance(one.result, Refusal), "it was sorted by that"
            verdict = seen_before(one.item, known[key]) if key in known else None
            verdicts[number].append(verdict or _refused(one, one.result))
        return [
            answer(batch.received, spoken)
            for batch, spoken in zip(self._batches, verdicts, strict=True)
        ]

    def _sort(self, key: Key, place: Place) -> None:
        if key in self.firsts:
            self.repeats.append((key, place))
        elif place.one.takes_key:
            self.firsts[key] = place
        else:
            self.rejected.append((key, place))


def _refused(one: Prepared, refusal: Refusal) -> Verdict:
    return refusal.at(one.item.index, one.item.event.key)
