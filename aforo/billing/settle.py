"""Stage 10, settlement: how much of an invoice its wallet pays, and from which grants."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aforo.sdk import GrantId, exact
from aforo.subscriptions.models import BillingMode


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantLeft:
    """A credited lot of value, and what is left of it."""

    grant_id: GrantId
    priority: int
    """The lowest is drawn first."""
    expires_at: datetime | None
    """From this moment on it is worth nothing."""
    granted_at: datetime
    left: Decimal

    def is_live(self, at: datetime) -> bool:
        return self.left > 0 and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class WalletState:
    """A wallet at one moment."""

    grants: tuple[GrantLeft, ...] = ()
    debt: Decimal = Decimal(0)
    """What prepaid usage consumed beyond the grants, 0 or more."""

    def balance(self, at: datetime) -> Decimal:
        """What unexpired grants have left, less the debt."""
        with exact():
            live = sum((grant.left for grant in self.grants if grant.is_live(at)), Decimal(0))
            return live - self.debt


@dataclass(frozen=True, slots=True)
class Draw:
    """An amount above 0 that a grant gives, or, without a grant, that becomes debt."""

    grant_id: GrantId | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one total is paid: `from_wallet` + `amount_due` = the total."""

    from_wallet: Decimal
    amount_due: Decimal
    draws: tuple[Draw, ...]
    """They sum to `from_wallet`."""
    wallet: WalletState
    """The wallet afterwards."""


def settle(total: Decimal, wallet: WalletState, *, mode: BillingMode, at: datetime) -> Settlement:
    """Split a total of 0 or more between wallet and invoice.

    POSTPAID leaves the wallet alone. HYBRID draws what the live grants have, the rest is due.
    PREPAID draws all of it: what was consumed cannot be refused afterwards, so a shortfall becomes
    debt. Grants are drawn by priority, then earliest expiry, then oldest; expired ones never.
    """
    assert total >= 0, "an invoice is never below 0"
    if mode is BillingMode.POSTPAID:
        return Settlement(Decimal(0), total, (), wallet)
    with exact():
        grants, draws, rest = {grant.grant_id: grant for grant in wallet.grants}, [], total
        for grant in in_order(wallet.grants, at):
            amount = min(grant.left, rest)
            if amount:
                draws.append(Draw(grant.grant_id, amount))
                grants[grant.grant_id] = _drawn(grant, amount)
                rest -= amount
        debt = wallet.debt
        if mode is BillingMode.PREPAID and rest:
            draws.append(Draw(None, rest))
            debt, rest = debt + rest, Decimal(0)
        return Settlement(
            from_wallet=total - rest,
            amount_due=rest,
            draws=tuple(draws),
            wallet=WalletState(tuple(grants.values()), debt),
        )


def in_order(grants: Sequence[GrantLeft], at: datetime) -> list[GrantLeft]:
    """The live grants in the order in which they are drawn."""
    return sorted(
        (grant for grant in grants if grant.is_live(at)),
        # A grant without expiry comes after those that would be lost; ids settle the rest.
        key=lambda grant: (
            grant.priority,
            grant.expires_at is None,
            grant.expires_at or at,
            grant.granted_at,
            grant.grant_id,
        ),
    )


def repaid(debt: Decimal, granted: Decimal) -> Decimal:
    """How much of a new grant goes to the debt first."""
    return min(debt, granted)


def _drawn(grant: GrantLeft, amount: Decimal) -> GrantLeft:
    return GrantLeft(
        grant_id=grant.grant_id,
        priority=grant.priority,
        expires_at=grant.expires_at,
        granted_at=grant.granted_at,
        left=grant.left - amount,
    )
