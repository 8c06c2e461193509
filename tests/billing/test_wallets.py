"""Wallets on real engines: grants, debt, drawdowns, and no overdraft however many settle."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import col

from aforo.billing import queries
from aforo.billing.commands import create_wallet, grant_credit
from aforo.billing.models import InvoiceState, Wallet, WalletEntry, WalletGrant
from aforo.billing.settle import settle
from aforo.billing.wallets import draw, locked_wallets
from aforo.sdk import Conflict, Invalid, NotFound, TenantId, UnknownCurrency
from aforo.storage.clock import MovableClock
from aforo.storage.scope import Runtime
from aforo.storage.tables import new_id
from aforo.subscriptions.models import BillingMode
from tests.billing.trade import (
    DECEMBER,
    NOVEMBER,
    Buyer,
    RunJobs,
    Trade,
    bill_now,
    invoices_of,
    open_trade,
)

pytestmark = pytest.mark.anyio
D = Decimal


async def balance_of(runtime: Runtime, tenant_id: TenantId, wallet_id: UUID) -> Decimal:
    async with runtime.scope(tenant_id) as scope:
        return (await queries.wallet_balances(scope, [wallet_id]))[wallet_id]


async def entries(runtime: Runtime, tenant_id: TenantId) -> Sequence[WalletEntry]:
    async with runtime.scope(tenant_id) as scope:
        return (await scope.db.scalars(sa.select(WalletEntry).order_by(col(WalletEntry.id)))).all()


# mode | granted | from wallet | due | balance after
SETTLED = """
POSTPAID | 4  |  0.00 | 10.00 |   4
HYBRID   | 4  |  4.00 |  6.00 |   0
HYBRID   | 14 | 10.00 |  0.00 |   4
HYBRID   | 0  |  0.00 | 10.00 |   0
PREPAID  | 14 | 10.00 |  0.00 |   4
PREPAID  | 4  | 10.00 |  0.00 |  -6
PREPAID  | 0  | 10.00 |  0.00 | -10
"""


@pytest.mark.parametrize("row", SETTLED.strip().splitlines())
async def test_an_invoice_is_settled_by_billing_mode(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, row: str
) -> None:
    mode, granted, from_wallet, due, balance = (cell.strip() for cell in row.split("|"))
    buyer = Buyer(name="a", mode=BillingMode(mode), wallet=granted)
    trade = await open_trade(runtime, tenant_id, [buyer])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert invoice.state is InvoiceState.FINALIZED
    assert (str(invoice.from_wallet), str(invoice.amount_due)) == (from_wallet, due)
    assert await balance_of(runtime, tenant_id, trade.wallets["a"]) == D(balance)
    drawn = sum((one.amount for one in await entries(runtime, tenant_id)), D(0))
    assert drawn == invoice.from_wallet


async def test_a_prepaid_customer_without_a_wallet_gets_one_that_owes(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", mode=BillingMode.PREPAID)])
    await bill_now(runtime, tenant_id, run_jobs)
    async with runtime.scope(tenant_id) as scope:
        customer_id = trade.customers["a"]
        wallets = await queries.WALLETS_BY_CUSTOMER.pages(scope, [customer_id], first=10)
        (wallet,) = wallets[customer_id]
    assert await balance_of(runtime, tenant_id, wallet.id) == -10


async def test_the_next_grant_repays_the_debt_first(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    buyer = Buyer(name="a", mode=BillingMode.PREPAID, wallet="4")
    trade = await open_trade(runtime, tenant_id, [buyer])
    await bill_now(runtime, tenant_id, run_jobs)
    wallet_id = trade.wallets["a"]
    for amount, balance in ((D(2), -4), (D(10), 6)):
        async with runtime.scope(tenant_id) as scope:
            await grant_credit(scope, wallet_id=wallet_id, amount=amount)
        assert await balance_of(runtime, tenant_id, wallet_id) == balance
    async with runtime.scope(tenant_id) as scope:
        state = (await queries.wallet_states(scope, [wallet_id]))[wallet_id]
    assert state.debt == 0
    assert [grant.left for grant in state.grants] == [6]


async def test_an_expired_grant_is_not_drawn_and_no_part_of_the_balance(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    buyer = Buyer(name="a", mode=BillingMode.HYBRID, wallet="0", starts_at=NOVEMBER)
    trade = await open_trade(runtime, tenant_id, [buyer])
    wallet_id = trade.wallets["a"]
    async with runtime.scope(tenant_id) as scope:
        for amount, expires_at in ((D(5), DECEMBER), (D(3), DECEMBER + timedelta(seconds=1))):
            await grant_credit(scope, wallet_id=wallet_id, amount=amount, expires_at=expires_at)
    assert await balance_of(runtime, tenant_id, wallet_id) == 8
    clock.move_to(DECEMBER)
    assert await balance_of(runtime, tenant_id, wallet_id) == 3
    await bill_now(runtime, tenant_id, run_jobs, until=DECEMBER)
    (invoice,) = await invoices_of(runtime, tenant_id)
    assert (str(invoice.from_wallet), str(invoice.amount_due)) == ("3.00", "7.00")


async def test_a_draft_shows_what_would_be_drawn_and_draws_nothing(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    buyer = Buyer(name="a", mode=BillingMode.HYBRID, wallet="4", grace_seconds=3600)
    trade = await open_trade(runtime, tenant_id, [buyer])
    clock.move_to(NOVEMBER)
    await bill_now(runtime, tenant_id, run_jobs)
    (draft,) = await invoices_of(runtime, tenant_id)
    assert draft.state is InvoiceState.DRAFT
    assert (str(draft.from_wallet), str(draft.amount_due)) == ("4.00", "6.00")
    assert await entries(runtime, tenant_id) == []
    assert await balance_of(runtime, tenant_id, trade.wallets["a"]) == 4


async def test_invoices_of_one_run_share_one_wallet_in_their_order(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs, clock: MovableClock
) -> None:
    buyer = Buyer(name="a", mode=BillingMode.HYBRID, wallet="14")
    trade = await open_trade(runtime, tenant_id, [buyer])
    clock.move_to(DECEMBER)
    await bill_now(runtime, tenant_id, run_jobs, until=DECEMBER)
    assert [str(one.from_wallet) for one in await invoices_of(runtime, tenant_id)] == [
        "10.00",
        "4.00",
    ]
    assert await balance_of(runtime, tenant_id, trade.wallets["a"]) == 0


async def test_concurrent_settlements_never_overdraw(
    runtime: Runtime, tenant_id: TenantId, run_jobs: RunJobs
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", wallet="50")])
    await bill_now(runtime, tenant_id, run_jobs)
    (invoice,) = await invoices_of(runtime, tenant_id)
    purse = (trade.customers["a"], "USD")

    async def settled(amount: Decimal) -> Decimal:
        async with runtime.scope(tenant_id) as scope:
            held = (await locked_wallets(scope, [purse]))[purse]
            split = settle(amount, held.state, mode=BillingMode.HYBRID, at=scope.now)
            await draw(scope, held.wallet_id, invoice, split.draws)
            return split.from_wallet

    drawn = await asyncio.gather(*(settled(D(9)) for _ in range(10)))
    assert sorted(drawn) == [0, 0, 0, 0, 5, 9, 9, 9, 9, 9]
    assert await balance_of(runtime, tenant_id, trade.wallets["a"]) == 0


async def test_wallets_are_locked_in_one_order_whoever_asks(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    trade = await open_trade(
        runtime, tenant_id, [Buyer(name=name, wallet="1") for name in "abcdefgh"]
    )
    purses = [(customer_id, "USD") for customer_id in trade.customers.values()]

    async def lock(order: Sequence[Any]) -> None:
        async with runtime.scope(tenant_id) as scope:
            await locked_wallets(scope, order)

    # In the order in which they are asked for these would lock each other out.
    await asyncio.gather(*(lock(purses[:: 1 if turn % 2 else -1]) for turn in range(12)))


GRANTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"amount": D(0)}, Invalid, "amount"),
    ({"amount": D(-1)}, Invalid, "amount"),
    ({"amount": D("0.001")}, Invalid, "amount"),
    ({"amount": D("NaN")}, Invalid, "amount"),
    ({"amount": D("1E+30")}, Invalid, "amount"),
    ({"priority": 101}, Invalid, "priority"),
    ({"priority": -1}, Invalid, "priority"),
    ({"expires_at": NOVEMBER}, Invalid, "expiresAt"),
    ({"reference": ""}, Invalid, "reference"),
    ({"reference": "paid-1"}, Conflict, "reference"),
]


@pytest.mark.parametrize(("wrong", "error", "field"), GRANTS)
async def test_a_wrong_grant_is_refused_and_changes_nothing(
    runtime: Runtime,
    tenant_id: TenantId,
    wrong: dict[str, Any],
    error: type[Exception],
    field: str,
) -> None:
    trade: Trade = await open_trade(runtime, tenant_id, [Buyer(name="a", wallet="0")])
    wallet_id = trade.wallets["a"]
    async with runtime.scope(tenant_id) as scope:
        await grant_credit(scope, wallet_id=wallet_id, amount=D(7), reference="paid-1")
    with pytest.raises(error) as refused:
        async with runtime.scope(tenant_id) as scope:
            await grant_credit(scope, wallet_id=wallet_id, **({"amount": D(1)} | wrong))
    assert getattr(refused.value, "field", None) == field
    async with runtime.scope(tenant_id) as scope:
        assert len((await scope.db.scalars(sa.select(WalletGrant))).all()) == 1
    assert await balance_of(runtime, tenant_id, wallet_id) == 7


async def test_wrong_wallets_are_refused_and_change_nothing(
    runtime: Runtime, tenant_id: TenantId
) -> None:
    trade = await open_trade(runtime, tenant_id, [Buyer(name="a", wallet="0")])
    customer_id = trade.customers["a"]
    for arguments, error, field in (
        ({"customer_id": new_id(), "currency": "USD"}, NotFound, "customerId"),
        ({"customer_id": customer_id, "currency": "XXX"}, UnknownCurrency, "currency"),
        ({"customer_id": customer_id, "currency": "EUR", "name": " "}, Invalid, "name"),
        ({"customer_id": customer_id, "currency": "USD"}, Conflict, "currency"),
    ):
        with pytest.raises(error) as refused:
            async with runtime.scope(tenant_id) as scope:
                await create_wallet(scope, **arguments)  # type: ignore[arg-type]
        assert refused.value.field == field
    with pytest.raises(NotFound) as missing:
        async with runtime.scope(tenant_id) as scope:
            await grant_credit(scope, wallet_id=new_id(), amount=D(1))
    assert missing.value.field == "walletId"
    async with runtime.scope(tenant_id) as scope:
        assert len((await scope.db.scalars(sa.select(Wallet))).all()) == 1
