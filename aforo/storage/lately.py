"""What was read a moment ago, so that a busy client's key is not looked up for every request.

An entry is good for half a second, and no longer once this process has committed a change of its
tenant in one of the tables that are watched. So a change counts at once where it was made, and
within half a second in every other process.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

KEPT_SECONDS = 0.5
ENTRIES_MAX = 10_000
_OF_CALLERS = {"api_key", "portal_token", "tenant", "api_policy", "persisted_document"}
_OF_INGESTION = {
    "meter",
    "cost_rate",
    "offering",
    "offering_entitlement",
    "entitlement",
    "rate_plan_line",
    "customer",
    "customer_key",
    "customer_alias",
    "team",
    "agent",
    "subscription",
}
WATCHED = frozenset(_OF_CALLERS | _OF_INGESTION)
"""Tables whose rows are kept."""

_KEPT = timedelta(seconds=KEPT_SECONDS)


class Mark(NamedTuple):
    """The moment before something is read: by this process, by the clock, and by its changes."""

    seconds: float
    now: datetime
    change: int


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    tenant_id: UUID
    mark: Mark


class _Changes:
    """When each tenant's watched rows were last changed here, counted over all tenants."""

    def __init__(self) -> None:
        self.count = 0
        self._last: OrderedDict[UUID, int] = OrderedDict()

    def note(self, tenant_id: UUID) -> None:
        self.count += 1
        self._last[tenant_id] = self.count
        self._last.move_to_end(tenant_id)
        if len(self._last) > ENTRIES_MAX:
            self._last.popitem(last=False)

    def last(self, tenant_id: UUID) -> int:
        return self._last.get(tenant_id, 0)


CHANGES = _Changes()
"""Of this process: whoever commits notes it here, whatever pool it came through."""


class Lately:
    """A bounded memory of what was read; the entry that was not asked for longest goes first."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._entries_max = entries_max

    def mark(self, now: datetime) -> Mark:
        """Take this before reading what is to be kept."""
        return Mark(time.monotonic(), now, CHANGES.count)

    def keep(self, key: Hashable, value: object, *, tenant_id: UUID, mark: Mark) -> None:
        """Remember what was read of a tenant after the mark."""
        self._entries[key] = _Entry(value, tenant_id, mark)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def find(self, key: Hashable, now: datetime) -> Any:
        """What was kept under the key, if it is still good; else None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        mark = entry.mark
        # Both clocks: the one of the application may be set, and moved in a sandbox.
        is_recent = time.monotonic() - mark.seconds < KEPT_SECONDS and abs(now - mark.now) < _KEPT
        if not is_recent or CHANGES.last(entry.tenant_id) > mark.change:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def last(self, key: Hashable) -> Any:
        """What was kept under the key, also if it is good for nothing any more but as a hint of
        what will be asked for next; else None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value
