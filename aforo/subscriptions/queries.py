"""Reads customers, their hierarchy, and subscriptions."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import cast
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog.models import Discount, Entitlement, Offering, OfferingEntitlement, RatePlanLine
from aforo.sdk import (
    AgentId,
    CustomerId,
    CustomerKeyId,
    MeterId,
    OfferingId,
    ProductId,
    SubscriptionId,
    TeamId,
)
from aforo.storage.listing import Children, Listing, begins, equal
from aforo.storage.rows import rows_by_id
from aforo.storage.scope import Scope
from aforo.subscriptions.hierarchy import AliasLife, Hierarchy, KeyLife, Place
from aforo.subscriptions.lives import SubscriptionLife
from aforo.subscriptions.models import (
    Agent,
    Customer,
    CustomerAlias,
    CustomerKey,
    CustomerOrder,
    Subscription,
    SubscriptionDiscount,
    SubscriptionOrder,
    SubscriptionState,
    Team,
)

DUE_MAX = 1_000


async def resolve(
    scope: Scope, external_ids: Collection[str], key_hashes: Collection[bytes]
) -> Hierarchy:
    """The customers and keys that a batch of events names, those that exist: two statements, and
    one more for ids that are no customer's own."""
    customers: dict[str, CustomerId] = {}
    if external_ids:
        named = await scope.db.execute(
            sa.select(Customer).where(col(Customer.external_id).in_(external_ids))
        )
        customers = {row.external_id: CustomerId(row.id) for row in named.scalars()}
    others = set(external_ids) - customers.keys()
    found_aliases = await aliases(scope, others) if others else {}
    lives = {name: _alias_life(row) for name, row in found_aliases.items()}
    keys: dict[bytes, KeyLife] = {}
    if key_hashes:
        found = await scope.db.execute(
            sa.select(CustomerKey, Agent)
            .outerjoin(Agent, col(Agent.id) == col(CustomerKey.agent_id))
            .where(col(CustomerKey.key_hash).in_(key_hashes))
        )
        keys = {key.key_hash: _key_life(key, agent) for key, agent in found}
    return Hierarchy(customers=customers, keys=keys, aliases=lives)


def _alias_life(alias: CustomerAlias) -> AliasLife:
    return AliasLife(
        customer_id=CustomerId(alias.customer_id),
        valid_from=alias.valid_from,
        valid_to=alias.valid_to,
    )


def _key_life(key: CustomerKey, agent: Agent | None) -> KeyLife:
    place = Place(
        customer_id=CustomerId(key.customer_id),
        team_id=None if agent is None else TeamId(agent.team_id),
        agent_id=None if agent is None else AgentId(agent.id),
        customer_key_id=CustomerKeyId(key.id),
    )
    return KeyLife(place=place, valid_from=key.valid_from, valid_to=key.valid_to)


async def active_subscriptions(
    scope: Scope, customer_ids: Collection[UUID]
) -> dict[CustomerId, list[SubscriptionLife]]:
    """Every subscription of these customers, the oldest first, also those that have ended:
    an event inside a life that is over is still billable. Two statements."""
    if not customer_ids:
        return {}
    rows = await scope.db.execute(
        sa.select(Subscription, Offering)
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .where(col(Subscription.customer_id).in_(customer_ids))
        .order_by(col(Subscription.starts_at), col(Subscription.id))
    )
    pairs = [(subscription, offering) for subscription, offering in rows]
    meters = await meters_by_offering(scope, {offering.id for _, offering in pairs})
    lives: dict[CustomerId, list[SubscriptionLife]] = defaultdict(list)
    for subscription, offering in pairs:
        lives[CustomerId(subscription.customer_id)].append(
            SubscriptionLife(
                subscription_id=SubscriptionId(subscription.id),
                offering_id=OfferingId(offering.id),
                product_id=ProductId(offering.product_id),
                starts_at=subscription.starts_at,
                ends_at=subscription.ends_at,
                meter_ids=meters[offering.id],
            )
        )
    return dict(lives)


async def meters_by_offering(
    scope: Scope, offering_ids: Collection[UUID]
) -> dict[UUID, frozenset[MeterId]]:
    """The meters that each offering prices or grants a quota over; one statement."""
    priced = (
        sa.select(col(Offering.id), col(RatePlanLine.meter_id))
        .join(RatePlanLine, col(RatePlanLine.rate_plan_id) == col(Offering.rate_plan_id))
        .where(col(Offering.id).in_(offering_ids), col(RatePlanLine.meter_id).is_not(None))
    )
    granted = (
        sa.select(col(OfferingEntitlement.offering_id), col(Entitlement.meter_id))
        .join(Entitlement, col(Entitlement.id) == col(OfferingEntitlement.entitlement_id))
        .where(
            col(OfferingEntitlement.offering_id).in_(offering_ids),
            col(Entitlement.meter_id).is_not(None),
        )
    )
    found: dict[UUID, set[MeterId]] = {offering_id: set() for offering_id in offering_ids}
    for offering_id, meter_id in await scope.db.execute(priced.union(granted)):
        found[offering_id].add(cast("MeterId", meter_id))
    return {offering_id: frozenset(meters) for offering_id, meters in found.items()}


async def customers_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Customer]:
    return await rows_by_id(scope, Customer, ids)


def customers(
    *,
    name_prefix: str | None = None,
    segment: str | None = None,
    country: str | None = None,
    currency: str | None = None,
    order: CustomerOrder = CustomerOrder.OLDEST_FIRST,
) -> Listing[Customer]:
    """The customers that meet all conditions; the case of names is ignored."""
    where = (
        *begins(Customer.sort_name, name_prefix and name_prefix.lower()),
        *equal(Customer.segment, segment),
        *equal(Customer.country, country),
        *equal(Customer.currency, currency),
    )
    return Listing(Customer, where, order)


async def customer_by_external_id(scope: Scope, external_id: str) -> Customer | None:
    """The customer that events name by this id."""
    customer: Customer | None = await scope.db.scalar(
        sa.select(Customer).where(col(Customer.external_id) == external_id)
    )
    return customer


async def customer_named(scope: Scope, external_id: str, at: datetime) -> Customer | None:
    """The customer that an event of that moment names by this id: its own, or an alias."""
    customer = await customer_by_external_id(scope, external_id)
    if customer is not None:
        return customer
    alias = (await aliases(scope, [external_id])).get(external_id)
    if alias is None or alias.valid_from > at or (alias.valid_to and alias.valid_to <= at):
        return None
    return (await customers_by_id(scope, [alias.customer_id])).get(alias.customer_id)


async def aliases(scope: Scope, external_ids: Collection[str]) -> dict[str, CustomerAlias]:
    """The aliases among these ids, whenever they are good, by id."""
    found = await scope.db.scalars(
        sa.select(CustomerAlias).where(col(CustomerAlias.external_id).in_(external_ids))
    )
    return {row.external_id: row for row in found}


async def aliases_of(scope: Scope, customer_id: UUID) -> list[str]:
    """The other ids of a customer, whenever they are good."""
    ids = sa.select(col(CustomerAlias.external_id))
    return list(await scope.db.scalars(ids.where(col(CustomerAlias.customer_id) == customer_id)))


async def customer_aliases_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, CustomerAlias]:
    return await rows_by_id(scope, CustomerAlias, ids)


ALIASES_BY_CUSTOMER = Children(CustomerAlias, "customer_id")


async def teams_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Team]:
    return await rows_by_id(scope, Team, ids)


TEAMS_BY_CUSTOMER = Children(Team, "customer_id")


async def agents_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Agent]:
    return await rows_by_id(scope, Agent, ids)


AGENTS_BY_TEAM = Children(Agent, "team_id")


async def customer_of_agent(scope: Scope, agent_id: UUID) -> CustomerId | None:
    """Whom an agent works for; None if there is no such agent."""
    customer_id = await scope.db.scalar(
        sa.select(col(Team.customer_id))
        .join(Agent, col(Agent.team_id) == col(Team.id))
        .where(col(Agent.id) == agent_id)
    )
    return None if customer_id is None else CustomerId(customer_id)


async def customer_keys_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, CustomerKey]:
    return await rows_by_id(scope, CustomerKey, ids)


KEYS_BY_CUSTOMER = Children(CustomerKey, "customer_id")


async def subscriptions_by_id(scope: Scope, ids: Collection[UUID]) -> dict[UUID, Subscription]:
    return await rows_by_id(scope, Subscription, ids)


SUBSCRIPTIONS_BY_CUSTOMER = Children(Subscription, "customer_id")


def subscriptions(
    *,
    now: datetime,
    customer_id: UUID | None = None,
    offering_id: UUID | None = None,
    state: SubscriptionState | None = None,
    order: SubscriptionOrder = SubscriptionOrder.OLDEST_FIRST,
) -> Listing[Subscription]:
    """The subscriptions that meet all conditions; at `now` one that has ended is TERMINATED."""
    where = equal(Subscription.customer_id, customer_id)
    where += equal(Subscription.offering_id, offering_id)
    if state is not None:
        # An end that was set ahead comes without anybody writing to the row.
        runs = sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > now)
        where += (runs if state is SubscriptionState.ACTIVE else sa.not_(runs),)
    return Listing(Subscription, where, order)


async def discounts_by_subscription(
    scope: Scope, subscription_ids: Collection[UUID]
) -> dict[UUID, list[Discount]]:
    """Each subscription's discounts in the order in which they apply."""
    rows = await scope.db.execute(
        sa.select(SubscriptionDiscount, Discount)
        .join(Discount, col(Discount.id) == col(SubscriptionDiscount.discount_id))
        .where(col(SubscriptionDiscount.subscription_id).in_(subscription_ids))
        .order_by(col(SubscriptionDiscount.position))
    )
    found: dict[UUID, list[Discount]] = {each: [] for each in subscription_ids}
    for link, discount in rows:
        found[link.subscription_id].append(discount)
    return found


async def subscriptions_due(
    scope: Scope, until: datetime, *, after: UUID | None = None, first: int = DUE_MAX
) -> list[Subscription]:
    """Subscriptions that lived before `until` and are not billed up to it, in order of id.

    Whether a period of theirs has ended by then is for `periods_between` to say. At most `first`
    past the id `after`: a full answer means that there may be more.
    """
    rows = await scope.db.scalars(
        sa.select(Subscription)
        .where(
            col(Subscription.billed_until) < until,
            sa.or_(
                col(Subscription.ends_at).is_(None),
                col(Subscription.billed_until) < col(Subscription.ends_at),
            ),
            *([] if after is None else [col(Subscription.id) > after]),
        )
        .order_by(col(Subscription.id))
        .limit(first)
    )
    return list(rows)
