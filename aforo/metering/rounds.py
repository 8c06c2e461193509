"""Stage 3 for several batches at once: whose event holds a key, which one supersedes which, and
what that says of the others. Pure: which keys were taken before is given."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from aforo.metering.deduplicate import KnownKey, seen_before
from aforo.metering.models import KeyState
from aforo.metering.prepare import Prepared
from aforo.metering.stored import hash_of_key, hour_of
from aforo.metering.superseding import Target, cannot_supersede
from aforo.metering.verdicts import IngestAnswer, Refusal, Verdict, VerdictKind, answer
from aforo.sdk.ids import TenantId


class Batch(NamedTuple):
    """What one request brought, all but the keys."""

    tenant_id: TenantId
    received_at: datetime
    received: int
    prepared: Sequence[Prepared]
    verdicts: Sequence[Verdict]
    """On the events that were refused before anything was looked up."""
    backfill_id: UUID | None = None
    """What its events are added to."""


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
        self.targets: dict[Key, str] = {}
        """What events here want to supersede, by their keys."""
        self.superseded: dict[Key, UUID] = {}
        """What is superseded from now on, by which event; once `settle` has said so."""
        self.given_up: list[Key] = []
        """Keys whose first event cannot supersede what it names, and does not hold them."""
        self.passed_on: dict[Key, Place] = {}
        """Of those keys, the ones that the next event holds which wanted them."""
        self._refused: list[tuple[int, Verdict]] = []
        for number, batch in enumerate(batches):
            for one in batch.prepared:
                self._sort(key_of(batch.tenant_id, one.item.key_hash), Place(number, one))

    def settle(self, known: Mapping[Key, KnownKey], targets: Mapping[Key, Target]) -> None:
        """Say which event supersedes which, one after the other as they came in. `targets` are
        those of `self.targets` that were taken before."""
        wanting: dict[Key, list[Place]] = {}
        for key, place in self.repeats:
            wanting.setdefault(key, []).append(place)
        here: dict[Key, Place] = {}
        for key in [key for key in self.firsts if key not in known]:
            places = [self.firsts[key], *wanting.get(key, ())]
            for place in places:
                verdict = self._supersede(place, targets, here)
                if verdict is None:
                    here[key] = place
                    break
                self._refused.append((place.batch, verdict))
            holder = here.get(key)
            if holder is places[0]:
                continue
            self.given_up.append(key)
            refused = places if holder is None else places[: places.index(holder) + 1]
            self.repeats = [each for each in self.repeats if each[1] not in refused]
            if holder is None:
                del self.firsts[key]
            else:
                self.firsts[key] = self.passed_on[key] = holder

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
        for number, verdict in self._refused:
            verdicts[number].append(verdict)
        return [
            answer(batch.received, spoken)
            for batch, spoken in zip(self._batches, verdicts, strict=True)
        ]

    def _supersede(
        self, place: Place, targets: Mapping[Key, Target], here: Mapping[Key, Place]
    ) -> Verdict | None:
        """Let an event supersede what it names; or say why it cannot."""
        name = place.one.item.event.supersedes
        if name is None:
            return None
        key = key_of(self._batches[place.batch].tenant_id, hash_of_key(name))
        target = targets.get(key)
        if target is None and key in here:
            target = _target_of(here[key].one, place.one)
        if target is not None and key in self.superseded:
            target = target._replace(superseded_by=self.superseded[key])
        verdict = cannot_supersede(place.one.item, target)
        if verdict is None:
            self.superseded[key] = place.one.event_id
        return verdict

    def _sort(self, key: Key, place: Place) -> None:
        target = place.one.item.event.supersedes
        if target is not None and place.one.takes_key:
            tenant_id = self._batches[place.batch].tenant_id
            self.targets[key_of(tenant_id, hash_of_key(target))] = target
        if key in self.firsts:
            self.repeats.append((key, place))
        elif place.one.takes_key:
            self.firsts[key] = place
        else:
            self.rejected.append((key, place))


def _target_of(first: Prepared, one: Prepared) -> Target | None:
    """An event that is taken together with the one that names it; None where it would reach the
    log after that, because another hour's come first."""
    if hour_of(first.received_at) > hour_of(one.received_at):
        return None
    if isinstance(first.result, Refusal):
        assert first.result.kind is VerdictKind.QUARANTINED, "what is rejected holds no key"
        return Target(first.event_id, KeyState.QUARANTINED, None)
    state = KeyState.VOID if first.result.is_void else KeyState.ACCEPTED
    return Target(first.event_id, state, None)


def _refused(one: Prepared, refusal: Refusal) -> Verdict:
    return refusal.at(one.item.index, one.item.event.key)
