"""Refusals in the audit log: what somebody tried and may not, once a minute for each kind."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from aforo.sdk.ids import TenantId
from aforo.storage.actors import Actor
from aforo.storage.audit import Outcome, Thing

if TYPE_CHECKING:
    from aforo.storage.scope import Runtime

TOLD_EVERY = timedelta(minutes=1)
REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class _Told:
    at: datetime
    untold: int = 0


@dataclass(frozen=True, slots=True)
class Refusals:
    """What this process has told lately; what is not told is counted in the next entry."""

    _told: OrderedDict[Hashable, _Told] = field(default_factory=OrderedDict)

    def note(
        self, runtime: "Runtime", tenant_id: TenantId, by: Actor, *, action: str, reason: str
    ) -> None:
        """Write an entry beside the request, unless the same was told within a minute."""
        key = (tenant_id, by.kind, by.id, action, reason)
        now = runtime.clock.now()
        last = self._told.get(key)
        if last is not None and timedelta() <= now - last.at < TOLD_EVERY:
            last.untold += 1
            return
        untold = 0 if last is None else last.untold

        async def write() -> None:
            async with runtime.scope(tenant_id, by) as scope:
                more = [Thing("Refusal", after={"untoldBefore": untold})] if untold else []
                await scope.record(action, *more, outcome=Outcome.REFUSED, reason=reason)

        if runtime.background.start(("refusal", *key), write):
            self._told[key] = _Told(now)
            self._told.move_to_end(key)
            while len(self._told) > REMEMBERED_MAX:
                self._told.popitem(last=False)
