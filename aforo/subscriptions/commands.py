"""Writes customers, the hierarchy below them, and subscriptions."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlmodel import col

from aforo.catalog import queries as catalog
from aforo.catalog.models import Offering, RatePlanLine
from aforo.catalog.validate import check_code, check_currency, check_text, check_unique
from aforo.sdk import Conflict, CurrencyMismatch, Invalid, NotFound
from aforo.stages.commands import ask_for_release
from aforo.stages.queries import in_force
from aforo.storage.event_types import EventType
from aforo.storage.jobs import JobName
from aforo.storage.rows import add_unique
from aforo.storage.scope import Scope
from aforo.subscriptions import queries
from aforo.subscriptions.aliases import check_free
from aforo.subscriptions.hierarchy import hash_customer_key
from aforo.subscriptions.models import (
    Agent,
    BillingMode,
    Customer,
    CustomerKey,
    Subscription,
    SubscriptionDiscount,
    SubscriptionState,
    Team,
)
from aforo.subscriptions.periods import billing_period
from aforo.subscriptions.validate import (
    check_country,
    check_detail,
    check_email,
    check_external_id,
    check_key,
    check_near,
    check_terms,
    check_time_zone,
)

DISCOUNTS_MAX = 20


async def create_customer(
    scope: Scope,
    *,
    external_id: str,
    name: str,
    currency: str,
    time_zone: str = "UTC",
    email: str | None = None,
    country: str | None = None,
    region: str | None = None,
    postal_code: str | None = None,
    tax_number: str | None = None,
    segment: str | None = None,
) -> Customer:
    """Create a customer, whom events name by `external_id`.

    Billing periods start at midnight in `time_zone`. Raises `Invalid`, or `Conflict` for an
    external id that is taken, or is an alias.
    """
    customer = Customer(
        external_id=check_external_id(external_id),
        name=check_text(name, field="name"),
        currency=check_currency(currency),
        time_zone=check_time_zone(time_zone),
        email=check_email(email),
        country=check_country(country),
        region=check_detail(region, field="region"),
        postal_code=check_detail(postal_code, field="postalCode"),
        tax_number=check_detail(tax_number, field="taxNumber"),
        segment=check_detail(segment, field="segment"),
    )
    await check_free(scope, customer.external_id)
    taken = Conflict(
        f"there is a customer with the external id {external_id!r}, choose another",
        code="CUSTOMER_EXTERNAL_ID_TAKEN",
        field="externalId",
    )
    await add_unique(scope, customer, taken=taken)
    await ask_for_release(scope, "UNKNOWN_CUSTOMER", names=[customer.external_id])
    await scope.publish(
        EventType.CUSTOMER_CREATED,
        object_id=customer.id,
        data={
            "customer": customer.id,
            "externalId": customer.external_id,
            "name": customer.name,
            "currency": customer.currency,
            "timeZone": customer.time_zone,
        },
    )
    return customer


async def create_team(scope: Scope, *, customer_id: UUID, code: str, name: str) -> Team:
    """Create a part of a customer; the code is unique within the customer.

    Raises `Invalid`, `NotFound` for the customer, or `Conflict`.
    """
    check_code(code)
    check_text(name, field="name")
    await _customer(scope, customer_id)
    team = Team(customer_id=customer_id, code=code, name=name)
    taken = Conflict(
        f"the customer has a team with the code {code!r}, choose another",
        code="TEAM_CODE_TAKEN",
        field="code",
    )
    await add_unique(scope, team, taken=taken)
    return team


async def create_agent(scope: Scope, *, team_id: UUID, code: str, name: str) -> Agent:
    """Create a program that works for a team; the code is unique within the team.

    Raises `Invalid`, `NotFound` for the team, or `Conflict`.
    """
    check_code(code)
    check_text(name, field="name")
    if team_id not in await queries.teams_by_id(scope, [team_id]):
        raise _not_found("team", field="teamId")
    agent = Agent(team_id=team_id, code=code, name=name)
    taken = Conflict(
        f"the team has an agent with the code {code!r}, choose another",
        code="AGENT_CODE_TAKEN",
        field="code",
    )
    await add_unique(scope, agent, taken=taken)
    return agent


async def register_customer_key(
    scope: Scope,
    *,
    customer_id: UUID,
    name: str,
    key: str,
    pepper: str,
    agent_id: UUID | None = None,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
) -> CustomerKey:
    """Register a key that a customer uses with the tenant, so that events may name it.

    Only its hash under `pepper` is kept. It is good for events that occurred in
    `[valid_from, valid_to)`; from now on, and without end, unless stated. Raises `Invalid`,
    `NotFound` for the customer or the agent, or `Conflict` for a key that is registered.
    """
    check_text(name, field="name")
    check_key(key)
    valid_from = check_near(valid_from or scope.now, now=scope.now, field="validFrom")
    if valid_to is not None and valid_to <= valid_from:
        raise Invalid("validTo is not after validFrom, give a later moment", field="validTo")
    await _customer(scope, customer_id)
    if agent_id is not None and await queries.customer_of_agent(scope, agent_id) != customer_id:
        # An agent of another customer is as unknown here as none at all.
        raise NotFound("this customer has no agent with this id", field="agentId")
    row = CustomerKey(
        customer_id=customer_id,
        agent_id=agent_id,
        name=name,
        key_hash=hash_customer_key(key, pepper=pepper),
        valid_from=valid_from,
        valid_to=valid_to,
    )
    taken = Conflict(
        "this key is registered already; a key leads to one place for all its life",
        code="CUSTOMER_KEY_TAKEN",
        field="key",
    )
    await add_unique(scope, row, taken=taken)
    await ask_for_release(scope, "KEY_UNKNOWN", key_hash=row.key_hash)
    await scope.tell_gates(customer_id)
    return row


async def create_subscription(
    scope: Scope,
    *,
    customer_id: UUID,
    offering_id: UUID,
    starts_at: datetime | None = None,
    billing_mode: BillingMode = BillingMode.POSTPAID,
    anchor_day: int | None = None,
    grace_seconds: int | None = None,
    discount_ids: Sequence[UUID] = (),
) -> Subscription:
    """Subscribe a customer to an offering, from now on unless stated.

    Periods start on `anchor_day`, by default the customer's local day of `starts_at`; discounts
    apply in the order given. The first bill run is scheduled for the end of the period that is
    running; periods that a backdated start has already closed wait for it, or for one that is
    asked for, so that their events can be sent first. Raises `Invalid`, `NotFound`, or `Conflict`
    where another subscription prices the same meter at the same time.
    """
    starts_at = check_near(starts_at or scope.now, now=scope.now, field="startsAt")
    if grace_seconds is None:
        grace_seconds = (await in_force(scope)).settlement.grace_seconds
    check_terms(anchor_day=anchor_day, grace_seconds=grace_seconds)
    customer = await _customer(scope, customer_id, lock=True)
    await _check_offering(scope, offering_id, customer)
    await _check_discounts(scope, discount_ids, customer)
    await _check_overlap(scope, customer_id=customer_id, offering_id=offering_id, from_=starts_at)

    anchor_day = anchor_day or starts_at.astimezone(ZoneInfo(customer.time_zone)).day
    subscription = Subscription(
        customer_id=customer_id,
        offering_id=offering_id,
        billing_mode=billing_mode,
        starts_at=starts_at,
        anchor_day=anchor_day,
        grace_seconds=grace_seconds,
        billed_until=starts_at,
    )
    scope.db.add(subscription)
    await scope.db.flush()
    scope.db.add_all(
        SubscriptionDiscount(
            subscription_id=subscription.id, discount_id=discount_id, position=position
        )
        for position, discount_id in enumerate(discount_ids)
    )
    await scope.db.flush()
    running = billing_period(
        anchor_day=anchor_day, time_zone=customer.time_zone, at=max(starts_at, scope.now)
    )
    await _schedule_bill_run(scope, running.end)
    await _publish(scope, EventType.SUBSCRIPTION_CREATED, subscription)
    await ask_for_release(
        scope,
        "NO_ACTIVE_SUBSCRIPTION",
        names=[customer.external_id, *await queries.aliases_of(scope, customer_id)],
        by_key=True,
    )
    return subscription


async def end_subscription(
    scope: Scope, *, subscription_id: UUID, ends_at: datetime | None = None
) -> Subscription:
    """End a subscription, now unless stated; what was used before that moment is still billed.

    Raises `Invalid`, `NotFound`, or `Conflict` if it has ended, or was billed past that moment.
    """
    subscription = await scope.db.scalar(
        sa.select(Subscription)
        .where(col(Subscription.id) == subscription_id)
        .with_for_update(key_share=True)
    )
    if subscription is None:
        raise _not_found("subscription", field="subscriptionId")
    ends_at = check_near(ends_at or scope.now, now=scope.now, field="endsAt")
    ended = subscription.ends_at
    if ended is not None and (ended <= scope.now or ends_at > ended):
        # After that moment another subscription may have taken over: two would bill the same usage.
        raise Conflict(
            f"the subscription ends at {ended.isoformat()} already; "
            "an end that is still to come may be moved to an earlier moment, none to a later one",
            code="SUBSCRIPTION_ENDED",
            field="subscriptionId",
        )
    if ends_at <= subscription.starts_at:
        raise Invalid(
            f"the subscription starts at {subscription.starts_at.isoformat()}, end it after that",
            field="endsAt",
        )
    if ends_at < subscription.billed_until:
        raise Conflict(
            f"the subscription is billed until {subscription.billed_until.isoformat()}, "
            "end it at that moment or later",
            code="SUBSCRIPTION_BILLED",
            field="endsAt",
        )
    subscription.ends_at = ends_at
    if ends_at <= scope.now:
        subscription.state = SubscriptionState.TERMINATED
    await scope.db.flush()
    await _schedule_bill_run(scope, ends_at)
    await _publish(scope, EventType.SUBSCRIPTION_ENDED, subscription)
    return subscription


async def _schedule_bill_run(scope: Scope, until: datetime) -> None:
    # Every subscription whose period ends at this moment shares one run.
    moment = until.isoformat()
    await scope.enqueue(JobName.BILL_DUE, unique_key=moment, run_at=until, until=moment)


async def _publish(scope: Scope, kind: EventType, subscription: Subscription) -> None:
    await scope.tell_gates(subscription.customer_id)
    await scope.publish(
        kind,
        object_id=subscription.id,
        data={
            "subscription": subscription.id,
            "customer": subscription.customer_id,
            "offering": subscription.offering_id,
            "billingMode": subscription.billing_mode.name,
            "startsAt": subscription.starts_at,
            "endsAt": subscription.ends_at,
        },
    )


async def _customer(scope: Scope, customer_id: UUID, *, lock: bool = False) -> Customer:
    """The customer; `lock` makes two who subscribe the same one wait for each other."""
    # With `key_share`, because invoices and the like may be written for it meanwhile.
    query = sa.select(Customer).where(col(Customer.id) == customer_id)
    customer = await scope.db.scalar(query.with_for_update(key_share=True) if lock else query)
    if customer is None:
        raise _not_found("customer", field="customerId")
    return customer


async def _check_offering(scope: Scope, offering_id: UUID, customer: Customer) -> None:
    offering = (await catalog.offerings_by_id(scope, [offering_id])).get(offering_id)
    if offering is None:
        raise _not_found("offering", field="offeringId")
    plans = await catalog.rate_plans_by_id(scope, [offering.rate_plan_id])
    _check_same_currency(
        "offering's rate plan",
        plans[offering.rate_plan_id].currency,
        customer,
        field="offeringId",
    )


async def _check_discounts(scope: Scope, discount_ids: Sequence[UUID], customer: Customer) -> None:
    if len(discount_ids) > DISCOUNTS_MAX:
        raise Invalid(
            f"{len(discount_ids)} discounts are too many, give at most {DISCOUNTS_MAX}",
            field="discountIds",
        )
    check_unique(discount_ids, field="discountIds.{}")
    found = await catalog.discounts_by_id(scope, discount_ids)
    for index, discount_id in enumerate(discount_ids):
        path = f"discountIds.{index}"
        discount = found.get(discount_id)
        if discount is None:
            raise _not_found("discount", field=path)
        if discount.currency is not None:
            _check_same_currency("discount", discount.currency, customer, field=path)


def _check_same_currency(thing: str, currency: str, customer: Customer, *, field: str) -> None:
    if currency != customer.currency:
        raise CurrencyMismatch(
            f"the {thing} is in {currency}, the customer pays in {customer.currency}; "
            "choose one in that currency",
            field=field,
        )


async def _check_overlap(
    scope: Scope, *, customer_id: UUID, offering_id: UUID, from_: datetime
) -> None:
    """Refuse to price one unit twice: usage is counted by customer, meter and time."""
    priced = (
        sa.select(col(RatePlanLine.meter_id))
        .join(Offering, col(Offering.rate_plan_id) == col(RatePlanLine.rate_plan_id))
        .where(col(Offering.id) == offering_id)
    )
    rival = await scope.db.scalar(
        sa.select(Subscription)
        .join(Offering, col(Offering.id) == col(Subscription.offering_id))
        .join(RatePlanLine, col(RatePlanLine.rate_plan_id) == col(Offering.rate_plan_id))
        .where(
            col(Subscription.customer_id) == customer_id,
            sa.or_(col(Subscription.ends_at).is_(None), col(Subscription.ends_at) > from_),
            col(RatePlanLine.meter_id).in_(priced),
        )
        .limit(1)
    )
    if rival is not None:
        raise Conflict(
            "the customer has a subscription at that time that prices the same meter, so its usage "
            "would be billed twice; end that one first, or start this one when it ends",
            code="SUBSCRIPTION_OVERLAPS",
            field="offeringId",
        )


def _not_found(thing: str, *, field: str) -> NotFound:
    return NotFound(f"there is no {thing} with this id", field=field)
