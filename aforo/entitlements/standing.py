"""What is known of a customer at the gate, whenever it is asked: plans, restraints, wallets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from aforo.billing.settle import WalletState
from aforo.entitlements.models import RestraintKind
from aforo.metering.grants import QuotaGrant
from aforo.metering.windows import Life
from aforo.subscriptions.models import BillingMode


class Reason(StrEnum):
    """Why something is allowed, or is not."""

    OK = "OK"
    NOT_ENTITLED = "NOT_ENTITLED"
    LIMIT_REACHED = "LIMIT_REACHED"
    BLOCKED = "BLOCKED"
    THROTTLED = "THROTTLED"
    NO_BALANCE = "NO_BALANCE"
    UNKNOWN_CUSTOMER = "UNKNOWN_CUSTOMER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one subscription grants for as long as it lives."""

    life: Life
    mode: BillingMode
    features: frozenset[str] = frozenset()
    """Codes of its BOOLEAN entitlements."""
    meters: Mapping[str, UUID] = field(default_factory=dict)
    """Meters that it prices, by code."""
    quotas: tuple[QuotaGrant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A restraint."""

    kind: RestraintKind
    until: datetime | None
    percent: int | None = None
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    """Usual units per second, by the id of the meter."""

    def holds(self, at: datetime) -> bool:
        return self.until is None or at < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One customer, by any name, with what there is to decide by."""

    customer_id: UUID
    external_id: str
    version: str
    """Another one where anything of it is another."""
    plans: tuple[Plan, ...]
    restraints: tuple[InForce, ...]
    wallets: tuple[WalletState, ...]
    valid_from: datetime | None = None
    """Of the key by which the customer was named."""
    valid_to: datetime | None = None

    def is_named(self, at: datetime) -> bool:
        """Whether the name is good at a moment."""
        begun = self.valid_from is None or self.valid_from <= at
        return begun and (self.valid_to is None or at < self.valid_to)

    def restraint(self, kind: RestraintKind, at: datetime) -> InForce | None:
        found = (each for each in self.restraints if each.kind is kind and each.holds(at))
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Throttle:
    """A lowered rate."""

    rate_per_second: Decimal | None
    """None where nobody knows the usual one."""
    percent: int
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Entitled:
    """What the plans grant of what was asked for."""

    quota: QuotaGrant | None
    throttle: Throttle | None


def entitled(
    standing: Standing | None, *, feature: str | None, meter: str | None, at: datetime
) -> Entitled | Reason:
    """What a customer has of a feature or a meter; or why it may not use it, whatever it has used.

    Of several quotas the most generous counts: one without a limit before one that blocks, then
    the largest.
    """
    if standing is None or not standing.is_named(at):
        return Reason.UNKNOWN_CUSTOMER
    if standing.restraint(RestraintKind.BLOCK, at):
        return Reason.BLOCKED
    plans = [
        plan for plan in standing.plans if plan.life.contains(at) and _grants(plan, feature, meter)
    ]
    if not plans:
        return Reason.NOT_ENTITLED
    if any(plan.mode is BillingMode.PREPAID for plan in plans) and not any(
        wallet.balance(at) > 0 for wallet in standing.wallets
    ):
        return Reason.NO_BALANCE
    quotas = [each for plan in plans for each in plan.quotas if _is_about(each, feature, meter)]
    quota = max(quotas, key=lambda quota: quota.generosity, default=None)
    meters = {code: id_ for plan in plans for code, id_ in plan.meters.items()}
    meter_id = quota.meter.id if quota else meters.get(meter or "")
    return Entitled(quota, _throttle(standing, quota, meter_id, at))


def _grants(plan: Plan, feature: str | None, meter: str | None) -> bool:
    if feature is not None and feature in plan.features:
        return True
    if meter is not None and meter in plan.meters:
        return True
    return any(_is_about(each, feature, meter) for each in plan.quotas)


def _is_about(quota: QuotaGrant, feature: str | None, meter: str | None) -> bool:
    if feature is not None:
        return quota.entitlement.code == feature
    return quota.meter.code == meter


def _throttle(
    standing: Standing, quota: QuotaGrant | None, meter_id: UUID | None, at: datetime
) -> Throttle | None:
    found = standing.restraint(RestraintKind.THROTTLE, at)
    if found is None or found.percent is None:
        return None
    usual = quota.entitlement.rate_per_second if quota else None
    if usual is None and meter_id is not None:
        usual = found.rates.get(str(meter_id))
    lowered = None if usual is None else usual * found.percent / 100
    return Throttle(lowered, found.percent, found.until)
