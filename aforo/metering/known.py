"""What ingestion knows of a tenant, read once in a while and not for every batch.

What is found is good for half a second, and no longer once this process has changed it. What is
not found is looked for again each time: a customer may have been made a moment ago elsewhere, and
nobody is to be told that he is unknown because of what this process remembers.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from aforo.metering import queries
from aforo.metering.ingest import SentEvent
from aforo.metering.prepare import Known
from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.faults import answered_within
from aforo.storage.scope import Runtime, Scope
from aforo.storage.together import Bounds, Together
from aforo.subscriptions.hierarchy import AliasLife, Hierarchy, KeyLife
from aforo.subscriptions.queries import active_subscriptions, resolve

BOUNDS = Bounds(round_max=100, waiting_max=2_000)
"""In batches."""
NAMES_MAX = 500
"""Customers and keys that are looked for again before anybody names them."""
LOOK_UP_SECONDS_MAX = 10.0
"""A frozen engine must not hold up those who come once it is well again."""


@dataclass(slots=True)
class _Found:
    """What was found of one tenant."""

    meters: dict[str, Any] = field(default_factory=dict)
    rates: dict[Any, Any] = field(default_factory=dict)
    customers: dict[str, CustomerId] = field(default_factory=dict)
    keys: dict[bytes, KeyLife] = field(default_factory=dict)
    aliases: dict[str, AliasLife] = field(default_factory=dict)
    lives: dict[CustomerId, Any] = field(default_factory=dict)

    @property
    def known(self) -> Known:
        hierarchy = Hierarchy(self.customers, self.keys, self.aliases)
        return Known(self.meters, self.rates, hierarchy, self.lives)

    @property
    def names(self) -> "_Asked":
        """What it was found by, if that is not too much to be looked for all at once."""
        customers = frozenset(self.customers.keys() | self.aliases.keys())
        many = len(customers) + len(self.keys) > NAMES_MAX
        if many:
            return _Asked(frozenset(), frozenset(), frozenset())
        return _Asked(frozenset(self.meters), customers, frozenset(self.keys))

    def add(self, other: "_Found") -> None:
        self.meters |= other.meters
        self.rates |= other.rates
        self.lives |= other.lives
        self.keys |= other.keys
        self.customers |= other.customers
        self.aliases |= other.aliases


class _Asked(NamedTuple):
    """What some events name."""

    types: AbstractSet[str]
    customers: AbstractSet[str]
    key_hashes: AbstractSet[bytes]

    def beyond(self, found: _Found) -> "_Asked":
        return _Asked(
            self.types - found.meters.keys(),
            self.customers - found.customers.keys() - found.aliases.keys(),
            self.key_hashes - found.keys.keys(),
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found of one tenant since it was begun, and who looks for more."""

    found: _Found
    reads: Together[_Asked, _Found]
    """Requests that come at the same time ask the same."""
    wanted: list[_Asked]
    """What was asked for before, until it is looked for again."""


async def known_of(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[SentEvent],
    key_hashes: Mapping[str, bytes],
) -> Known:
    """What these events need, some of it as of half a second ago."""
    kept = _kept(runtime, tenant_id)
    asked = _asked(events, key_hashes).beyond(kept.found)
    if any(asked):
        # Together with what the next ones will ask for: one look instead of one for each.
        several = _all_of([asked, *kept.wanted])
        kept.wanted.clear()
        kept.found.add(await kept.reads.do(several))
    return kept.found.known


async def known_now(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[SentEvent],
    key_hashes: Mapping[str, bytes],
) -> Known:
    """What these events need, as it is now."""
    reads = _kept(runtime, tenant_id).reads
    return (await reads.do(_asked(events, key_hashes))).known


async def known_in(
    scope: Scope, events: Sequence[SentEvent], key_hashes: Mapping[str, bytes]
) -> Known:
    """What these events need, as a scope sees it."""
    return (await _look_up(scope, _asked(events, key_hashes))).known


def _kept(runtime: Runtime, tenant_id: TenantId) -> _Kept:
    name, now = ("ingestion", tenant_id), runtime.clock.now()
    kept: _Kept | None = runtime.lately.find(name, now)
    if kept is None:
        mark = runtime.lately.mark(now)
        reads = Together(partial(_read, runtime, tenant_id), bounds=BOUNDS, name="ingestion")
        last: _Kept | None = runtime.lately.last(name)
        kept = _Kept(_Found(), reads, [last.found.names] if last else [])
        runtime.lately.keep(name, kept, tenant_id=tenant_id, mark=mark)
    return kept


def _asked(events: Sequence[SentEvent], key_hashes: Mapping[str, bytes]) -> _Asked:
    return _Asked(
        {event.type for event in events if not event.is_void},
        {event.customer for event in events if event.customer},
        {key_hashes[event.api_key] for event in events if event.api_key},
    )


def _all_of(several: Sequence[_Asked]) -> _Asked:
    types, customers, key_hashes = zip(*several, strict=True)
    return _Asked(
        frozenset().union(*types),
        frozenset().union(*customers),
        frozenset().union(*key_hashes),
    )


async def _read(
    runtime: Runtime, tenant_id: TenantId, several: Sequence[_Asked]
) -> Sequence[_Found]:
    """What all of them ask for, which is given to each."""
    asked = _all_of(several)
    async with answered_within(LOOK_UP_SECONDS_MAX), runtime.scope(tenant_id) as scope:
        found = await _look_up(scope, asked)
    return [found] * len(several)


async def _look_up(scope: Scope, asked: _Asked) -> _Found:
    meters = await queries.meter_rules(scope, asked.types)
    rules = [rule for rules in meters.values() for rule in rules]
    rates = await queries.cost_rates(scope, rules)
    hierarchy = await resolve(scope, asked.customers, asked.key_hashes)
    lives = await active_subscriptions(scope, hierarchy.customer_ids)
    return _Found(
        meters=meters,
        rates=rates,
        customers=dict(hierarchy.customers),
        keys=dict(hierarchy.keys),
        aliases=dict(hierarchy.aliases),
        lives=dict(lives),
    )
