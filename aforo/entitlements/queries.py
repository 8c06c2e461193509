"""Reads what an entitlement check goes by."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.billing.models import Wallet
from aforo.billing.settle import WalletState
from aforo.billing.wallets import wallet_states
from aforo.catalog.models import (
    Entitlement,
    EntitlementKind,
    Meter,
    Offering,
    OfferingEntitlement,
    RatePlanLine,
)
from aforo.entitlements.models import Restraint
from aforo.entitlements.standing import InForce, Plan, Standing
from aforo.metering.aggregate import EVENTS, selection
from aforo.metering.grants import QuotaGrant, quota_grants
from aforo.metering.queries import IN_PERIOD, moment, rule_of, watermark
from aforo.metering.windows import Life
from aforo.storage.listing import AgeOrder, Listing, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.subscriptions.models import BillingMode, Customer, CustomerKey, Subscription
from aforo.subscriptions.queries import customer_named, customers_by_id

PEAK_OF = timedelta(days=7)


def restraints(
    *, customer_id: UUID | None = None, order: AgeOrder = AgeOrder.NEWEST_FIRST
) -> Listing[Restraint]:
    """The restraints, or those of one customer; also those whose time is over."""
    return Listing(Restraint, equal(Restraint.customer_id, customer_id), order)


async def restraints_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Restraint]:
    """The restraints with these ids; an id that is not the tenant's is absent."""
    return await rows_by_id(scope, Restraint, ids)


async def standing_of(
    scope: Scope, *, external_id: str | None, key_hash: bytes | None
) -> Standing | None:
    """The customer that has this id or key, if there is one, as it stands now."""
    key: CustomerKey | None = None
    if external_id is not None:
        customer = await customer_named(scope, external_id, scope.now)
    else:
        key = await scope.db.scalar(
            sa.select(CustomerKey).where(col(CustomerKey.key_hash) == key_hash)
        )
        found = await customers_by_id(scope, [key.customer_id] if key else [])
        customer = next(iter(found.values()), None)
    if customer is None:
        return None
    plans = await _plans(scope, customer)
    prepaid = any(plan.mode is BillingMode.PREPAID for plan in plans)
    standing = Standing(
        customer_id=customer.id,
        external_id=customer.external_id,
        version="",
        plans=tuple(plans),
        restraints=tuple([_in_force(row) for row in await _restraints(scope, customer.id)]),
        wallets=await _wallets(scope, customer) if prepaid else (),
        valid_from=key.valid_from if key else None,
        valid_to=key.valid_to if key else None,
    )
    return replace(standing, version=_version(standing))


async def usual_rates(scope: Scope, customer_id: UUID) -> dict[str, str]:
    """Units per second of each meter that the customer's plans know, by the meter's id, in the
    peak minute of the last week; meters without usage are absent."""
    plans = await _plans(scope, (await customers_by_id(scope, [customer_id]))[customer_id])
    ids = {id_ for plan in plans for id_ in plan.meters.values()}
    ids |= {quota.meter.id for plan in plans for quota in plan.quotas}
    until = await watermark(scope)
    rates: dict[str, str] = {}
    for meter in (await rows_by_id(scope, Meter, ids)).values():
        counted = selection(rule_of(meter))
        rows = await scope.events.query(
            f"SELECT max(quantity) AS peak FROM (SELECT {counted.quantity} AS quantity "
            f"FROM {EVENTS} WHERE {IN_PERIOD} AND customer_id = {{customer:UUID}} "
            f"AND {counted.condition} GROUP BY toStartOfMinute(occurred_at))",
            **counted.parameters,
            start=moment(scope.now - PEAK_OF),
            end=moment(scope.now),
            watermark=until,
            customer=str(customer_id),
        )
        if rows and rows[0]["peak"]:
            rates[str(meter.id)] = f"{Decimal(rows[0]['peak']) / 60:.12f}"
    return rates


async def _plans(scope: Scope, customer: Customer) -> list[Plan]:
    """What each subscription that has not ended grants, the oldest first; three statements."""
    rows = await scope.db.execute(
        sa.select(Subscription, col(Meter.code), col(Meter.id))
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .outerjoin(RatePlanLine, col(RatePlanLine.rate_plan_id) == col(Offering.rate_plan_id))
        .outerjoin(Meter, col(Meter.id) == col(RatePlanLine.meter_id))
        .where(col(Subscription.customer_id) == customer.id, _goes_on(scope))
        .order_by(col(Subscription.starts_at), col(Subscription.id))
    )
    found: dict[UUID, Subscription] = {}
    meters: dict[UUID, dict[str, UUID]] = defaultdict(dict)
    for subscription, code, meter_id in rows:
        found[subscription.id] = subscription
        if code is not None:
            meters[subscription.id][code] = meter_id
    features: dict[UUID, set[str]] = defaultdict(set)
    granted = await scope.db.execute(
        sa.select(col(Subscription.id), col(Entitlement.code))
        .join(
            OfferingEntitlement,
            col(OfferingEntitlement.offering_id) == col(Subscription.offering_id),
        )
        .join(Entitlement, col(Entitlement.id) == col(OfferingEntitlement.entitlement_id))
        .where(
            col(Subscription.customer_id) == customer.id,
            _goes_on(scope),
            col(Entitlement.kind) == EntitlementKind.BOOLEAN,
        )
    )
    for subscription_id, code in granted:
        features[subscription_id].add(code)
    quotas: dict[UUID, list[QuotaGrant]] = defaultdict(list)
    for grant in await quota_grants(scope, [customer.id]):
        quotas[grant.subscription_id].append(grant)
    return [
        Plan(
            life=Life(
                starts_at=each.starts_at,
                ends_at=each.ends_at,
                anchor_day=each.anchor_day,
                time_zone=customer.time_zone,
            ),
            mode=each.billing_mode,
            features=frozenset(features[each.id]),
            meters=meters[each.id],
            quotas=tuple(quotas[each.id]),
        )
        for each in found.values()
    ]


def _goes_on(scope: Scope) -> sa.ColumnElement[bool]:
    return sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > scope.now)


async def _restraints(scope: Scope, customer_id: UUID) -> list[Restraint]:
    rows = await scope.db.scalars(
        sa.select(Restraint)
        .where(col(Restraint.customer_id) == customer_id)
        .order_by(col(Restraint.id))
    )
    return list(rows)


def _in_force(row: Restraint) -> InForce:
    return InForce(
        kind=row.kind,
        until=row.until,
        percent=row.percent,
        rates={meter: Decimal(rate) for meter, rate in row.rates.items()},
    )


async def _wallets(scope: Scope, customer: Customer) -> tuple[WalletState, ...]:
    """Of the customer's own currency, which is that of its plans."""
    ids = await scope.db.scalars(
        sa.select(col(Wallet.id)).where(
            col(Wallet.customer_id) == customer.id, col(Wallet.currency) == customer.currency
        )
    )
    return tuple((await wallet_states(scope, list(ids))).values())


def _version(standing: Standing) -> str:
    plans = [
        (
            plan.life,
            plan.mode,
            sorted(plan.features),
            sorted(plan.meters),
            [(grant.entitlement.id, grant.life) for grant in plan.quotas],
        )
        for plan in standing.plans
    ]
    known = repr((plans, standing.restraints, standing.wallets))
    return blake2b(known.encode(), digest_size=8).hexdigest()
