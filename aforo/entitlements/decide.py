"""What is answered at the gate: yes or no, why, and for how long that may be believed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aforo.catalog.models import QuotaPolicy, WhenUnavailable
from aforo.entitlements.standing import Reason, Throttle
from aforo.metering.grants import QuotaInForce
from aforo.metering.quota import QuotaUse

SETTLED_SECONDS = 60
"""What changes only when somebody is told of it."""
SPENDABLE_SECONDS = 5
"""What usage changes, while there is much left, and what may come back."""
PLENTY = Decimal("0.1")
"""The share of a limit that is much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Units that are held for usage to come."""

    id: str
    state: str
    quantity: Decimal
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An answer."""

    reason: Reason
    customer: str | None = None
    """The tenant's own id of whom it is about; None for one that is not known."""
    version: str = ""
    use: QuotaUse | None = None
    resets_at: datetime | None = None
    throttle: Throttle | None = None
    degraded: bool = False
    max_age_seconds: int = SETTLED_SECONDS
    hold: Held | None = None

    @property
    def allowed(self) -> bool:
        return self.reason is Reason.OK


def has_room(quota: QuotaInForce, use: QuotaUse, quantity: Decimal) -> bool:
    """Whether so much more is allowed: the 100th unit of 100 is, the 101st only as overage."""
    return quota.entitlement.policy is not QuotaPolicy.BLOCK or use.used + quantity <= use.limit


def without_tallies(quota: QuotaInForce, last: QuotaUse | None, quantity: Decimal) -> Reason:
    """What is answered where nobody can say how much was used: by what was known last of a quota
    that is open, and no for one that is closed."""
    if quota.entitlement.when_unavailable is WhenUnavailable.CLOSED:
        return Reason.LIMIT_REACHED
    if last is not None and not has_room(quota, last, quantity):
        return Reason.LIMIT_REACHED
    return Reason.OK


def max_age_seconds(
    reason: Reason,
    quota: QuotaInForce | None,
    use: QuotaUse | None,
    *,
    throttled: bool,
    changes_at: datetime | None,
    now: datetime,
) -> int:
    """For how long an answer may be used again for the same question, unless it is called off."""
    if throttled and reason in {Reason.OK, Reason.THROTTLED}:
        return 0  # The rate is counted here.
    seconds = SETTLED_SECONDS
    if reason in {Reason.LIMIT_REACHED, Reason.UNKNOWN_CUSTOMER}:
        seconds = SPENDABLE_SECONDS
    elif quota is not None and use is not None and quota.entitlement.policy is QuotaPolicy.BLOCK:
        seconds = SPENDABLE_SECONDS if use.remaining > use.limit * PLENTY else 0
    if changes_at is not None:
        seconds = min(seconds, max(int((changes_at - now).total_seconds()), 0))
    return seconds
