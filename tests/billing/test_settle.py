"""Stage 10: the split between wallet and invoice, and the order of the grants."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aforo.billing.settle import Draw, GrantLeft, WalletState, in_order, repaid, settle
from aforo.sdk import GrantId
from aforo.subscriptions.models import BillingMode

D = Decimal
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def grant(number: int, left: str | Decimal, **options: object) -> GrantLeft:
    values: dict[str, object] = {"priority": 50, "expires_at": None, "granted_at": NOW - 30 * DAY}
    return GrantLeft(
        grant_id=GrantId(UUID(int=number)),
        left=D(left),
        **(values | options),  # type: ignore[arg-type]
    )


# mode | total | left in the wallet | from wallet | due | debt
SPLITS = """
POSTPAID | 100.00 |  30 |   0.00 | 100.00 |  0.00
HYBRID   | 100.00 |  30 |  30.00 |  70.00 |  0.00
HYBRID   | 100.00 | 130 | 100.00 |   0.00 |  0.00
HYBRID   | 100.00 |   0 |   0.00 | 100.00 |  0.00
HYBRID   |   0.00 |  30 |   0.00 |   0.00 |  0.00
PREPAID  | 100.00 | 130 | 100.00 |   0.00 |  0.00
PREPAID  | 100.00 |  30 | 100.00 |   0.00 | 70.00
PREPAID  | 100.00 |   0 | 100.00 |   0.00 | 100.00
PREPAID  |   0.00 |   0 |   0.00 |   0.00 |  0.00
"""


@pytest.mark.parametrize("row", SPLITS.strip().splitlines())
def test_a_total_is_split_by_billing_mode(row: str) -> None:
    mode, total, left, from_wallet, due, debt = (cell.strip() for cell in row.split("|"))
    settlement = settle(D(total), WalletState((grant(1, left),)), mode=BillingMode(mode), at=NOW)
    assert settlement.from_wallet == D(from_wallet)
    assert settlement.amount_due == D(due)
    assert settlement.wallet.debt == D(debt)
    assert settlement.wallet.balance(NOW) == D(left) - D(from_wallet)


def test_grants_are_drawn_by_priority_then_earliest_expiry_then_oldest() -> None:
    grants = (
        grant(1, 10, granted_at=NOW - DAY),
        grant(2, 10, granted_at=NOW - 2 * DAY),
        grant(3, 10, expires_at=NOW + 2 * DAY),
        grant(4, 10, expires_at=NOW + DAY),
        grant(5, 10, priority=0),
        grant(6, 10, priority=100, expires_at=NOW + DAY),
    )
    assert [one.grant_id.int for one in in_order(grants, NOW)] == [5, 4, 3, 2, 1, 6]
    settlement = settle(D(25), WalletState(grants), mode=BillingMode.HYBRID, at=NOW)
    assert settlement.draws == (
        Draw(GrantId(UUID(int=5)), D(10)),
        Draw(GrantId(UUID(int=4)), D(10)),
        Draw(GrantId(UUID(int=3)), D(5)),
    )


def test_an_expired_grant_is_worth_nothing_from_the_moment_of_its_expiry() -> None:
    wallet = WalletState((grant(1, 10, expires_at=NOW), grant(2, 5, expires_at=NOW + DAY)))
    assert wallet.balance(NOW) == 5
    settlement = settle(D(12), wallet, mode=BillingMode.HYBRID, at=NOW)
    assert (settlement.from_wallet, settlement.amount_due) == (5, 7)
    prepaid = settle(D(12), wallet, mode=BillingMode.PREPAID, at=NOW)
    assert prepaid.draws == (Draw(GrantId(UUID(int=2)), D(5)), Draw(None, D(7)))


def test_a_second_settlement_takes_from_what_the_first_left() -> None:
    first = settle(D(8), WalletState((grant(1, 10),)), mode=BillingMode.HYBRID, at=NOW)
    second = settle(D(8), first.wallet, mode=BillingMode.HYBRID, at=NOW)
    assert (second.from_wallet, second.amount_due) == (2, 6)


# debt | granted | repaid
REPAYMENTS = """
 0 | 10 | 0
 4 | 10 | 4
10 | 10 | 10
15 | 10 | 10
"""


@pytest.mark.parametrize("row", REPAYMENTS.strip().splitlines())
def test_a_grant_repays_the_debt_first(row: str) -> None:
    debt, granted, expected = (D(cell.strip()) for cell in row.split("|"))
    assert repaid(debt, granted) == expected


CENTS = st.integers(0, 10**7).map(lambda cents: D(cents).scaleb(-2))
GRANTS = st.lists(
    st.tuples(
        CENTS,
        st.integers(0, 100),
        st.none() | st.integers(-3, 3).map(lambda days: NOW + days * DAY),
    ),
    max_size=8,
).map(
    lambda rows: tuple(
        grant(number, left, priority=priority, expires_at=expires)
        for number, (left, priority, expires) in enumerate(rows)
    )
)


@given(CENTS, GRANTS, CENTS, st.sampled_from(BillingMode))
def test_settling_makes_no_money_and_loses_none(
    total: Decimal, grants: tuple[GrantLeft, ...], debt: Decimal, mode: BillingMode
) -> None:
    wallet = WalletState(grants, debt)
    settlement = settle(total, wallet, mode=mode, at=NOW)
    assert settlement.from_wallet + settlement.amount_due == total
    assert sum((draw.amount for draw in settlement.draws), D(0)) == settlement.from_wallet
    assert wallet.balance(NOW) - settlement.from_wallet == settlement.wallet.balance(NOW)
    assert all(draw.amount > 0 for draw in settlement.draws)
    assert all(one.left >= 0 for one in settlement.wallet.grants)
    if mode is not BillingMode.PREPAID:
        assert settlement.wallet.debt == debt
    for before, after in zip(grants, settlement.wallet.grants, strict=True):
        assert before.is_live(NOW) or before == after
