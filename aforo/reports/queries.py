"""Reads the figures of a window of time: revenue, what it cost, and what of it recurs.

Revenue and COGS are like with like: both are those of the invoices whose period ended within the
window, `start < period end <= end`, so that a calendar month shows the invoices of that month.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlmodel import col

from aforo.billing.discount import AmountOff, PercentageOff
from aforo.billing.models import Invoice, InvoiceState, InvoiceTax
from aforo.billing.rate import pricing_model, rate
from aforo.catalog.models import Discount, Offering, RatePlan, RatePlanLine
from aforo.metering.aggregate import EVENTS
from aforo.metering.queries import IN_PERIOD, moment, watermark
from aforo.reports.measures import (
    annual_recurring,
    margin,
    monthly_recurring,
    per_customer,
    whole_and_parts,
)
from aforo.sdk import (
    CustomerId,
    Invalid,
    Period,
    Usage,
    currency_exponent,
    exact,
    round_half_up,
)
from aforo.storage.rows import one_of
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Subscription, SubscriptionDiscount

CUSTOMERS_MAX = 100_000
"""Customers times currencies that one summary adds up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerMargin:
    """What one customer brought in and cost, in one currency; amounts rounded to it."""

    customer_id: CustomerId
    currency: str
    invoiced_revenue: Decimal
    """As in `RevenueSummary`, of which these rows are the drill-down."""
    expected_revenue: Decimal
    cogs: Decimal
    """As far as it is known, in `currency`."""
    uncosted_events: int
    """Events behind the invoiced revenue whose cost is unknown, or in another currency."""
    margin: Decimal | None
    """As in `RevenueSummary`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevenueSummary:
    """The figures of one currency; amounts are in it and rounded to it."""

    currency: str
    as_of: datetime
    """The moment for which all figures here were read."""
    invoiced_revenue: Decimal
    """Finalised invoices whose period ended in the window: net of discounts, before any tax."""
    expected_revenue: Decimal
    """The same of invoices that are drafts still, or wait for their tax."""
    cogs: Decimal
    """What serving the periods of the finalised invoices cost; the customers' rows sum to it."""
    margin: Decimal | None
    """(invoiced revenue − COGS) / invoiced revenue, a share; None without revenue, and where the
    cost of an event behind it is unknown or in another currency: it would look too good."""
    unattributed_cogs: Decimal
    """Cost, in this currency, of events of the window whose customer is billed in another one: no
    invoice can carry it."""
    uncosted_events: int
    """Events of the window, under plans of this currency, whose cost is unknown; never free."""
    outstanding: Decimal
    """Due on all finalised invoices, whenever their period ended."""
    mrr: Decimal
    """Fees that recur, of the subscriptions active at the end of the window, or now if that is
    earlier: a month's worth, net of the subscriptions' discounts, before tax."""
    arr: Decimal
    """12 × MRR."""
    active_subscriptions: int
    active_customers: int
    arpu: Decimal | None
    """MRR / active customers; None without one."""


async def revenue_summary(scope: Scope, *, start: datetime, end: datetime) -> list[RevenueSummary]:
    """The figures of `[start, end)`, one row per currency, by its code; never added up over them.

    Raises: `Invalid` for a window that is none; `PluginError` where a fee's pricing model fails.
    """
    window = Period(start, end)
    margins: dict[str, list[CustomerMargin]] = defaultdict(list)
    for row in await customer_margins(scope, start=window.start, end=window.end):
        margins[row.currency].append(row)
    outstanding = await _outstanding(scope)
    recurring = await _recurring(scope, at=min(window.end, scope.now))
    costs = await _costs_of_events(scope, window)
    currencies = {*margins, *outstanding, *recurring, *costs}
    return [
        _summary(
            currency,
            scope.now,
            margins=margins[currency],
            outstanding=outstanding.get(currency, Decimal(0)),
            recurring=recurring.get(currency, _Recurring()),
            costs=costs.get(currency, _EventCosts()),
        )
        for currency in sorted(currencies)
    ]


async def customer_margins(scope: Scope, *, start: datetime, end: datetime) -> list[CustomerMargin]:
    """Revenue and COGS by customer, in order of currency and customer. In each currency the rows
    sum to the summary of the same window, to the smallest unit.

    Raises: `Invalid` for a window that is none, or that holds more than 100,000 rows.
    """
    window = Period(start, end)
    finalized = col(Invoice.state) == InvoiceState.FINALIZED
    net = col(Invoice.subtotal) - col(Invoice.discount) - _inclusive_tax()
    rows = await scope.db.execute(
        sa.select(
            col(Invoice.currency),
            col(Invoice.customer_id),
            _total(net, finalized),
            _total(net, sa.not_(finalized)),
            _total(col(Invoice.cogs), finalized),
            sa.func.coalesce(sa.func.sum(col(Invoice.uncosted_events)).filter(finalized), 0),
        )
        .where(col(Invoice.period_end) > window.start, col(Invoice.period_end) <= window.end)
        .group_by(col(Invoice.currency), col(Invoice.customer_id))
        .order_by(col(Invoice.currency), col(Invoice.customer_id))
        .limit(CUSTOMERS_MAX + 1)
    )
    found = rows.all()
    if len(found) > CUSTOMERS_MAX:
        raise Invalid(f"the window has more than {CUSTOMERS_MAX} rows; choose a shorter one")
    by_currency: dict[str, list[Any]] = defaultdict(list)
    for row in found:
        by_currency[row[0]].append(row)
    return [
        CustomerMargin(
            customer_id=CustomerId(customer_id),
            currency=currency,
            invoiced_revenue=round_half_up(invoiced, currency_exponent(currency)),
            expected_revenue=round_half_up(expected, currency_exponent(currency)),
            cogs=cogs,
            uncosted_events=int(uncosted),
            margin=None if uncosted else margin(invoiced, cogs),
        )
        for currency, group in by_currency.items()
        for (_, customer_id, invoiced, expected, _, uncosted), cogs in zip(
            group, whole_and_parts([row[4] for row in group], currency)[1], strict=True
        )
    ]


@dataclass(frozen=True, slots=True)
class _Recurring:
    mrr: Decimal = Decimal(0)
    subscriptions: int = 0
    customers: int = 0


@dataclass(frozen=True, slots=True)
class _EventCosts:
    unattributed: Decimal = Decimal(0)
    uncosted_events: int = 0


def _summary(
    currency: str,
    as_of: datetime,
    *,
    margins: Collection[CustomerMargin],
    outstanding: Decimal,
    recurring: _Recurring,
    costs: _EventCosts,
) -> RevenueSummary:
    exponent = currency_exponent(currency)
    invoiced = round_half_up(_sum(row.invoiced_revenue for row in margins), exponent)
    cogs = round_half_up(_sum(row.cogs for row in margins), exponent)
    mrr = round_half_up(recurring.mrr, exponent)
    return RevenueSummary(
        currency=currency,
        as_of=as_of,
        invoiced_revenue=invoiced,
        expected_revenue=round_half_up(_sum(row.expected_revenue for row in margins), exponent),
        cogs=cogs,
        margin=(None if any(row.uncosted_events for row in margins) else margin(invoiced, cogs)),
        unattributed_cogs=round_half_up(costs.unattributed, exponent),
        uncosted_events=costs.uncosted_events,
        outstanding=round_half_up(outstanding, exponent),
        mrr=mrr,
        arr=annual_recurring(mrr),
        active_subscriptions=recurring.subscriptions,
        active_customers=recurring.customers,
        arpu=per_customer(mrr, recurring.customers, currency),
    )


def _inclusive_tax() -> sa.ColumnElement[Decimal]:
    """The taxes that an invoice's lines contain: they are not revenue."""
    return sa.func.coalesce(
        sa.select(sa.func.sum(col(InvoiceTax.amount)))
        .where(col(InvoiceTax.invoice_id) == col(Invoice.id), col(InvoiceTax.inclusive))
        .correlate(Invoice)
        .scalar_subquery(),
        Decimal(0),
    )


def _total(
    amount: sa.SQLColumnExpression[Decimal], where: sa.ColumnElement[bool]
) -> sa.ColumnElement[Decimal]:
    return sa.func.coalesce(sa.func.sum(amount).filter(where), Decimal(0))


async def _outstanding(scope: Scope) -> dict[str, Decimal]:
    rows = await scope.db.execute(
        sa.select(col(Invoice.currency), sa.func.sum(col(Invoice.amount_due)))
        .where(col(Invoice.state) == InvoiceState.FINALIZED)
        .group_by(col(Invoice.currency))
    )
    return dict(rows.all())


async def _recurring(scope: Scope, *, at: datetime) -> dict[str, _Recurring]:
    """What recurs of the subscriptions that are active at a moment, by currency."""
    running = (
        col(Subscription.starts_at) <= at,
        sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > at),
    )
    customers = await scope.db.execute(
        sa.select(col(RatePlan.currency), sa.func.count(sa.distinct(col(Subscription.customer_id))))
        .select_from(Subscription)
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .join(RatePlan, col(RatePlan.id) == col(Offering.rate_plan_id))
        .where(*running)
        .group_by(col(RatePlan.currency))
    )
    counted = dict(customers.all())
    # Subscriptions of one plan with the same discounts bring in the same: they are few groups.
    chain = (
        sa.select(
            sa.func.array_agg(
                aggregate_order_by(
                    col(SubscriptionDiscount.discount_id), col(SubscriptionDiscount.position)
                ),
                type_=ARRAY(sa.Uuid),
            )
        )
        .where(col(SubscriptionDiscount.subscription_id) == col(Subscription.id))
        .correlate(Subscription)
        .scalar_subquery()
        .label("discounts")
    )
    each = (
        sa.select(col(Offering.rate_plan_id).label("plan"), chain)
        .select_from(Subscription)
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .where(*running)
        .subquery()
    )
    rows = await scope.db.execute(
        sa.select(each.c.plan, each.c.discounts, sa.func.count()).group_by(
            each.c.plan, each.c.discounts
        )
    )
    groups = [(plan, discounts or [], count) for plan, discounts, count in rows]
    return await _added_up(scope, groups, counted)


async def _added_up(
    scope: Scope,
    groups: Collection[tuple[UUID, list[UUID], int]],
    customers: Mapping[str, int],
) -> dict[str, _Recurring]:
    plan_ids = {plan for plan, _, _ in groups}
    plans = {
        row.id: row
        for row in await scope.db.scalars(sa.select(RatePlan).where(col(RatePlan.id).in_(plan_ids)))
    }
    lines: dict[UUID, list[RatePlanLine]] = defaultdict(list)
    for line in await scope.db.scalars(
        sa.select(RatePlanLine)
        .where(col(RatePlanLine.rate_plan_id).in_(plan_ids), col(RatePlanLine.meter_id).is_(None))
        .order_by(col(RatePlanLine.position))
    ):
        lines[line.rate_plan_id].append(line)
    discount_ids = {one for _, chain, _ in groups for one in chain}
    discounts = {
        row.id: row
        for row in await scope.db.scalars(
            sa.select(Discount).where(col(Discount.id).in_(discount_ids))
        )
    }
    found: dict[str, _Recurring] = {}
    for plan_id, chain, count in groups:
        plan = plans[plan_id]
        monthly = monthly_recurring(
            [_fee(scope, line, plan.currency) for line in lines[plan_id]],
            [_rule(discounts[one]) for one in chain],
            interval=plan.interval,
            currency=plan.currency,
        )
        before = found.get(plan.currency, _Recurring())
        with exact():
            found[plan.currency] = _Recurring(
                mrr=before.mrr + monthly * count,
                subscriptions=before.subscriptions + count,
                customers=customers[plan.currency],
            )
    return found


def _fee(scope: Scope, line: RatePlanLine, currency: str) -> Decimal:
    """The line's fee for a whole period, rounded as on an invoice."""
    model = pricing_model(scope.plugins, line.model, line.settings)
    usage = Usage(quantity=Decimal(1), event_count=0, currency=currency)
    return rate(model, usage).amount


def _rule(discount: Discount) -> PercentageOff | AmountOff:
    if discount.rate is not None:
        return PercentageOff(discount.rate)
    assert discount.amount is not None, "a discount is a share or an amount"
    return AmountOff(discount.amount)


async def _costs_of_events(scope: Scope, window: Period) -> dict[str, _EventCosts]:
    """Costs that no invoice can carry, and events without a cost, by currency."""
    rows = await scope.events.query(
        "SELECT subscription_id, cost_currency, sum(ifNull(cost, toDecimal256(0, 30))) AS amount, "
        f"countIf(isNull(cost)) AS uncosted FROM {EVENTS} WHERE {IN_PERIOD} "
        "GROUP BY subscription_id, cost_currency",
        watermark=await watermark(scope),
        start=moment(window.start),
        end=moment(window.end),
    )
    billed_in = await _currencies_of(scope, {row["subscription_id"] for row in rows})
    unattributed: dict[str, Decimal] = defaultdict(Decimal)
    uncosted: dict[str, int] = defaultdict(int)
    with exact():
        for row in rows:
            billed = billed_in[row["subscription_id"]]
            if row["uncosted"]:
                uncosted[billed] += row["uncosted"]
            if row["amount"] and row["cost_currency"] != billed:
                unattributed[row["cost_currency"]] += row["amount"]
    return {
        currency: _EventCosts(unattributed.get(currency, Decimal(0)), uncosted.get(currency, 0))
        for currency in {*unattributed, *uncosted}
    }


async def _currencies_of(scope: Scope, subscription_ids: Collection[UUID]) -> dict[UUID, str]:
    rows = await scope.db.execute(
        sa.select(col(Subscription.id), col(RatePlan.currency))
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .join(RatePlan, col(RatePlan.id) == col(Offering.rate_plan_id))
        .where(one_of(Subscription.id, subscription_ids))
    )
    return dict(rows.all())


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    with exact():
        return sum(amounts, Decimal(0))
