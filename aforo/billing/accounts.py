"""Loads what bills are made from: subscriptions with their prices, and their counted usage."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from aforo.billing.discount import AmountOff, PercentageOff
from aforo.billing.invoice import Charge, Counted, Discounting
from aforo.billing.rate import entitlement_of, needs_values, pricing_model
from aforo.catalog.models import Discount, Entitlement, Meter
from aforo.catalog.queries import OfferingContents, offering_contents
from aforo.metering.cuts import Cut
from aforo.metering.grants import grant_of
from aforo.metering.limits import blocked, carried_into
from aforo.metering.queries import (
    Costs,
    MeterUsage,
    costs_by_subscription,
    event_values,
    usage_by_customer,
)
from aforo.plugins import Registry
from aforo.sdk import CurrencyMismatch, CustomerId, Period, PluginError, SubscriptionId
from aforo.storage.scope import Scope
from aforo.subscriptions.models import Customer, Subscription
from aforo.subscriptions.periods import PeriodPart
from aforo.subscriptions.queries import customers_by_id, discounts_by_subscription

IDS_MAX = 200
"""More than so many are not named in a query of the log: all customers are read instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an offering charges, with its pricing models ready."""

    charges: tuple[Charge, ...] = ()
    meters: Mapping[UUID, Meter]
    """The meters of the charges, by id."""
    with_values: frozenset[UUID] = frozenset()
    """Meters whose single events are priced."""
    included: Mapping[UUID, Entitlement] = field(default_factory=dict)
    """The entitlement that says what is included, by meter, where a charge takes it from there."""
    fault: str | None = None
    """Why nothing can be rated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One subscription with all that its bills are made from."""

    subscription: Subscription
    customer: Customer
    currency: str
    prices: Prices
    discounts: tuple[Discounting, ...] = ()
    fault: str | None = None
    """Why it cannot be rated; names the plugin where one is to blame."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One account in one billing period."""

    account: Account
    part: PeriodPart


async def load_accounts(scope: Scope, subscriptions: Sequence[Subscription]) -> list[Account]:
    """The subscriptions with their customers, prices and discounts, in seven statements."""
    customers = await customers_by_id(scope, {each.customer_id for each in subscriptions})
    contents = await offering_contents(scope, {each.offering_id for each in subscriptions})
    discounts = await discounts_by_subscription(scope, [each.id for each in subscriptions])
    prices = {key: _prices(scope.plugins, each) for key, each in contents.items()}
    return [
        _account(
            each,
            customers[each.customer_id],
            currency=contents[each.offering_id].rate_plan.currency,
            prices=prices[each.offering_id],
            discounts=discounts[each.id],
        )
        for each in subscriptions
    ]


async def count_usage(
    scope: Scope, stretches: Sequence[Stretch], *, watermark: int
) -> list[dict[UUID, Counted]]:
    """What each stretch used, by meter: one query per meter and period, over all customers.

    Only meters whose single events are priced take a query per customer.
    """
    wanted: dict[tuple[UUID, Period], set[UUID]] = defaultdict(set)
    meters: dict[UUID, Meter] = {}
    for stretch in stretches:
        meters |= stretch.account.prices.meters
        for meter_id in stretch.account.prices.meters:
            wanted[meter_id, stretch.part.part].add(stretch.account.customer.id)
    found: dict[tuple[UUID, Period], _Found] = {}
    for (meter_id, period), customer_ids in wanted.items():
        some = few(customer_ids)
        cuts = await blocked(
            scope, meters[meter_id], period, watermark=watermark, customer_ids=some
        )
        found[meter_id, period] = _Found(
            await usage_by_customer(
                scope,
                meters[meter_id],
                period,
                watermark=watermark,
                customer_ids=some,
                without=cuts,
            ),
            cuts,
        )
    return [await _counted(scope, stretch, found, watermark=watermark) for stretch in stretches]


async def count_costs(scope: Scope, stretches: Sequence[Stretch], *, watermark: int) -> list[Costs]:
    """What serving each stretch cost us: one query per period."""
    wanted: dict[Period, set[UUID]] = defaultdict(set)
    for stretch in stretches:
        wanted[stretch.part.part].add(stretch.account.subscription.id)
    found = {
        period: await costs_by_subscription(
            scope, period, watermark=watermark, subscription_ids=few(ids)
        )
        for period, ids in wanted.items()
    }
    nothing = Costs(Decimal(0), None, 0, 0)
    return [
        found[each.part.part].get(SubscriptionId(each.account.subscription.id), nothing)
        for each in stretches
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a meter counted in a period."""

    usage: Mapping[CustomerId, MeterUsage]
    cuts: Sequence[Cut]
    """What is blocked, and not in it."""

    def cuts_of(self, customer_id: UUID) -> list[Cut]:
        return [cut for cut in self.cuts if cut.cell.customer_id == customer_id]


async def _counted(
    scope: Scope,
    stretch: Stretch,
    found: Mapping[tuple[UUID, Period], _Found],
    *,
    watermark: int,
) -> dict[UUID, Counted]:
    prices, period, customer = stretch.account.prices, stretch.part.part, stretch.account.customer
    counted: dict[UUID, Counted] = {}
    for meter_id, meter in prices.meters.items():
        usage = found[meter_id, period].usage.get(CustomerId(customer.id))
        included = await _included(scope, stretch, meter, watermark)
        if usage is None:
            nothing = () if meter_id in prices.with_values else None
            counted[meter_id] = Counted(values=nothing, included=included)
            continue
        counted[meter_id] = Counted(usage.quantity, usage.events, usage.xor, included=included)
        if meter_id in prices.with_values:
            values = await event_values(
                scope,
                meter,
                period,
                watermark=watermark,
                customer_id=customer.id,
                without=found[meter_id, period].cuts_of(customer.id),
            )
            counted[meter_id] = replace(counted[meter_id], values=values)
    return counted


async def _included(scope: Scope, stretch: Stretch, meter: Meter, watermark: int) -> Decimal | None:
    """What the entitlement over a meter includes in a stretch, with what is carried on into it."""
    account, start = stretch.account, stretch.part.part.start
    entitlement = account.prices.included.get(meter.id)
    if entitlement is None:
        return None
    quota = entitlement.quota or Decimal(0)
    if entitlement.rollover_periods is None:
        return quota
    grant = grant_of(account.subscription, account.customer, entitlement, meter)
    return quota + await carried_into(scope, grant, start, watermark)


def _prices(plugins: Registry, contents: OfferingContents) -> Prices:
    meters = {
        line.meter_id: contents.meters[line.meter_id] for line in contents.lines if line.meter_id
    }
    try:
        charges = tuple(
            Charge(
                code=line.code,
                name=line.name,
                model=pricing_model(plugins, line.model, line.settings),
                meter_id=line.meter_id,
                rate_plan_line_id=line.id,
                tax_category=line.tax_category,
            )
            for line in contents.lines
        )
        codes = {charge.code: entitlement_of(charge.model) for charge in charges}
        charges = tuple(
            replace(charge, takes_included=codes[charge.code] is not None) for charge in charges
        )
        with_values = frozenset(
            charge.meter_id for charge in charges if charge.meter_id and needs_values(charge.model)
        )
    except PluginError as error:
        return Prices(meters={}, fault=str(error))
    # The offering was made with them, so they are there.
    included = {
        each.meter_id: each
        for each in contents.entitlements
        if each.meter_id and each.code in codes.values()
    }
    return Prices(charges=charges, meters=meters, with_values=with_values, included=included)


def _account(
    subscription: Subscription,
    customer: Customer,
    *,
    currency: str,
    prices: Prices,
    discounts: Sequence[Discount],
) -> Account:
    try:
        chain, fault = tuple(_discounting(each, currency) for each in discounts), prices.fault
    except CurrencyMismatch as error:
        chain, fault = (), str(error)
    return Account(
        subscription=subscription,
        customer=customer,
        currency=currency,
        prices=prices,
        discounts=chain,
        fault=fault,
    )


def _discounting(discount: Discount, currency: str) -> Discounting:
    rule: PercentageOff | AmountOff
    if discount.rate is not None:
        rule = PercentageOff(discount.rate)
    else:
        assert discount.amount is not None, "a discount is a share or an amount"
        if discount.currency != currency:
            raise CurrencyMismatch(
                f"the discount {discount.code!r} is in {discount.currency}, the rate plan in "
                f"{currency}; amounts in different currencies are never added"
            )
        rule = AmountOff(discount.amount)
    return Discounting(code=discount.code, name=discount.name, rule=rule, discount_id=discount.id)


def few(ids: Collection[UUID]) -> list[UUID] | None:
    """The ids as a query of the log may name them; None where they are too many for that."""
    return sorted(ids) if len(ids) <= IDS_MAX else None
