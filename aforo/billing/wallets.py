"""Wallets: prepaid value credited in grants, drawn when invoices are finalised."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from aforo.billing.models import Invoice, Wallet, WalletEntry, WalletGrant
from aforo.billing.settle import Draw, GrantLeft, WalletState, repaid
from aforo.catalog.validate import check_text
from aforo.sdk import (
    Conflict,
    GrantId,
    Invalid,
    NotFound,
    currency_exponent,
    parse_rate,
    round_half_up,
)
from aforo.storage.event_types import EventType
from aforo.storage.rows import add_unique, one_of
from aforo.storage.scope import Scope
from aforo.storage.tables import new_id
from aforo.subscriptions.queries import customers_by_id

DEFAULT_NAME = "Wallet"
PRIORITY_MAX = 100

Purse = tuple[UUID, str]
"""Whose wallet in which currency: a customer has at most one."""


@dataclass(frozen=True, slots=True)
class Held:
    """A wallet with its state."""

    wallet_id: UUID
    state: WalletState


async def create_wallet(
    scope: Scope, *, customer_id: UUID, currency: str, name: str = DEFAULT_NAME
) -> Wallet:
    """Give a customer a wallet, one per currency.

    Raises: `Invalid`; `NotFound` for the customer; `Conflict` where there is one already.
    """
    currency_exponent(currency)
    check_text(name, field="name")
    if customer_id not in await customers_by_id(scope, [customer_id]):
        raise NotFound("there is no customer with this id", field="customerId")
    wallet = Wallet(customer_id=customer_id, currency=currency, name=name)
    taken = Conflict(
        f"the customer has a wallet in {currency} already; grant credit to that one",
        code="WALLET_EXISTS",
        field="currency",
    )
    await add_unique(scope, wallet, taken=taken)
    return wallet


async def grant_credit(
    scope: Scope,
    *,
    wallet_id: UUID,
    amount: Decimal,
    priority: int = 50,
    expires_at: datetime | None = None,
    reference: str | None = None,
) -> WalletGrant:
    """Credit a wallet with one lot of value, in its currency; a debt is repaid from it first.

    Grants of priority 0 are drawn first, those of 100 last. `reference` is the tenant's own name
    for the credit, such as a payment's id, under which a wallet is credited only once.
    Raises: `Invalid`; `NotFound`; `Conflict` for a reference that the wallet has.
    """
    wallet = await scope.db.scalar(
        sa.select(Wallet).where(col(Wallet.id) == wallet_id).with_for_update()
    )
    if wallet is None:
        raise NotFound("there is no wallet with this id", field="walletId")
    _check_amount(amount, wallet.currency)
    if not 0 <= priority <= PRIORITY_MAX:
        raise Invalid(f"a priority is 0 to {PRIORITY_MAX}, not {priority}", field="priority")
    if expires_at is not None and expires_at <= scope.now:
        raise Invalid(
            f"expiresAt is {expires_at.isoformat()}, which is not after now", field="expiresAt"
        )
    if reference is not None:
        check_text(reference, field="reference")
    states = await wallet_states(scope, [wallet_id])
    grant = WalletGrant(
        wallet_id=wallet_id,
        amount=amount,
        priority=priority,
        expires_at=expires_at,
        reference=reference,
    )
    taken_before = Conflict(
        f"the wallet was credited under the reference {reference!r} before, and only once",
        code="GRANT_REFERENCE_TAKEN",
        field="reference",
    )
    await add_unique(scope, grant, taken=taken_before)
    if taken := repaid(states[wallet_id].debt, amount):
        # What the grant gives, and what the debt falls by.
        scope.db.add(WalletEntry(wallet_id=wallet_id, grant_id=grant.id, amount=taken))
        scope.db.add(WalletEntry(wallet_id=wallet_id, amount=-taken))
        await scope.db.flush()
    await scope.tell_gates(wallet.customer_id)
    await scope.publish(
        EventType.WALLET_CREDITED,
        object_id=wallet_id,
        data={
            "wallet": wallet_id,
            "grant": grant.id,
            "customer": wallet.customer_id,
            "currency": wallet.currency,
            "amount": grant.amount,
            "expiresAt": grant.expires_at,
            "reference": grant.reference,
        },
    )
    return grant


async def wallet_states(scope: Scope, wallet_ids: Collection[UUID]) -> dict[UUID, WalletState]:
    """What each wallet holds and owes; grants that are used up are left out. Two statements."""
    drawn = sa.func.coalesce(sa.func.sum(col(WalletEntry.amount)), Decimal(0))
    rows = await scope.db.execute(
        sa.select(WalletGrant, col(WalletGrant.amount) - drawn)
        .outerjoin(
            WalletEntry,
            sa.and_(
                col(WalletEntry.grant_id) == col(WalletGrant.id),
                # The index is by wallet.
                col(WalletEntry.wallet_id) == col(WalletGrant.wallet_id),
            ),
        )
        .where(one_of(WalletGrant.wallet_id, wallet_ids))
        .group_by(col(WalletGrant.tenant_id), col(WalletGrant.id))
        .having(col(WalletGrant.amount) > drawn)
    )
    grants: dict[UUID, list[GrantLeft]] = defaultdict(list)
    for grant, left in rows:
        grants[grant.wallet_id].append(
            GrantLeft(
                grant_id=GrantId(grant.id),
                priority=grant.priority,
                expires_at=grant.expires_at,
                granted_at=grant.created_at,
                left=left,
            )
        )
    owed = await scope.db.execute(
        sa.select(col(WalletEntry.wallet_id), sa.func.sum(col(WalletEntry.amount)))
        .where(one_of(WalletEntry.wallet_id, wallet_ids), col(WalletEntry.grant_id).is_(None))
        .group_by(col(WalletEntry.wallet_id))
    )
    debts: dict[UUID, Decimal] = {row[0]: row[1] for row in owed}
    return {
        wallet_id: WalletState(tuple(grants[wallet_id]), debts.get(wallet_id, Decimal(0)))
        for wallet_id in wallet_ids
    }


async def locked_wallets(scope: Scope, purses: Collection[Purse]) -> dict[Purse, Held]:
    """The wallets that exist, locked until the transaction ends, with what they hold.

    Always locked in order of id, so that two settlements wait for each other and neither draws
    what the other has drawn. Read after the lock: what was committed before counts.
    """
    wallets = await scope.db.scalars(
        sa.select(Wallet)
        .where(one_of(Wallet.customer_id, {customer_id for customer_id, _ in purses}))
        .order_by(col(Wallet.id))
        .with_for_update()
    )
    held = {(wallet.customer_id, wallet.currency): wallet.id for wallet in wallets}
    mine = {purse: held[purse] for purse in purses if purse in held}
    states = await wallet_states(scope, list(mine.values()))
    return {purse: Held(wallet_id, states[wallet_id]) for purse, wallet_id in mine.items()}


async def open_wallets(scope: Scope, purses: Iterable[Purse]) -> None:
    """Make the wallets that do not exist yet: a debt needs a place."""
    rows = [
        {"id": new_id(), "customer_id": customer_id, "currency": currency, "name": DEFAULT_NAME}
        for customer_id, currency in sorted(set(purses))
    ]
    if rows:
        await scope.db.execute(insert(Wallet).on_conflict_do_nothing(), rows)


async def draw(scope: Scope, wallet_id: UUID, invoice: Invoice, draws: Sequence[Draw]) -> None:
    """Write the drawdowns of an invoice."""
    scope.db.add_all(
        WalletEntry(
            wallet_id=wallet_id, grant_id=each.grant_id, invoice_id=invoice.id, amount=each.amount
        )
        for each in draws
    )
    if draws:
        await scope.tell_gates(invoice.customer_id)


def _check_amount(amount: Decimal, currency: str) -> None:
    parse_rate(amount, field="amount")
    if amount <= 0:
        raise Invalid("a grant is above 0", field="amount")
    if round_half_up(amount, currency_exponent(currency)) != amount:
        raise Invalid(
            f"{amount:f} has more decimals than {currency}, "
            f"which has {currency_exponent(currency)}",
            field="amount",
        )
