"""What ingestion knows of a tenant, read once in a while and not for every batch.

What is found is good for half a second, and no longer once this process has changed it. What is
not found is looked for again each time: a customer may have been made a moment ago elsewhere, and
nobody is to be told that he is unknown because of what this process remembers.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aforo.metering import queries
from aforo.metering.ingest import SentEvent
from aforo.metering.prepare import Known
from aforo.sdk.ids import CustomerId, TenantId
from aforo.storage.scope import Runtime
from aforo.subscriptions.hierarchy import Hierarchy, KeyLife
from aforo.subscriptions.queries import active_subscriptions, resolve


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was found of one tenant since it was begun; it only grows."""

    meters: dict[str, Any] = field(default_factory=dict)
    rates: dict[Any, Any] = field(default_factory=dict)
    customers: dict[str, CustomerId] = field(default_factory=dict)
    keys: dict[bytes, KeyLife] = field(default_factory=dict)
    lives: dict[CustomerId, Any] = field(default_factory=dict)

    @property
    def known(self) -> Known:
        return Known(self.meters, self.rates, Hierarchy(self.customers, self.keys), self.lives)


class _Asked(NamedTuple):
    """What some events name."""

    types: AbstractSet[str]
    customers: AbstractSet[str]
    key_hashes: AbstractSet[bytes]

    def beyond(self, kept: _Kept) -> "_Asked":
        return _Asked(
            self.types - kept.meters.keys(),
            self.customers - kept.customers.keys(),
            self.key_hashes - kept.keys.keys(),
        )


async def known_of(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[SentEvent],
    key_hashes: Mapping[str, bytes],
) -> Known:
    """What these events need, some of it as of half a second ago."""
    name, now = ("ingestion", tenant_id), runtime.clock.now()
    kept: _Kept | None = runtime.lately.find(name, now)
    if kept is None:
        mark, kept = runtime.lately.mark(now), _Kept()
        runtime.lately.keep(name, kept, tenant_id=tenant_id, mark=mark)
    asked = _asked(events, key_hashes).beyond(kept)
    if any(asked):
        await _read(runtime, tenant_id, kept, asked)
    return kept.known


async def known_now(
    runtime: Runtime,
    tenant_id: TenantId,
    events: Sequence[SentEvent],
    key_hashes: Mapping[str, bytes],
) -> Known:
    """What these events need, as it is now."""
    kept = _Kept()
    await _read(runtime, tenant_id, kept, _asked(events, key_hashes))
    return kept.known


def _asked(events: Sequence[SentEvent], key_hashes: Mapping[str, bytes]) -> _Asked:
    return _Asked(
        {event.type for event in events},
        {event.customer for event in events if event.customer},
        {key_hashes[event.api_key] for event in events if event.api_key},
    )


async def _read(runtime: Runtime, tenant_id: TenantId, kept: _Kept, asked: _Asked) -> None:
    async with runtime.scope(tenant_id) as scope:
        meters = await queries.meter_rules(scope, asked.types)
        rules = [rule for rules in meters.values() for rule in rules]
        rates = await queries.cost_rates(scope, rules)
        hierarchy = await resolve(scope, asked.customers, asked.key_hashes)
        lives = await active_subscriptions(scope, hierarchy.customer_ids)
    # Only now, and all at once: whoever else looks meanwhile sees nothing half.
    kept.meters.update(meters)
    kept.rates.update(rates)
    kept.lives.update(lives)
    kept.keys.update(hierarchy.keys)
    kept.customers.update(hierarchy.customers)
